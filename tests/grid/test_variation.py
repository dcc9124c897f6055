"""What a scenario adds to its chronic is physical, smooth, drawn from the scenario alone, and off unless asked for."""

import shutil
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ace_ray.config.errors import ConfigError, DataError
from ace_ray.config.grid import GridSettings, TrainingScenarioSettings
from ace_ray.domain import Snapshot
from ace_ray.grid.scenarios.environment import environment_folder, make_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to
from ace_ray.grid.scenarios.scenario_sets import parse, training_scenarios
from ace_ray.grid.scenarios.variation import follow, smooth_noise

from .test_scenario import future, in_another_process

pytestmark = pytest.mark.unit

TRACK1 = "l2rpn_neurips_2020_track1"
PLAIN = Scenario(TRACK1, "packaged", "jun_1005", env_seed=4)
VARIED = replace(PLAIN, maintenance=1.0, perturbation=0.1)


@pytest.fixture(scope="module")
def weeks():
    environment = make_env(GridSettings())
    yield environment
    environment.close()


def series(env, scenario):
    """The series of a scenario's episode."""
    reset_to(env, scenario)
    return env.chronics_handler.real_data.data


def relative(after, before):
    """Relative change of the loads that are never small."""
    large = np.abs(before).min(axis=0) > 5
    assert large.sum() > 10
    return after[:, large] / before[:, large] - 1


def test_the_balance_of_loads_and_generation_stays_that_of_the_chronic(weeks):
    before, after = series(weeks, PLAIN), series(weeks, VARIED)
    assert np.abs(relative(after.load_p, before.load_p)).max() > 0.1
    for kind in ("", "_forecast"):
        surplus = [
            getattr(s, f"prod_p{kind}").sum(axis=1) - getattr(s, f"load_p{kind}").sum(axis=1) for s in (after, before)
        ]
        assert np.abs(surplus[0] - surplus[1]).max() < 0.1, "MW"
    assert np.allclose(after.load_q * before.load_p, before.load_q * after.load_p, atol=0.2), "the same power factor"


def test_generators_keep_their_limits_and_ramps(weeks):
    before, after = series(weeks, PLAIN), series(weeks, replace(VARIED, perturbation=0.3))
    assert after.prod_p.min() >= 0 and (after.prod_p <= np.maximum(weeks.gen_pmax, before.prod_p) + 1e-3).all()
    adjustable = weeks.gen_redispatchable
    change = np.diff(after.prod_p[:, adjustable], axis=0)
    assert (change <= weeks.gen_max_ramp_up[adjustable] + 1e-3).all()
    assert (change >= -weeks.gen_max_ramp_down[adjustable] - 1e-3).all()
    assert np.array_equal(
        after.prod_p[:, weeks.gen_type == "solar"] == 0, before.prod_p[:, weeks.gen_type == "solar"] == 0
    )


def test_the_change_is_smooth_and_the_cached_week_is_not_touched(weeks):
    before = {name: getattr(series(weeks, PLAIN), name).copy() for name in ("load_p", "prod_p", "load_p_forecast")}
    change = relative(series(weeks, VARIED).load_p, before["load_p"])
    assert np.abs(np.diff(change, axis=0)).max() < 0.02
    again = series(weeks, PLAIN)
    assert all(np.array_equal(getattr(again, name), array) for name, array in before.items())
    assert again.maintenance is None


def test_a_working_day_has_one_line_in_maintenance_in_working_hours(weeks):
    found = series(weeks, VARIED)
    planned, start = found.maintenance, found.start_datetime
    hours = np.array([(start + i * found.time_interval).hour for i in range(len(planned))])
    weekday = np.array([(start + i * found.time_interval).weekday() for i in range(len(planned))])
    assert np.array_equal(planned.sum(axis=1), ((hours >= 9) & (hours < 17) & (weekday < 5)).astype(int))
    some = series(weeks, replace(VARIED, maintenance=0.4)).maintenance
    assert 0 < some.sum() < planned.sum()


def test_planned_maintenance_is_foretold_and_takes_the_line_out(weeks):
    scenario = replace(PLAIN, maintenance=1.0)
    line, row = (int(a[0]) for a in np.nonzero(series(weeks, scenario).maintenance.T))
    obs = reset_to(weeks, replace(scenario, start_step=row - 3))
    assert obs.time_next_maintenance[line] == 3 and obs.duration_next_maintenance[line] == 96
    for _ in range(3):
        assert obs.line_status[line]
        obs, _, done, _ = weeks.step(weeks.action_space())
        assert not done
    assert not obs.line_status[line]


