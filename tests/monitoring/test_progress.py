"""The progress line, and the same numbers as TensorBoard events."""

from pathlib import Path

import pytest

from ace_ray.monitoring.progress import EventLog, Progress, duration, progress_line

pytestmark = pytest.mark.unit


def test_a_line_at_the_start_shows_no_refinement() -> None:
    line = progress_line(
        Progress(seconds=5, decisions=0, decisions_per_s=0, episodes=0, updates=0, staleness=0, budget_s=900)
    )
    assert line == "5s/15m00s | 0 decisions (0.0/s) | 0 episodes, survival - | 0 updates, staleness 0 updates"


def test_a_line_in_the_middle_shows_everything_with_its_unit() -> None:
    line = progress_line(
        Progress(
            seconds=3725,
            decisions=12345,
            decisions_per_s=6.25,
            episodes=80,
            updates=4000,
            staleness=12.4,
            survival=0.615,
            budget_decisions=20000,
            asked=14,
            salvageable=9,
            accepted=4,
            refined=16,
            pending=3,
            edits=2,
            adapters={"critic": 0, "actor": 2},
        )  # fmt: skip
    )
    assert line == (
        "1h02m | 12,345/20,000 decisions (6.2/s) | 80 episodes, survival 62 % | 4,000 updates, staleness 12 updates | "
        "refinements: 14 asked, 9 salvageable, 4 accepted, 3 pending, 16 in D_LLM | 2 edits | "
        "adapters actor v2, critic v0"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (7200, "2h00m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_events_are_read_back_by_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventLog(tmp_path)
    log.write(10, {"rollout/survival": 0.5})
    log.write(20, {"rollout/survival": 0.75})
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("rollout/survival")] == [(10, 0.5), (20, 0.75)]
