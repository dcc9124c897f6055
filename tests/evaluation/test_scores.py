"""The L2RPN scores against Grid2Op's own classes."""

import shutil
import warnings
from dataclasses import replace
from types import SimpleNamespace

import grid2op
import numpy as np
import pytest
from grid2op.Agent import RecoPowerlineAgent
from grid2op.utils import ScoreL2RPN2020, ScoreL2RPN2022
from lightsim2grid import LightSimBackend

from ace_ray.config.errors import DataError
from ace_ray.evaluation.evaluate import Extras, evaluate_all
from ace_ray.evaluation.play import play
from ace_ray.evaluation.scores import COSTS, CostMeter, ScoreStatistics, check_costs, statistics_file
from ace_ray.evaluation.scores import reconnecting_env as make_reconnecting
from ace_ray.evaluation.scores import score_statistics as make_statistics
from ace_ray.grid.scenarios.environment import environment_folder, make_env
from ace_ray.grid.scenarios.scenario import Scenario

pytestmark = pytest.mark.unit

STEPS = 200  # the agent loses the second scenario just before
SEEDS = {"Scenario_august_dummy": 2, "Scenario_february_dummy": 3}


@pytest.mark.parametrize(("name", "stock"), [("score_2020", ScoreL2RPN2020), ("score_2022", ScoreL2RPN2022)])
def test_scores_are_those_of_the_stock_class(name, stock, grid_settings, scored, tmp_path):
    """The stock class plays an environment of its own, in a copy of its folder, by its own Runner."""
    folder = tmp_path / grid_settings.env
    shutil.copytree(environment_folder(grid_settings.env), folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = grid2op.make(str(folder), test=True, backend=LightSimBackend())
        theirs = stock(env, list(SEEDS.values()), [0, 0], nb_scenario=2, max_step=STEPS)
        scores, survived, _ = theirs.get(RecoPowerlineAgent(env.action_space))
    assert survived[0] == STEPS > survived[1]
    assert [statistics.score(name, costs[name]) for statistics, costs in scored] == pytest.approx(scores, abs=1e-4)
    assert scores[0] == pytest.approx(80.0) and scores[1] < 75


@pytest.fixture(scope="module")
def scored(grid_settings):
    """Statistics and costs of RecoPowerlineAgent, for both scenarios."""
    env, reconnecting = make_env(grid_settings, own_reward=True), make_reconnecting(grid_settings)
    agent, found = RecoPowerlineAgent(env.action_space), []
    for chronic, seed in SEEDS.items():
        scenario = Scenario(grid_settings.env, "shipped", chronic, seed, 0, STEPS)
        meter = CostMeter()
        play(env, agent, scenario, grid_settings, [meter])
        found.append((make_statistics(env, reconnecting, scenario, grid_settings), meter.costs))
    return found


def test_statistics_read_back_and_a_torn_file_is_named(scored, tmp_path):
    first, costs = scored[0]
    path = tmp_path / "new" / "one.npz"
    first.save(path)
    again = ScoreStatistics.load_from(path)
    assert all(again.score(name, costs[name]) == first.score(name, costs[name]) for name in COSTS)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="one.npz"):
        ScoreStatistics.load_from(path)


def test_statistics_are_made_once_a_scenario_and_never_inside_the_environment(grid_settings, tmp_path, monkeypatch):
    home = environment_folder(grid_settings.env)
    before = sorted(home.rglob("*"))
    extras = Extras(scores=tmp_path / "scores")
    short = "chronics=0;seeds=0-1;steps=10"
    (first,) = evaluate_all(["do-nothing"], short, grid_settings, processes=1, progress=False, extras=extras)
    assert sorted(home.rglob("*")) == before
    assert len(list((tmp_path / "scores").iterdir())) == 2
    assert [episode.score_2020 for episode in first.episodes] == pytest.approx([0.0, 0.0], abs=1e-3)
    monkeypatch.setattr("ace_ray.evaluation.player.score_statistics", lambda *_: pytest.fail("made again"))
    (again,) = evaluate_all(["do-nothing"], short, grid_settings, processes=1, progress=False, extras=extras)
    assert again.episodes == first.episodes


def test_each_scenario_has_a_file_of_its_own(tmp_path):
    one = Scenario("env", "shipped", "week", 3)
    others = [replace(one, env_seed=4), replace(one, start_step=5), replace(one, max_steps=9), replace(one, data="/d")]
    files = {statistics_file(tmp_path, scenario) for scenario in [one, *others]}
    assert len(files) == 5 and statistics_file(tmp_path, one) in files


def test_an_environment_without_generator_costs_has_no_scores(grid_settings):
    with pytest.raises(DataError, match="no generator costs"):
        check_costs(SimpleNamespace(redispatching_unit_commitment_availble=False), grid_settings)


def test_a_cost_of_nothing_scores_100_because_the_stock_formula_sees_no_losses(scored):
    statistics, costs = scored[1]
    assert statistics.score("score_2020", np.zeros(STEPS, dtype=np.float32)) == pytest.approx(100.0)
