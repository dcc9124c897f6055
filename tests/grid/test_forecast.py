"""The simulation without copies says what Grid2Op's own says, and what was saved changes no episode."""

import numpy as np
import pytest
from grid2op.Exceptions import NoForecastAvailable

from ace_ray.agents.greedy import GreedyChecked
from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.forecast import Forecast, simulate
from ace_ray.grid.scenarios.environment import make_env, make_stock_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to

pytestmark = pytest.mark.unit


def test_it_says_what_simulate_says_bit_for_bit(env, catalogue, scenario, episode_observations):
    """Moves, switches, illegal actions and those that end in the dark; in any order, on any observation."""
    rng = np.random.default_rng(0)
    refused = dark = 0
    for obs in episode_observations[::12]:
        substations = rng.choice(np.flatnonzero(np.diff(catalogue.offsets)), 10)
        for action_id in rng.integers(catalogue.offsets[substations], catalogue.offsets[substations + 1]):
            action = catalogue._new_action({"set_bus": catalogue.bus_rows([action_id])[0].astype(int)})
            theirs, _, done, info = obs.simulate(action)
            expected = theirs.to_vect()
            ours = simulate(obs, action)
            assert ours.done == done and [str(e) for e in ours.exceptions] == [str(e) for e in info["exception"]]
            assert np.array_equal(ours.obs.to_vect(), expected, equal_nan=True)
            refused, dark = refused + bool(ours.exceptions and not done), dark + done
    assert refused and dark


def test_without_a_forecast_it_says_so_as_grid2op_does(env, scenario):
    obs = reset_to(env, scenario).copy()
    obs._forecasted_inj = []
    with pytest.raises(NoForecastAvailable):
        simulate(obs, env.action_space())


def episode(env, agent, scenario, steps):
    """Actions, and every number of every observation."""
    obs, seen = reset_to(env, scenario), []
    agent.reset(obs)
    for _ in range(steps):
        action = agent.act(obs, 0.0)
        obs, _, done, _ = env.step(action)
        seen.append((agent.last_ids, action.to_vect().tobytes(), obs.to_vect().tobytes()))
        if done:
            break
    return seen


def test_what_is_saved_changes_no_episode(monkeypatch):
    """Cached chronics, one do-nothing action and no copies, against Grid2Op's own reader, actions and `simulate`."""
    settings = GridSettings()
    scenario = Scenario(settings.env, "packaged", "jun_1005", env_seed=3)
    ours, stock = make_env(settings), make_stock_env(settings, [scenario.chronic])
    quick = episode(ours, GreedyChecked(ours.action_space, DecisionEngine(ours, settings)), scenario, 120)

    def copied(obs, action):
        simulated, _, done, info = obs.simulate(action)
        return Forecast(simulated, done, info["exception"])

    monkeypatch.setattr("ace_ray.grid.rules.simulate", copied)
    monkeypatch.setattr("ace_ray.agents.greedy.simulate", copied)
    engine = DecisionEngine(stock, settings)
    plain = GreedyChecked(stock.action_space, engine)
    make_action = engine.catalogue.action
    engine.catalogue.action = lambda ids, obs: make_action(ids, obs).copy()
    assert episode(stock, plain, scenario, 120) == quick
    assert sum(bool(ids) for ids, _, _ in quick) >= 3
    ours.close()
    stock.close()
