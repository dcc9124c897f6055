"""The watch over silent runners, with a clock of its own."""

import pytest

from ace_ray.coevolution.stall import StallWatch
from ace_ray.config.errors import WorkerError

pytestmark = pytest.mark.unit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_silence_fails_with_the_last_remote_error():
    clock = Clock()
    watch = StallWatch(10.0, clock)
    clock.now = 9.0
    watch.decisions(1)
    assert watch.error("rollout worker 1", "ValueError: no chronics\n")
    assert not watch.error("rollout worker 1", "ValueError: no chronics")
    clock.now = 18.0
    watch.check()
    watch.decisions(0)  # an empty report is still silence
    clock.now = 20.0
    with pytest.raises(WorkerError, match=r"for 11 s; last remote error \(2 in all\):\nrollout worker 1: ValueError"):
        watch.check()


def test_silence_without_an_error_says_so():
    clock = Clock()
    watch = StallWatch(1.0, clock)
    clock.now = 2.0
    with pytest.raises(WorkerError, match="no remote error"):
        watch.check()
