"""`ace bench rollout --llm-latency`: the refiner works only when it may, and the figures are of the same decisions."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ace_ray.config.run import RunSettings
from ace_ray.lab.bench.refining import _REST, _Switch, bench_refining, refining_lines

pytestmark = pytest.mark.unit


@pytest.fixture
def signals() -> Iterator[None]:
    before = signal.getsignal(_REST)
    yield
    signal.signal(_REST, before)


def _wait_for_rest(switch: _Switch) -> None:
    until = time.monotonic() + 5
    while not switch.resting:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_time_passes_for_the_refiner_only_while_it_works(signals: None) -> None:
    switch = _Switch()

    def worker() -> None:
        for _ in range(3):
            _wait_for_rest(switch)
            time.sleep(0.4)
            switch.work()
            time.sleep(0.2)
            switch.rest(os.getpid())
        _wait_for_rest(switch)
        switch.end()

    thread = threading.Thread(target=worker)
    thread.start()
    begun = time.monotonic()
    switch.rest_at_signal()
    assert time.monotonic() - begun >= 0.4
    switch.sleep(60.0)  # rests three times more, and what has ended waits for nothing
    assert 1.8 <= time.monotonic() - begun < 20.0
    assert switch.over()
    thread.join(5)


def test_a_refiner_at_rest_uses_no_time(signals: None) -> None:
    """In the midst of its work: nothing has to come to an end first."""
    switch, busy = _Switch(), []

    def worker() -> None:
        _wait_for_rest(switch)
        switch.work()
        time.sleep(0.2)
        switch.rest(os.getpid())
        _wait_for_rest(switch)
        begun = time.process_time()
        time.sleep(0.5)
        busy.append(time.process_time() - begun)
        switch.end()

    thread = threading.Thread(target=worker)
    thread.start()
    switch.rest_at_signal()
    while not switch.over():
        sum(range(1000))
    thread.join(5)
    assert busy and busy[0] < 0.2


def test_work_and_rest_in_quick_turns_lose_no_signal(signals: None) -> None:
    switch = _Switch()

    def worker() -> None:
        for _ in range(200):  # the handler is still on its way out, or has not seen that it may work
            _wait_for_rest(switch)
            switch.work()
            switch.rest(os.getpid())
        _wait_for_rest(switch)
        switch.end()

    thread = threading.Thread(target=worker)
    thread.start()
    switch.rest_at_signal()
    switch.sleep(60.0)
    thread.join(20)
    assert not thread.is_alive() and switch.over()


def test_worker_and_refiner_are_measured_side_by_side() -> None:
    result = json.loads(json.dumps(bench_refining(RunSettings(), "test:2;steps=600", 0.1)))
    page = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    (section,) = [part for part in page.split("\n## ") if part.startswith("`ace bench rollout --llm-latency")]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list(result)
    speed = result["decisions_per_s"]
    assert result["decisions"] > 0 and result["blocks"] >= 2
    assert result["ratio"] == pytest.approx(speed["on"] / speed["off"])
    low, high = result["ratio_ci95"]
    assert low <= result["ratio"] <= high
    assert result["refiner"]["outcomes"] >= 1 and result["refiner"]["cpu_s"] > 0
    assert any(f"{result['ratio']:.2f} ratio" in line for line in refining_lines(result))
