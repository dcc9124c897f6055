"""`ace bench`: each measurement runs, and its numbers are of the thing that it names."""

import json
import re
import time
from pathlib import Path

import pytest

from ace_ray.config.grid import CriticalSettings, GridSettings
from ace_ray.config.load import load_settings
from ace_ray.grid.engine import EngineSpec
from ace_ray.lab.bench.rollout import Stopwatch, bench_rollout, rollout_lines
from ace_ray.lab.bench.screen import bench_screen, screen_lines


def number(line: str) -> float:
    found = re.search(r"(\d+\.\d+)", line)
    assert found, line
    return float(found.group(1))


def documented(section: str) -> list[str]:
    page = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    (text,) = [part for part in page.split("\n## ") if part.startswith(section)]
    return re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)


@pytest.mark.unit
def test_the_screen_is_timed_apart_from_the_whole_decision() -> None:
    result = bench_screen(GridSettings(), states=3, exhaustive=0)
    head, rank, decide, *_ = screen_lines(result)
    assert "67,106 actions, 3 states" in head
    assert 0 < number(rank) < number(decide)
    assert json.loads(json.dumps(result)) == result
    assert documented("`ace bench screen") == list(result)
    assert result["sweep_ms"] is None
    assert result["recall"]["states"] == 0


@pytest.mark.unit
def test_exhaustive_search_finds_nothing_much_better_than_the_slots() -> None:
    settings = GridSettings(
        env="l2rpn_case14_sandbox",
        data="shipped",
        critical=CriticalSettings(predicate="overloaded", rho_overloaded=0.9),
    )
    result = bench_screen(settings, states=4, exhaustive=4)
    assert result["shares"]["overloaded"] == 1.0
    assert result["recall"]["states"] == 4
    assert result["recall"]["64"] == 1.0
    assert result["sweep_ms"] > 0
    assert result["rank_at_t1"]["median"] >= 1


@pytest.mark.unit
def test_the_rollout_is_measured_against_a_loop_that_ends_where_it_ends() -> None:
    result = bench_rollout(GridSettings(), "train:1;steps=60")
    assert 0 < result["decisions"] <= result["steps"] <= 60
    assert sum(result["shares"].values()) == pytest.approx(1.0, abs=0.02)
    assert result["shares"]["decide"] > result["shares"]["predicate"] > 0
    assert result["outside_decisions"] > 0 and result["reset_ms"]["ours"] < result["reset_ms"]["bare"]
    assert json.loads(json.dumps(result)) == result
    assert documented("`ace bench rollout --json") == list(result)
    assert f"{result['steps']} steps" in rollout_lines(result)[0]


@pytest.mark.unit
def test_a_phase_inside_another_counts_once() -> None:
    watch = Stopwatch()
    with watch.phase("other"):
        time.sleep(0.02)
        with watch.phase("step"):
            time.sleep(0.02)
            with watch.phase("observation"):
                time.sleep(0.04)
        with watch.phase("decide"), watch.phase("rules"):
            time.sleep(0.02)
    seconds = watch.seconds
    assert seconds["rules"] == 0 and seconds["decide"] >= 0.02 and seconds["observation"] >= 0.04
    assert 0.02 <= seconds["step"] < 0.04 and 0.02 <= seconds["other"] < 0.04


@pytest.mark.unit
def test_the_learner_is_measured_on_the_shapes_of_the_grid() -> None:
    from ace_ray.lab.bench.learner import measure_learner

    settings = load_settings(overrides=["learner.batch=4", "policy.hidden=8", "policy.heads=1", "policy.layers=1"])
    spec = EngineSpec(slots=4, slot_features=3, context_features=5, lines=2, outages=1)
    shapes, updates = measure_learner(settings, spec, seconds=0.2)
    assert shapes == "4 slots of 3 features, 5 state features, batch 4"
    assert number(updates) > 0
