"""The rules reconnect and revert when that is safe, and cost nothing when there is nothing to do."""

import numpy as np
import pytest

from ace_ray.config.grid import RuleSettings
from ace_ray.grid.rules import Rules
from ace_ray.grid.scenarios.scenario import reset_to

pytestmark = pytest.mark.unit


class Watched:
    """An observation that counts its simulations."""

    def __init__(self, obs):
        self._obs, self.simulated = obs, 0

    def __getattr__(self, name):
        if name.startswith("_"):  # what `forecast.simulate` would go round `simulate` with
            raise AttributeError(name)
        return getattr(self._obs, name)

    def simulate(self, action):
        self.simulated += 1
        return self._obs.simulate(action)


@pytest.fixture
def rules(catalogue):
    return Rules(catalogue, RuleSettings())


@pytest.fixture(scope="module")
def line(env, catalogue, scenario) -> int:
    """A line that can be spared for a few steps."""
    obs = reset_to(env, scenario)
    for candidate in range(env.n_line):
        simulated, _, done, _ = obs.simulate(catalogue.action((catalogue.find_line(candidate, -1),), obs))
        if not done and simulated.rho.max() < 0.85:
            return candidate
    raise AssertionError("no line can be spared")


def without(env, catalogue, scenario, line, steps):
    """The observation `steps` steps after a line was taken out."""
    obs = reset_to(env, scenario)
    obs, _, done, _ = env.step(catalogue.action((catalogue.find_line(line, -1),), obs))
    for _ in range(steps):
        obs, _, done, _ = env.step(env.action_space())
    assert not done and not obs.line_status[line]
    return obs


def split(env, catalogue, scenario, substation=28, steps=3):
    """The observation `steps` steps after a calm split of a substation."""
    obs = reset_to(env, scenario)
    for action_id in range(catalogue.offsets[substation] + 1, catalogue.offsets[substation + 1]):
        simulated, _, done, _ = obs.simulate(catalogue.action((action_id,), obs))
        if not done and simulated.rho.max() < 0.85:
            break
    obs, *_ = env.step(catalogue.action((action_id,), obs))
    for _ in range(steps):
        obs, _, done, _ = env.step(env.action_space())
    assert not done and (obs.topo_vect == 2).any()
    return obs


def test_a_calm_reference_topology_is_left_alone_without_a_simulation(env, rules, scenario):
    obs = Watched(reset_to(env, scenario))
    assert rules.calm_action(obs) == () and obs.simulated == 0


def test_a_line_is_reconnected_once_its_cooldown_is_over(env, catalogue, rules, scenario, line):
    waiting = Watched(without(env, catalogue, scenario, line, steps=1))
    assert waiting.time_before_cooldown_line[line] > 0
    assert rules.calm_action(waiting) == () and waiting.simulated == 0
    obs = without(env, catalogue, scenario, line, steps=3)
    assert obs.time_before_cooldown_line[line] == 0
    (chosen,) = rules.calm_action(obs)
    assert chosen == catalogue.find_line(line, 1, 1, 1)
    obs, _, _, info = env.step(catalogue.action((chosen,), obs))
    assert obs.line_status[line] and not info["is_illegal"]


def test_a_line_stays_out_where_reconnecting_would_overload_the_grid(env, catalogue, rules, scenario, line):
    obs = Watched(without(env, catalogue, scenario, line, steps=3))
    honest = obs._obs.simulate

    def overloads(action):
        simulated, reward, done, info = honest(action)
        if action.set_bus.any():
            simulated.rho[:] = 1.2
        return simulated, reward, done, info

    obs.simulate = overloads
    assert rules.reconnection(obs) is None
    obs.simulate = lambda action: (*honest(action)[:2], True, {"exception": []})
    assert rules.reconnection(obs) is None, "it would even black out"


def test_a_split_is_reverted_one_substation_a_step_while_the_grid_is_calm(env, catalogue, rules, scenario):
    obs = split(env, catalogue, scenario)
    (chosen,) = rules.calm_action(obs)
    assert chosen == catalogue.reference(28)
    obs, _, _, info = env.step(catalogue.action((chosen,), obs))
    assert not info["is_illegal"] and (obs.topo_vect == 1).all()


def test_a_split_stays_while_its_substation_rests_or_the_grid_is_loaded_or_security_forbids(env, catalogue, scenario):
    resting = Watched(split(env, catalogue, scenario, steps=1))
    assert Rules(catalogue, RuleSettings(revert_every=1)).revert(resting) is None and resting.simulated == 0
    obs = split(env, catalogue, scenario)
    high = float(obs.rho.max())
    assert Rules(catalogue, RuleSettings(rho_revert=high - 0.01)).revert(obs) is None
    asked = []

    def insecure(simulated):
        asked.append((simulated.topo_vect == 1).all())
        return False

    assert Rules(catalogue, RuleSettings(), secure=insecure).revert(obs) is None
    assert asked == [np.True_], "security is asked of the state after the revert"
    assert Rules(catalogue, RuleSettings(), secure=lambda simulated: True).revert(obs) == catalogue.reference(28)


def test_each_rule_can_be_switched_off(env, catalogue, scenario, line):
    out = without(env, catalogue, scenario, line, steps=3)
    assert Rules(catalogue, RuleSettings(reconnect=False)).calm_action(out) == ()
    moved = split(env, catalogue, scenario)
    assert Rules(catalogue, RuleSettings(revert=False)).calm_action(moved) == ()


def test_a_revert_is_tried_every_few_steps_only(env, catalogue, scenario):
    obs = Watched(split(env, catalogue, scenario, steps=4))
    assert obs.current_step % 4 and Rules(catalogue, RuleSettings(revert_every=4)).revert(obs) is None
    assert obs.simulated == 0
    assert Rules(catalogue, RuleSettings(revert_every=1)).revert(obs) == catalogue.reference(28)
