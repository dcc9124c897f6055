import json
from dataclasses import replace

import numpy as np
import pytest

from ace_ray.agents.greedy import Greedy
from ace_ray.config.errors import GridMismatchError
from ace_ray.domain import pivotal, salvageable
from ace_ray.grid.scenarios.episode import step_reward
from ace_ray.grid.scenarios.rebuild import rebuild
from ace_ray.grid.scenarios.scenario import episode_length
from ace_ray.refine.builder import make_comparator

pytestmark = pytest.mark.unit


def plain_loop(env, engine, settings, snapshot, ids):
    """The same by hand: rebuild, play, follow greedy; survived, steps, return."""
    obs = rebuild(env, engine.catalogue, snapshot)
    agent, action = Greedy(env.action_space, engine), engine.action(ids, obs)
    horizon = min(settings.compare.horizon, episode_length(env, snapshot.scenario) - snapshot.step)
    rewards = []
    for _ in range(horizon):
        obs, _, done, info = env.step(action)
        dead = done and bool(info["exception"])
        rewards.append(step_reward(obs, dead, settings.reward))
        if dead:
            return False, len(rewards), sum(rewards)
        action = agent.act(obs, 0.0)
    return True, len(rewards), sum(rewards)


def test_an_outcome_is_what_a_plain_step_loop_shows(comparator, env, own_engine, short_settings, greedy_decisions):
    seen = set()
    for snapshot, played in greedy_decisions[::2]:
        decision = comparator.decision(snapshot)
        for id in comparator.compared_set(decision, played)[:3]:
            outcome = comparator.outcome(snapshot, id)
            ids = own_engine.together(decision, id)
            expected = plain_loop(env, own_engine, short_settings, snapshot, ids)
            assert (outcome.survived, outcome.steps) == expected[:2]
            assert outcome.ret == pytest.approx(expected[2], abs=1e-6)
            seen.add(id)
    assert len(seen) > 2


def test_a_blackout_ends_an_outcome_and_costs_its_reward(comparator, own_engine, env, greedy_decisions):
    snapshot, _ = greedy_decisions[0]
    obs = rebuild(env, own_engine.catalogue, snapshot)
    catalogue = own_engine.catalogue
    legal = np.flatnonzero(catalogue.legal(obs) & (catalogue.kind == 2))
    deadly = next(int(i) for i in legal if obs.simulate(catalogue.action([i], obs))[2])
    outcome = comparator.outcome(snapshot, deadly)
    assert (outcome.survived, outcome.steps, outcome.ret) == (False, 1, -1.0)
    survivor = comparator.outcome(snapshot, 0)
    assert comparator.verdict(survivor, outcome) == "better"
    outcomes = {deadly: outcome, 0: survivor}
    assert survivor.survived and salvageable(outcomes, deadly) and pivotal(outcomes)


def test_the_end_of_the_scenario_counts_as_survived(comparator, greedy_decisions):
    snapshot, played = greedy_decisions[0]
    capped = replace(snapshot, scenario=replace(snapshot.scenario, max_steps=snapshot.step + 2))
    outcome = comparator.outcome(capped, played)
    assert outcome.survived and outcome.steps == 2


def test_the_compared_set_is_nothing_played_and_the_first_by_score(comparator, greedy_decisions):
    snapshot, _ = greedy_decisions[0]
    decision = comparator.decision(snapshot)
    order = np.argsort(-np.where(decision.mask & (decision.ids > 0), decision.score, -np.inf), kind="stable")
    first = [int(i) for i in decision.ids[order][:3]]
    played = int(decision.ids[order][5])
    assert comparator.compared_set(decision, played) == (0, played, *first)
    assert comparator.compared_set(decision, first[1]) == (0, first[1], first[0], first[2])
    assert comparator.compared_set(decision, 0) == (0, *first)


def test_an_outcome_is_replayed_once(comparator, greedy_decisions):
    snapshot, played = greedy_decisions[0]
    first = comparator.outcomes(snapshot, [0, played])
    replays = comparator.replays
    assert comparator.outcomes(snapshot, [played, 0]) == first == comparator.known(snapshot)
    assert comparator.replays == replays == len(first)