def test_a_variation_leaves_the_first_attack_alone(weeks):
    def first_attack(scenario):
        reset_to(weeks, scenario)
        for step in range(150):
            _, _, done, info = weeks.step(weeks.action_space())
            if info["opponent_attack_line"] is not None:
                return step, info["opponent_attack_line"].tolist()
            assert not done
        raise AssertionError("no attack: choose another seed")

    plain = replace(PLAIN, env_seed=3)
    assert first_attack(plain) == first_attack(replace(plain, perturbation=0.005, maintenance=0.1))


def test_a_varied_scenario_is_the_same_in_another_process(weeks):
    other = replace(VARIED, env_seed=5)
    reset_to(weeks, other)
    seen = future(weeks, reset_to(weeks, VARIED), 120)
    assert seen != future(weeks, reset_to(weeks, other), 120)
    assert [seen] == in_another_process([Snapshot(VARIED, (), 0)])


def test_chronics_with_maintenance_of_their_own_keep_it(env, scenario):
    own = series(env, scenario).maintenance
    assert np.array_equal(series(env, replace(scenario, maintenance=1.0)).maintenance, own)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.0, 60.0))
def test_generation_follows_within_its_limits(seed, count, size):
    rng = np.random.default_rng(seed)
    limits = np.stack([np.zeros(count), rng.uniform(20, 100, count), *rng.uniform(0.5, 10, (2, count))])
    base = np.zeros((40, count))
    base[0] = rng.uniform(limits[0], limits[1])
    for t in range(1, 40):
        base[t] = np.clip(base[t - 1] + rng.uniform(-limits[2], limits[3]), limits[0], limits[1])
    wanted = size * smooth_noise(rng, 40, 1, 12.0)[:, 0]
    new = follow(base, wanted, limits)
    assert (new >= limits[0] - 1e-9).all() and (new <= limits[1] + 1e-9).all()
    change = np.diff(new, axis=0)
    assert (change <= limits[3] + 1e-9).all() and (change >= -limits[2] - 1e-9).all()
    total = (new - base).sum(axis=1)
    for t in range(1, 40):  # what is missing is missing because nothing more can move
        low, high = np.maximum(limits[0], new[t - 1] - limits[2]), np.minimum(limits[1], new[t - 1] + limits[3])
        if total[t] < wanted[t] - 1e-6:
            assert np.allclose(new[t], high)
        if total[t] > wanted[t] + 1e-6:
            assert np.allclose(new[t], low)


def test_sets_and_training_name_their_variation():
    chosen = parse("validation:2;steps=50;maintenance=0.5;perturbation=0.05", GridSettings()).scenarios
    assert {(s.maintenance, s.perturbation, s.max_steps) for s in chosen} == {(0.5, 0.05, 50)}
    plain = parse("validation:2;steps=50", GridSettings()).scenarios
    assert [replace(s, maintenance=0.0, perturbation=0.0) for s in chosen] == list(plain)
    assert plain[0].key() + "|maintenance=0.5|perturbation=0.05" == chosen[0].key()
    assert Scenario.from_json(chosen[0].to_json()) == chosen[0]
    trained = GridSettings(training=TrainingScenarioSettings(perturbation=0.02))
    assert {s.perturbation for s in islice(training_scenarios(trained, 0), 5)} == {0.02}
    assert not any(s.varied for s in parse("train:2", trained).scenarios)
    for wrong in ("perturbation=2", "maintenance=often"):
        with pytest.raises(ConfigError, match="not a number from 0 to 1"):
            parse(f"test:1;{wrong}", GridSettings())


def test_series_that_are_not_files_are_not_varied(tmp_path):
    folder = tmp_path / "rte_case5_still"
    shutil.copytree(environment_folder("rte_case5_example"), folder)
    with (folder / "config.py").open("a") as config:
        config.write("from grid2op.Chronics import ChangeNothing\nconfig['chronics_class'] = ChangeNothing\n")
    other = make_env(GridSettings(env=str(folder), data="shipped"))
    chronic = other.ace_data.chronics[0]
    reset_to(other, Scenario(str(folder), "shipped", chronic, 0))
    with pytest.raises(DataError, match="cannot be varied"):
        reset_to(other, Scenario(str(folder), "shipped", chronic, 0, perturbation=0.1))
    other.close()


def test_forecasts_of_twelve_steps_move_with_what_they_foretell():
    name = "l2rpn_idf_2023"
    far = make_env(GridSettings(env=name, data="shipped"))
    plain = Scenario(name, "shipped", far.ace_data.chronics[0], 0)
    before, after = series(far, plain), series(far, replace(plain, perturbation=0.05))
    horizons, rows = len(before._h_forecast), np.arange(0, len(before.load_p) - 13, 7)
    assert horizons == 12
    for ahead in (1, 12):
        foretold = (after.load_p_forecast - before.load_p_forecast)[rows * horizons + ahead - 1]
        assert np.abs(foretold).max() > 1
        assert np.allclose(foretold, (after.load_p - before.load_p)[rows + ahead], atol=1e-3)
    far.close()
