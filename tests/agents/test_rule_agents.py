from dataclasses import replace

import numpy as np
import pytest

from ace_ray.agents.base import RuleAgent
from ace_ray.agents.greedy import DoNothing, Greedy, GreedyChecked, Reconnect, greedy_slot, recheck
from ace_ray.grid.scenarios.rebuild import rebuild
from ace_ray.grid.scenarios.scenario import reset_to

pytestmark = pytest.mark.unit


def episode(env, agent, scenario, steps):
    """Plays and returns `[(observation, ids played, decided)]`."""
    obs, done, seen = reset_to(env, scenario), False, []
    agent.reset(obs)
    while not done and len(seen) < steps:
        before = agent.decisions
        action = agent.act(obs, 0.0, False)
        seen.append((obs, agent.last_ids, agent.decisions > before))
        obs, _, done, info = env.step(action)
        assert not info["is_illegal"] and not info["is_ambiguous"]
    return seen


@pytest.fixture(scope="module")
def greedy_episode(env, own_engine, scenario):
    agent = Greedy(env.action_space, own_engine)
    return agent, episode(env, agent, scenario, 300)


def test_decides_exactly_in_critical_states_and_follows_the_rules_elsewhere(greedy_episode, own_engine):
    agent, seen = greedy_episode
    critical = [own_engine.critical(obs) is not None for obs, _, _ in seen]
    assert [decided for _, _, decided in seen] == critical
    assert 0 < sum(critical) < len(seen)
    assert agent.decisions == sum(critical) == len(agent.decision_seconds)
    calm = [(obs, ids) for obs, ids, decided in seen if not decided]
    assert all(tuple(own_engine.rules.calm_action(obs)) == ids for obs, ids in calm[:40])


def test_greedy_is_the_argmax_of_the_slot_score_and_nothing_else(greedy_episode, own_engine):
    _, seen = greedy_episode
    for obs, ids, _ in [row for row in seen if row[2]][:4]:
        decision = own_engine.decide(obs)
        assert ids == own_engine.ids_for(decision, int(np.argmax(decision.score)))


def test_greedy_never_plays_a_masked_slot_and_prefers_the_first_of_equals(own_engine, greedy_decisions, env):
    snapshot, _ = greedy_decisions[0]
    decision = own_engine.decide(rebuild(env, own_engine.catalogue, snapshot))
    mask = decision.mask.copy()
    mask[np.argmax(decision.score)] = False
    assert mask[greedy_slot(replace(decision, mask=mask))]
    assert greedy_slot(replace(decision, score=np.zeros_like(decision.score))) == 0


def test_the_same_episode_twice_gives_the_same_actions(env, own_engine, scenario, greedy_episode):
    again = episode(env, Greedy(env.action_space, own_engine), scenario, 60)
    assert [ids for _, ids, _ in again] == [ids for _, ids, _ in greedy_episode[1][:60]]


def test_do_nothing_does_nothing(env, own_engine, scenario):
    agent = DoNothing(env.action_space, own_engine)
    assert all(ids == () for _, ids, _ in episode(env, agent, scenario, 60))
    assert not agent.act(reset_to(env, scenario), 0.0).can_affect_something() and agent.decisions == 0


def test_reconnect_brings_an_attacked_line_back_and_does_nothing_else(env, own_engine, scenario):
    agent = Reconnect(env.action_space, own_engine)
    seen = episode(env, agent, scenario, 250)
    played = {i for _, ids, _ in seen for i in ids}
    lost = [not obs.line_status.all() for obs, _, _ in seen]
    assert any(lost) and played and {int(own_engine.catalogue.kind[i]) for i in played} == {1}
    assert all(not ids or gone for (_, ids, _), gone in zip(seen, lost, strict=True))


class _Seen:
    """Counts simulations of an observation and answers them from a table of max rho by action number."""

    def __init__(self, rho: dict[int, float], dead: set[int]) -> None:
        self.rho, self.dead, self.calls = rho, dead, []

    def simulate(self, slot):
        self.calls.append(slot)
        simulated = type("Simulated", (), {"rho": np.array([self.rho[slot]])})
        return simulated, 0.0, slot in self.dead, {"exception": [ValueError()] if slot in self.dead else []}


@pytest.fixture()
def slots(own_engine, greedy_decisions, env, monkeypatch):
    """A decision whose actions are slot numbers, so that a test can say what `simulate` shows of each."""
    snapshot, _ = greedy_decisions[0]
    decision = own_engine.decide(rebuild(env, own_engine.catalogue, snapshot))
    monkeypatch.setattr(own_engine, "ids_for", lambda decision, slot: (slot,))
    monkeypatch.setattr(own_engine, "action", lambda ids, obs: ids[0])
    return replace(decision, mask=np.arange(64) < 40, score=-np.arange(64, dtype=np.float32))


def test_check_takes_the_lowest_simulated_rho_of_the_best_20_when_overloaded(own_engine, slots):
    obs = _Seen({i: 1.2 - 0.01 * i for i in range(64)}, dead={19, 18})
    chosen = recheck(own_engine, replace(slots, kind="overloaded"), obs, slots.score)
    assert sorted(obs.calls) == list(range(20)) and chosen == 17


def test_check_only_strikes_out_overloads_when_insecure(own_engine, slots):
    obs = _Seen({i: 1.1 if i < 3 else 0.9 - 0.01 * i for i in range(64)}, dead={3})
    assert recheck(own_engine, replace(slots, kind="insecure"), obs, slots.score) == 4


def test_checked_greedy_plays_only_legal_actions(env, own_engine, scenario):
    agent = GreedyChecked(env.action_space, own_engine)
    episode(env, agent, scenario, 60)
    assert isinstance(agent, RuleAgent) and agent.decisions > 0
