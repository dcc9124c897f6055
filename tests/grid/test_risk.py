"""The danger of an action against Grid2Op's own simulation of the same outages."""

import numpy as np
import pytest

from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.physics.catalogue import LINE
from ace_ray.grid.risk import HALF_STRESS, LEAD, MOST, NO_SOLUTION, OVERLOAD, SOFT_RHO, Risk
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import reset_to
from ace_ray.grid.scenarios.scenario_sets import parse

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def state():
    settings = GridSettings()
    env = make_env(settings)
    obs = reset_to(env, parse("validation:1", settings).scenarios[0])
    engine = DecisionEngine(env, settings)
    yield engine, obs, engine.decide(obs)
    env.close()  # kept until here: the observation simulates on a part of it


def _by_simulation(engine, obs, action_id: int) -> float:
    """The definition, by `simulate`: the action, and the action with each attackable line cut at the same step."""
    contingencies = engine.opponent.contingencies(obs, LEAD)
    after, _, done, _ = obs.simulate(engine.action((action_id,), obs).copy())
    assert not done
    total = OVERLOAD * max(0.0, float(after.rho.max()) - engine.settings.critical.rho_overloaded)
    for line, weight in zip(contingencies.lines, contingencies.weights, strict=True):
        action = engine.action((action_id,), obs).copy()
        action.line_or_set_bus = action.line_ex_set_bus = [(int(line), -1)]
        lost, _, done, _ = obs.simulate(action)
        stress = float(np.maximum(lost.rho - SOFT_RHO, 0.0).sum())
        total += weight * (NO_SOLUTION if done else stress / (stress + HALF_STRESS))
    return min(total, MOST)


def test_danger_is_what_simulating_each_outage_gives(state) -> None:
    engine, obs, decision = state
    parameters = obs._obs_env.parameters
    parameters.NO_OVERFLOW_DISCONNECTION = True
    parameters.MAX_LINE_STATUS_CHANGED = 99
    obs._obs_env.change_parameters(parameters)
    ids = [int(i) for i in decision.ids[decision.mask] if engine.catalogue.kind[i] != LINE][:10]
    found = Risk(engine).of(obs, ids)
    expected = [_by_simulation(engine, obs, i) for i in ids]
    assert max(expected) > min(expected)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_danger_does_not_depend_on_what_else_is_asked(state) -> None:
    engine, obs, decision = state
    ids = [int(i) for i in decision.ids[decision.mask]][:12]
    danger = Risk(engine)
    together = danger.of(obs, ids)
    np.testing.assert_allclose(together, [danger.of(obs, [i])[0] for i in ids], atol=1e-6)
    assert ((together >= 0) & (together <= MOST)).all()


def test_where_no_opponent_attacks_every_credible_outage_counts_alike() -> None:
    settings = GridSettings(env="l2rpn_case14_sandbox", data="shipped")
    env = make_env(settings)
    obs = reset_to(env, parse("validation:1", settings).scenarios[0])
    engine = DecisionEngine(env, settings)
    assert not engine.opponent.lines.size
    danger = Risk(engine)
    contingencies = danger._contingencies(obs)
    np.testing.assert_allclose(contingencies.weights, 1 / engine.security.lines.size)
    assert danger.of(obs, [0])[0] > 0
