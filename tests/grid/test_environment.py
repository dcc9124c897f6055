"""Environments are built on any data, and what is missing is said before any work starts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.data import SPLITS
from ace_ray.grid.scenarios.environment import data_set, environment_folder, is_random, make_env, make_stock_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to
from ace_ray.grid.scenarios.scenario_sets import parse

pytestmark = pytest.mark.unit


def test_the_default_environment_has_the_real_rules_opponent_and_limits(env):
    parameters = env.parameters
    assert (env.n_sub, env.n_line, env.dim_topo) == (36, 59, 177)
    assert (parameters.MAX_SUB_CHANGED, parameters.MAX_LINE_STATUS_CHANGED) == (1, 1)
    assert (parameters.NB_TIMESTEP_COOLDOWN_SUB, parameters.NB_TIMESTEP_RECONNECTION) == (3, 12)
    assert type(env._opponent).__name__ == "WeightedRandomOpponent"
    assert "LightSim" in type(env.backend).__name__


@pytest.mark.parametrize("name", ["l2rpn_neurips_2020_track1", "l2rpn_icaps_2021"])
def test_packaged_weeks_are_played_with_forecasts(name):
    settings = GridSettings(env=name)
    env = make_env(settings)
    obs = reset_to(env, parse("validation:1", settings).scenarios[0])
    now, _, done, _ = obs.simulate(env.action_space())
    then, _, _, _ = env.step(env.action_space())
    assert not done
    error = np.abs(now.load_p - then.load_p)
    assert error.max() > 0 and error.mean() < 1.0, "a forecast close to what comes, and not that itself"
    env.close()


def test_packaged_weeks_are_the_generated_ones_rounded(test_data):
    ours = make_env(GridSettings())
    theirs = make_env(GridSettings(data=str(test_data / "36sub/generated_weeks")))
    for name, env in (("packaged", ours), (theirs.ace_data.id, theirs)):
        scenario = Scenario("l2rpn_neurips_2020_track1", name, "jul_1042", 4, 700)
        env.series = reset_to(env, scenario), env.chronics_handler.real_data.data
    (obs, mine), (other, full) = ours.series, theirs.series
    assert np.abs(mine.load_p - full.load_p).max() <= 0.051 and np.abs(mine.prod_p - full.prod_p).max() <= 0.051
    assert np.abs(mine.load_p_forecast - full.load_p_forecast).max() <= 0.2501
    assert np.abs(obs.rho - other.rho).max() < 2e-3
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (GridSettings(env="l2rpn_neurips_2020_track1_small"), "neither inside the grid2op package"),
        (GridSettings(env="l2rpn_case14_sandbox", data="packaged"), "packaged weeks are for"),
        (GridSettings(data="/no/such/folder"), "no folder of chronics"),
        (GridSettings(env="l2rpn_neurips_2020_track2"), "one must be chosen"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(settings, words):
    with pytest.raises(DataError, match=words) as caught:
        make_env(settings)
    assert caught.value.remedy


def test_an_unknown_environment_says_how_to_download_it():
    with pytest.raises(DataError) as caught:
        make_env(GridSettings(env="l2rpn_idf_2023_large"))
    assert "grid2op.make('l2rpn_idf_2023_large')" in str(caught.value)


def test_an_environment_downloaded_before_is_found_by_its_name(tmp_path, monkeypatch):
    shutil.copytree(environment_folder("rte_case5_example"), tmp_path / "downloaded_case5")
    monkeypatch.setattr("ace_ray.grid.scenarios.environment.DEFAULT_PATH_DATA", str(tmp_path))
    settings = GridSettings(env="downloaded_case5")
    assert data_set(settings).path == str(tmp_path / "downloaded_case5" / "chronics")
    env = make_env(settings)
    assert reset_to(env, parse("validation:1", settings).scenarios[0]).rho.max() > 0
    env.close()


def test_one_mix_of_several_is_played_like_any_environment():
    settings = GridSettings(env="l2rpn_neurips_2020_track2/x1", data="shipped")
    env = make_env(settings)
    first, second = data_set(settings).chronics
    assert data_set(settings).split["test"] == (second,) != (first,)
    assert reset_to(env, parse("test:1", settings).scenarios[0]).rho.max() > 0
    env.close()


def test_the_stock_environment_reads_chronics_of_one_kind(test_data):
    settings = GridSettings(env="l2rpn_wcci_2020", data=str(test_data / "36sub/wcci_2020_months"))
    first, second, *_ = data_set(settings).chronics
    with pytest.raises(DataError, match="maintenance_meta.json"):
        make_stock_env(settings, [first, second])
    env = make_stock_env(settings, [second])
    assert reset_to(env, Scenario(settings.env, settings.data, second, 0)).rho.max() > 0
    env.close()


def test_chronics_of_another_grid_are_refused(case14):
    with pytest.raises(DataError, match="cannot be read"):
        make_env(GridSettings(data=case14.ace_data.path))


def test_empty_folders_and_wrong_splits_are_refused(tmp_path, case14):
    with pytest.raises(DataError, match="has no chronics"):
        data_set(GridSettings(data=str(tmp_path)))
    for name in case14.ace_data.chronics:
        shutil.copytree(Path(case14.ace_data.path) / name, tmp_path / name)
    settings = GridSettings(env="l2rpn_case14_sandbox", data=str(tmp_path))
    first, second, third = case14.ace_data.chronics
    (tmp_path / "split.json").write_text(json.dumps({"train": [first, second], "validation": [second], "test": []}))
    with pytest.raises(DataError, match="lists a chronic twice"):
        data_set(settings)
    (tmp_path / "split.json").write_text(json.dumps({"train": [third], "validation": [second], "test": [first]}))
    assert [data_set(settings).split[key] for key in SPLITS] == [(third,), (second,), (first,)]


def test_an_environment_with_nothing_random_is_known_as_such():
    random = [GridSettings(env=name, data="shipped") for name in ("l2rpn_neurips_2020_track1", "l2rpn_wcci_2020")]
    assert all(is_random(settings) for settings in random)
    assert not is_random(GridSettings(env="l2rpn_case14_sandbox"))


@pytest.mark.parametrize("month", ["Scenario_august_00", "Scenario_june_014"])
def test_a_folder_may_mix_chronics_with_and_without_maintenance(test_data, month):
    data = str(test_data / "36sub/wcci_2020_months")
    env = make_env(GridSettings(env="l2rpn_wcci_2020", data=data))
    obs = reset_to(env, Scenario("l2rpn_wcci_2020", data, month, 0))
    planned = (obs.time_next_maintenance >= 0).any()
    assert planned == (Path(data) / month / "maintenance_meta.json").exists()
    env.close()


def test_nothing_is_written_beside_the_chronics(env, scenario):
    folder = Path(env.ace_data.path)
    before = sorted(folder.rglob("*"))
    reset_to(env, scenario)
    env.step(env.action_space())
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def own_week(tmp_path, case14):
    """A folder with one chronic of the 14-substation grid that a test may break, and its settings."""
    source = Path(case14.ace_data.path) / case14.ace_data.chronics[0]
    shutil.copytree(source, tmp_path / "good")
    shutil.copytree(source, tmp_path / "week")
    return tmp_path / "week", GridSettings(env="l2rpn_case14_sandbox", data=str(tmp_path))


def test_a_maintenance_meta_file_is_heeded_in_any_environment(own_week):
    week, settings = own_week
    assert not is_random(settings)
    meta = {
        "maintenance_starting_hour": 0,
        "maintenance_ending_hour": 23,
        "line_to_maintenance": ["0_1_0"],
        "daily_proba_per_month_maintenance": [1.0] * 12,
        "max_daily_number_per_month_maintenance": [1] * 12,
        "maintenance_day_of_week": list(range(7)),
    }
    (week / "maintenance_meta.json").write_text(json.dumps(meta))
    assert is_random(settings)
    env = make_env(settings)
    planned = {}
    for chronic in ("week", "good"):
        obs = reset_to(env, Scenario(settings.env, settings.data, chronic, 0))
        planned[chronic] = bool((obs.time_next_maintenance >= 0).any())
    assert planned == {"week": True, "good": False}
    env.close()


def test_one_mix_of_a_set_of_mixes_has_a_name() -> None:
    assert environment_folder("l2rpn_neurips_2020_track2/x1").name == "x1"
    with pytest.raises(DataError, match="track2/x1, l2rpn_neurips_2020_track2/x2.5"):
        environment_folder("l2rpn_neurips_2020_track2")
    with pytest.raises(DataError, match="neither"):
        environment_folder("l2rpn_neurips_2020_track2/x9")


@pytest.mark.parametrize(
    ("file", "text"),
    [("config.py", None), ("config.py", "config = {"), ("config.py", "conf = {}"), ("grid.json", "{")],
)
def test_a_broken_environment_is_named(tmp_path, file, text):
    shutil.copytree(environment_folder("rte_case5_example"), tmp_path / "own")
    (tmp_path / "own" / file).unlink()
    if text is not None:
        (tmp_path / "own" / file).write_text(text)
    with pytest.raises(DataError, match="own") as caught:
        make_env(GridSettings(env=str(tmp_path / "own")))
    assert caught.value.remedy
