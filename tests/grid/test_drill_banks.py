"""Banks of drills: what is written is read, and those that ship are what they say."""

from collections import Counter
from dataclasses import replace

import pytest

from ace_ray.config.errors import ConfigError, DataError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.drill_banks import FAMILIES, DrillBank, read_bank, shipped_bank, write_bank
from ace_ray.grid.scenarios.drills import Drill
from ace_ray.grid.scenarios.environment import data_set
from ace_ray.grid.scenarios.scenario import Scenario

pytestmark = pytest.mark.unit

COUNTS = {
    "attack": {"train": 2000, "validation": 600, "test": 1000},
    "load-rise": {"train": 600, "validation": 300, "test": 500},
}


def bank(count: int) -> DrillBank:
    scenario = Scenario("grid", "packaged", "week", 7, 100, 130)
    drills = (Drill("attack", replace(scenario, start_step=i), 30 + i, i % 3, 48) for i in range(count))
    return DrillBank("attack", "grid", "packaged", "test", tuple(drills))


def test_a_bank_is_read_as_it_was_written_on_whatever_data_are_there(tmp_path):
    path = tmp_path / "banks" / "mine.parquet"
    write_bank(bank(5), path)
    assert read_bank(path, "packaged") == bank(5)
    assert {drill.scenario.data for drill in read_bank(path, "/elsewhere").drills} == {"/elsewhere"}


def test_the_first_drills_are_taken_and_named_lines_come_in_turn():
    assert bank(5).taken(3) == bank(5).drills[:3] and bank(5).taken() == bank(5).drills
    named = bank(5).taken(4, [45, 56])
    assert [drill.line for drill in named] == [45, 56, 45, 56]
    assert [replace(drill, line=0) for drill in named] == [replace(drill, line=0) for drill in bank(5).drills[:4]]


def test_what_is_no_bank_is_an_error_that_says_so(tmp_path):
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    for name in ("torn.parquet", "missing.parquet"):
        with pytest.raises(DataError, match="is no bank of drills"):
            read_bank(tmp_path / name, "packaged")
    with pytest.raises(ConfigError, match="attack-validation"):
        shipped_bank("storm", "validation")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_banks_that_ship_hold_different_drills_of_their_own_split_in_fair_order(family):
    data, total = data_set(GridSettings()), 0
    for split, count in COUNTS[family].items():
        path = shipped_bank(family, split)
        total += path.stat().st_size
        found = read_bank(path, "packaged")
        assert (found.family, found.split, found.env) == (family, split, GridSettings().env)
        assert len(set(found.drills)) == len(found.drills) == count
        weeks = data.split[split]
        assert {drill.scenario.chronic for drill in found.drills} == set(weeks)
        most = Counter(drill.scenario.chronic for drill in found.drills[:200]).most_common(1)[0][1]
        assert most <= 200 // len(weeks) + 8, "the first drills come from all weeks alike"
        for drill in found.drills:
            assert drill.scenario.start_step + drill.scenario.max_steps <= data.steps(drill.scenario.chronic)
            assert 24 <= drill.warm_up <= 48 and drill.warm_up + drill.outage < drill.scenario.max_steps
    assert total < 64_000, "they are ids"
