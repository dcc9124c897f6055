"""`ace bench drills`: a bank is drawn, played, and compared with an agent or with rows of an earlier run."""

import json

import pytest

from ace_ray.cli import main
from ace_ray.config.drills import DrillSettings
from ace_ray.config.errors import ConfigError, DataError
from ace_ray.evaluation.drills import play_drills, read_rows
from ace_ray.grid.physics.security import attackable_lines
from ace_ray.grid.scenarios.drill_banks import read_bank, write_bank
from ace_ray.lab.bench.drill_banks import make_bank
from ace_ray.lab.bench.drills import bench_drills, with_reference

SHORT = DrillSettings(warm_up_least=3, warm_up_most=6, attack_after=2, rise_outage=9, rise_after=2)


@pytest.fixture(scope="module")
def banks(tmp_path_factory, grid_settings, env):
    """Four short attacks and four short load rises of the chronics inside the grid2op package."""
    folder = tmp_path_factory.mktemp("banks")
    for family in ("attack", "load-rise"):
        bank = make_bank(family, "test", 4, grid_settings, SHORT, seed=1, processes=1, progress=False)
        write_bank(bank, folder / f"{family}.parquet")
    return folder


def run(banks, settings, agents=("do-nothing",), reference="do-nothing", **changes):
    given = {"bank": str(banks / "attack.parquet"), "split": "test", "limit": None, "lines": (), "processes": 1}
    return bench_drills(agents, [settings] * len(agents), reference=reference, progress=False, **(given | changes))


@pytest.mark.unit
def test_a_bank_is_drawn_by_the_rules_of_its_family(banks, env):
    attacks = read_bank(banks / "attack.parquet", "shipped").drills
    rises = read_bank(banks / "load-rise.parquet", "shipped").drills
    assert {drill.line for drill in attacks} <= set(attackable_lines(env))
    assert {(drill.outage, drill.scenario.max_steps - drill.warm_up) for drill in attacks} == {(48, 50)}
    for drill in rises:
        begin = drill.scenario.start_step + drill.warm_up + 1  # the chronic begins at midnight, rows are 5 minutes
        assert 4.0 <= begin * 5 / 60 % 24 < 5.5 and drill.outage == 9
    assert {drill.scenario.chronic for drill in (*attacks, *rises)} == set(env.ace_data.split["test"])


@pytest.mark.unit
def test_the_same_seed_draws_the_same_bank(banks, grid_settings):
    again = make_bank("attack", "test", 4, grid_settings, SHORT, seed=1, processes=1, progress=False)
    assert again == read_bank(banks / "attack.parquet", "shipped")


@pytest.mark.unit
def test_agents_are_compared_with_the_reference_or_with_its_rows_of_an_earlier_run(banks, grid_settings, tmp_path):
    report = run(banks, grid_settings, with_reference(["reconnect"], "do-nothing"), limit=2, lines=(45, 56))
    assert list(report.agents) == ["do-nothing", "reconnect"] and report.reference == "do-nothing"
    assert [row.line for row in report.agents["reconnect"]] == [45, 56]
    report.save(tmp_path)
    kept = str(tmp_path / "do-nothing.parquet")
    later = run(banks, grid_settings, ("reconnect",), kept, limit=2, lines=(45, 56))
    assert later.to_json() == report.to_json()
    with pytest.raises(DataError, match="lacks [12] of the 2 drills"):
        run(banks, grid_settings, ("reconnect",), kept, limit=2)
    with pytest.raises(ConfigError, match="no file of an earlier run"):
        run(banks, grid_settings, ("reconnect",), str(tmp_path / "nowhere.parquet"))


@pytest.mark.unit
def test_a_bank_of_another_environment_or_longer_chronics_is_refused(banks, grid_settings):
    other = grid_settings.model_copy(update={"env": "l2rpn_icaps_2021"})
    with pytest.raises(ConfigError, match="is of l2rpn_neurips_2020_track1"):
        run(banks, other)
    with pytest.raises(DataError, match="is not in data set 'shipped'"):
        run(banks, grid_settings, bank="attack", split="validation")


@pytest.mark.unit
def test_the_command_prints_tables_and_writes_what_it_is_asked_for(banks, tmp_path, capsys):
    arguments = ["--agent", "reconnect", "--reference", "do-nothing", "--bank", str(banks / "load-rise.parquet")]
    outputs = ["--json", str(tmp_path / "found.json"), "--output", str(tmp_path / "out")]
    assert main(["bench", "drills", *arguments, *outputs, "--workers", "1", "grid.data=shipped"]) == 0
    printed = capsys.readouterr().out
    assert "reconnect - do-nothing" in printed and "not shown: 4 drills are fewer than 200" in printed
    assert json.loads((tmp_path / "found.json").read_text())["reference"] == "do-nothing"
    assert {row.family for row in read_rows(tmp_path / "out" / "reconnect.parquet")} == {"load-rise"}


@pytest.mark.ray
def test_two_workers_play_what_one_plays(banks, grid_settings):
    drills = read_bank(banks / "attack.parquet", "shipped").drills
    alone, together = (play_drills(["greedy"], [grid_settings], drills, processes=n, progress=False) for n in (1, 2))
    assert alone == together
