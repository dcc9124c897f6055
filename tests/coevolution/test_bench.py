"""`ace bench rollout --llm-latency`: the refiner works only when it may, and the figures are of the same decisions."""

import json
import re
import threading
import time
from pathlib import Path

import pytest

from ace_ray.coevolution.bench import _Switch, bench_refining, refining_lines
from ace_ray.config.run import RunSettings

pytestmark = pytest.mark.unit


def test_time_passes_for_the_refiner_only_while_it_works() -> None:
    switch, slept = _Switch(), threading.Event()

    def refiner() -> None:
        switch.sleep(0.3)
        slept.set()

    thread = threading.Thread(target=refiner)
    thread.start()
    assert switch.resting.wait(5)
    assert not slept.wait(0.5)
    switch.resting.clear()
    switch.working.set()
    assert slept.wait(5)
    switch.ended.set()
    thread.join(5)
    begun = time.monotonic()
    switch.sleep(60.0)  # what has ended waits for nothing
    assert time.monotonic() - begun < 1.0


def test_worker_and_refiner_are_measured_side_by_side() -> None:
    result = json.loads(json.dumps(bench_refining(RunSettings(), "test:2;steps=60", 0.1)))
    page = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    (section,) = [part for part in page.split("\n## ") if part.startswith("`ace bench rollout --llm-latency")]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list(result)
    speed = result["decisions_per_s"]
    assert result["decisions"] > 0 and len(result["ratios"]) == 2
    assert result["ratio"] == pytest.approx(sum(result["ratios"]) / 2)
    assert min(result["ratios"]) <= speed["on"] / speed["off"] <= max(result["ratios"])
    assert result["refiner"]["fates"] >= 1 and result["refiner"]["cpu_s"] > 0
    assert any(f"{result['ratio']:.2f} ratio" in line for line in refining_lines(result))