def test_the_outcomes_of_a_snapshot_long_unasked_are_forgotten_and_found_again(
    comparator, greedy_decisions, monkeypatch
):
    monkeypatch.setattr("ace_ray.refine.comparator.OUTCOMES_KEPT", 2)
    (first, played), (second, _), (third, _) = greedy_decisions[:3]
    before = comparator.outcomes(first, [0, played])
    comparator.outcome(second, 0)
    comparator.outcome(first, 0)  # asked again: now the second is the oldest
    comparator.outcome(third, 0)
    assert comparator.known(first) == before and comparator.known(third)
    assert not comparator.known(second) and not comparator.known(second), "looking does not bring one back"
    assert len({row["snapshot"] for row in comparator.rows()}) == 2
    replays = comparator.replays
    comparator.outcome(second, 0)
    assert comparator.replays == replays + 1 and not comparator.known(first)
    assert comparator.outcomes(first, [0, played]) == before


def test_shared_futures_change_no_outcome(own_env, own_engine, short_settings, greedy_decisions):
    """Decisions walked back from the last one, with and without trajectories that go on together."""
    found, shared = [], []
    for share in (True, False):
        comparator = make_comparator(own_env, own_engine)
        if not share:
            comparator._trajectories.future = lambda step, state, until: None
        for snapshot, played in reversed(greedy_decisions):
            decision = comparator.decision(snapshot)
            found.append(comparator.outcomes(snapshot, comparator.compared_set(decision, played)))
        shared.append(comparator.shared_steps)
    half = len(found) // 2
    for a, b in zip(found[:half], found[half:], strict=True):
        assert a.keys() == b.keys()
        for id, outcome in a.items():
            assert (outcome.survived, outcome.steps) == (b[id].survived, b[id].steps)
            assert outcome.ret == pytest.approx(b[id].ret, abs=1e-5)
    assert shared[0] > 0 and shared[1] == 0


def test_held_snapshots_of_one_log_cost_one_replay_and_equal_a_rebuild(comparator, env, own_engine, greedy_decisions):
    snapshots = [snapshot for snapshot, _ in greedy_decisions]
    comparator.hold(snapshots)
    rebuilder = comparator.simulator.rebuilder
    assert rebuilder.replayed <= max(snapshot.step for snapshot in snapshots)
    for snapshot in reversed(snapshots):
        expected = rebuild(env, own_engine.catalogue, snapshot)
        copied, obs = rebuilder.copy(snapshot)
        nothing = env.action_space()
        assert np.array_equal(expected.to_vect(), obs.to_vect())
        for _ in range(20):
            (expected, _, done, _), (obs, _, ended, _) = env.step(nothing), copied.step(nothing)
            assert done == ended and np.array_equal(expected.rho, obs.rho)
            if done:
                break
        copied.close()
    assert rebuilder.replayed <= max(snapshot.step for snapshot in snapshots)


def test_a_log_that_ends_the_episode_is_no_snapshot(comparator, greedy_decisions, own_engine, env):
    snapshot, _ = greedy_decisions[0]
    obs = rebuild(env, own_engine.catalogue, snapshot)
    catalogue = own_engine.catalogue
    legal = np.flatnonzero(catalogue.legal(obs) & (catalogue.kind == 2))
    deadly = next(int(i) for i in legal if obs.simulate(catalogue.action([i], obs))[2])
    beyond = replace(snapshot, log=(*snapshot.log, (snapshot.step, (deadly,))), step=snapshot.step + 5)
    with pytest.raises(GridMismatchError, match="before its own step"):
        comparator.outcome(beyond, 0)
    assert comparator.outcome(snapshot, 0).steps > 0  # and the comparator goes on


def test_cached_outcomes_travel_as_json_and_only_to_the_same_settings(
    comparator, own_env, own_engine, short_settings, greedy_decisions
):
    snapshot, played = greedy_decisions[1]
    outcomes = comparator.outcomes(snapshot, [0, played])
    rows = json.loads(json.dumps(comparator.rows()))
    other = make_comparator(own_env, own_engine)
    other.load_rows(rows)
    assert other.outcomes(snapshot, [0, played]) == outcomes and other.replays == 0
    longer = short_settings.compare.model_copy(update={"horizon": 13})
    stranger = make_comparator(own_env, own_engine, short_settings.model_copy(update={"compare": longer}))
    with pytest.raises(GridMismatchError, match="cached outcomes"):
        stranger.load_rows(rows)
