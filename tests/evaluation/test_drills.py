"""Drills played and counted: the same outcome in any order, and a difference that is claimed only where it is shown."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ace_ray.config.errors import DataError
from ace_ray.evaluation.drill_report import DrillReport, paired, survival
from ace_ray.evaluation.drills import DrillJob, DrillRow, label, play_drills, read_rows, write_rows
from ace_ray.evaluation.player import Player
from ace_ray.grid.scenarios.drills import Drill
from ace_ray.grid.scenarios.scenario import Scenario

from ..conftest import TRACK1

pytestmark = pytest.mark.unit

WEEK = Scenario(TRACK1, "shipped", "Scenario_august_dummy", env_seed=0)


def drill(family: str, start: int, line: int) -> Drill:
    return Drill(family, replace(WEEK, start_step=start, max_steps=40), warm_up=24, line=line, outage=12)


def row(number: int, survived: bool, chronics: int = 6) -> DrillRow:
    return DrillRow(
        agent="greedy",
        family="attack",
        chronic=f"week_{number % chronics}",
        env_seed=number,
        start_step=3 * number,
        warm_up=30,
        line=45 if number % 2 else 56,
        outage=48,
        max_steps=126,
        month=1,
        hour=number % 24,
        survived=survived,
        death=None if survived else 4,
        stress=0.5,
        steps=126 if survived else 34,
        reward=1.0,
        decisions=9,
        actions=8,
        illegal_actions=0,
    )


def rows(outcomes: str) -> tuple[DrillRow, ...]:
    return tuple(row(i, one == "s") for i, one in enumerate(outcomes))


def test_a_drill_ends_the_same_in_whatever_order_and_process_it_is_played(grid_settings):
    drills = [drill("attack", 0, 45), drill("load-rise", 300, 13), drill("attack", 600, 56), drill("attack", 600, 45)]
    jobs = [DrillJob("greedy", grid_settings, one) for one in drills]
    first, second = Player(), Player()
    forward = [job.play(first) for job in jobs]
    backward = [job.play(second) for job in reversed(jobs)][::-1]
    assert forward == backward
    assert [job.play(first) for job in jobs[1:]] == forward[1:]
    assert len({one.reward for one in forward}) == len(drills), "they are different drills"


def test_an_outcome_tells_when_the_line_went_out_and_when_the_grid_went_black(grid_settings):
    deadly = Drill("attack", replace(WEEK, env_seed=6, start_step=100, max_steps=60), warm_up=40, line=45, outage=12)
    calm = drill("attack", 0, 13)
    played = play_drills(["do-nothing"], [grid_settings], [deadly, calm], processes=1, progress=False)
    lost, kept = played["do-nothing"]
    assert (lost.survived, lost.steps, lost.death) == (False, 49, 9) and lost.stress > 0
    assert (kept.survived, kept.steps, kept.death) == (True, 40, None)
    assert (lost.month, lost.hour, kept.hour) == (8, 11, 2)  # rows of five minutes from midnight: 141 and 25


def test_one_agent_under_two_predicates_has_two_names(grid_settings):
    critical = grid_settings.critical.model_copy(update={"predicate": "overloaded"})
    overloaded = grid_settings.model_copy(update={"critical": critical})
    assert label("greedy", grid_settings) == "greedy"
    assert label("greedy", overloaded) == "greedy (overloaded)"


def test_rows_are_read_as_they_were_written(tmp_path):
    kept = [*rows("sd"), replace(row(2, False), stress=None, death=-3)]
    write_rows(kept, tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet") == kept
    (tmp_path / "other.parquet").write_text("something else")
    with pytest.raises(DataError, match="holds no played drills"):
        read_rows(tmp_path / "other.parquet")


def test_discordant_drills_are_counted_and_tested_exactly():
    found = paired("a", rows("s" * 19 + "d" * 4 + "s" * 200), "b", rows("d" * 19 + "s" * 4 + "s" * 200))
    assert (found.saved, found.lost, found.drills) == (4, 19, 223)
    assert found.p == pytest.approx(0.0025994, rel=1e-3)  # 2 * P(X <= 4), X binomial of 23 throws
    assert found.difference.mean == pytest.approx(-15 / 223)
    assert found.claim == "worse"


def test_nothing_is_claimed_of_few_drills_or_without_a_difference():
    few = paired("a", rows("s" * 150), "b", rows("d" * 150))
    assert few.p < 1e-9 and few.claim.startswith("not shown: 150 drills")
    alike = paired("a", rows("sd" * 150), "b", rows("sd" * 150))
    assert (alike.p, alike.claim) == (1.0, "not shown")


def test_the_interval_resamples_weeks():
    """Half of the weeks are survived and half are lost: the level is as uncertain as six weeks are."""
    alike = tuple(row(i, i % 6 < 3) for i in range(600))
    low, high = survival(alike).ci95
    assert high - low > 0.5


def test_a_report_has_every_table_and_its_json_the_documented_keys(tmp_path):
    report = DrillReport("attack, test", "greedy", {"greedy": rows("sd" * 120), "expert": rows("ss" * 120)})
    text = report.text()
    assert re.search(r"^expert - greedy +\+50\.0 .* 120 / 0 +1\.5e-36 +better$", text, flags=re.MULTILINE)
    assert re.search(r"^ 45 +120 +0 +100$", text, flags=re.MULTILINE)
    assert re.search(r"^21-24 h +30 ", text, flags=re.MULTILINE) and "week_5" in text
    found = report.to_json()
    assert json.loads(json.dumps(found)) == found
    page = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    (section,) = [part for part in page.split("\n## ") if part.startswith("`ace bench drills")]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list(found)
    for key in (*found["agents"][0], *found["comparisons"][0]):
        assert f"`{key}`" in section
    report.save(tmp_path)
    assert read_rows(tmp_path / "expert.parquet") == list(report.agents["expert"])
    assert "| expert - greedy | +50.0 |" in (tmp_path / "drills.md").read_text()
