import numpy as np
import pytest

from ace_ray.agents import registry
from ace_ray.agents.expert.expert import Expert
from ace_ray.grid.forecast import foretold
from ace_ray.grid.scenarios.scenario import reset_to

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def expert(env, own_engine):
    return Expert(env.action_space, own_engine)


@pytest.fixture(scope="module")
def played(env, expert, scenario):
    """`[(max rho, ids, decided, risk before, risk after)]` of 130 steps, attack included."""
    obs, done, seen = reset_to(env, scenario), False, []
    expert.reset(obs)
    while not done and len(seen) < 130:
        lookahead, before = expert._lookahead, expert.decisions
        action = expert.act(obs, 0.0, False)
        node = lookahead.load(obs, expert.engine.opponent.contingencies(obs, 0), foretold(obs))
        measured = lookahead.measure(node, [0, *expert.last_ids])
        risks = None if measured is None else measured.risk
        seen.append((obs.copy(), expert.last_ids, expert.decisions > before, risks))
        obs, _, done, info = env.step(action)
        assert not info["is_illegal"] and not info["is_ambiguous"]
    assert not done
    return seen


def test_in_a_calm_grid_it_plays_moves_that_lower_the_risk_of_the_next_attack(played, expert):
    limit = expert.settings.rho_overloaded
    preventive = [(ids, risks) for obs, ids, decided, risks in played if decided and ids and obs.rho.max() < limit]
    assert preventive
    assert np.mean([risks[-1] - risks[0] for _, risks in preventive]) < -expert.settings.gain
    assert all(risks[-1] <= risks[0] + 0.02 for _, risks in preventive)


def test_it_does_not_prevent_while_no_attack_can_come(played, expert, env, scenario):
    trip = expert.engine.game.tripped_rest
    attacked = next(i for i, row in enumerate(played) if row[0].time_before_cooldown_line.max() > trip)
    after = played[attacked : attacked + 20]
    assert any(obs.rho.max() < expert.settings.rho_overloaded for obs, _, _, _ in after)
    assert all(not decided for obs, _, decided, _ in after if obs.rho.max() < expert.settings.rho_overloaded)


def test_the_same_episode_twice_gives_the_same_actions(env, expert, scenario, played):
    obs = reset_to(env, scenario)
    expert.reset(obs)
    for _, ids, _, _ in played[:60]:
        action = expert.act(obs, 0.0, False)
        assert expert.last_ids == ids
        obs, _, _, _ = env.step(action)


def test_every_decision_is_timed_and_a_new_episode_forgets_the_old(expert, played, env, scenario):
    expert.reset(reset_to(env, scenario))
    assert expert.decisions == 0 and expert.last_ids == ()
    assert len(expert.decision_seconds) >= sum(decided for _, _, decided, _ in played)


def test_it_is_one_of_the_agents_that_evaluation_knows(env, grid_settings):
    env.reset()
    assert isinstance(registry.make("expert", env, grid_settings), Expert)
