"""A rollout worker against a plain loop over the decision environment."""

import itertools

import numpy as np
import pytest

from ace_ray.config.run import RunSettings
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.domain import GridDomain
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.replay import records
from ace_ray.replay.episodes import snapshots_of
from ace_ray.rollout.worker import RolloutWorker
from ace_ray.schema import OBSERVED, States, StateShape

pytestmark = pytest.mark.unit

DEADLY = Scenario("l2rpn_neurips_2020_track1", "shipped", "Scenario_february_dummy", 0, 0, 150)


def random_slots(seed=0):
    """A policy that plays any legal slot: it goes black soon."""
    rng = np.random.default_rng(seed)
    return lambda decision: int(rng.choice(np.flatnonzero(decision.mask)))


def make(env, engine, grid_settings, scenario, choose, hard_start=lambda: None, **sections):
    counter = itertools.count(0, 256)
    settings = RunSettings(grid=grid_settings, **{"refine": {"refiner": "search", "lookback": 3}} | sections)
    clock = itertools.count(1000)
    worker = RolloutWorker(
        DecisionEnv(env, engine, grid_settings),
        itertools.repeat(scenario),
        choose,
        lambda n: next(counter),
        hard_start,
        settings,
        clock=lambda: float(next(clock)),
    )
    return worker


def collect_episode(worker, decisions=4):
    """Fragments until the first episode ends, put together: states by id, transitions, pending, episodes."""
    states, transitions, pending = {}, [], []
    for _ in range(100):
        fragment = worker.collect(decisions, 1e9)
        for i, id in enumerate(fragment.states.id.tolist()):
            assert id not in states, "a state is stored once"
            states[id] = States(*(values[i : i + 1] for values in vars(fragment.states).values()))
        known = set(states)
        for row in fragment.transitions:  # nothing may refer to what was not sent yet
            assert row["state_id"] in known and (row["next_id"] == -1 or row["next_id"] in known)
        transitions += fragment.transitions
        pending += fragment.pending
        if fragment.episodes:
            first = [row for row in transitions if row["episode"] == transitions[0]["episode"]]
            return states, first, pending, fragment.episodes[0]
    raise AssertionError("no episode ended")


def blackouts(env, engine, grid_settings, **refine):
    """Episodes of random policies that end in a blackout, as `collect_episode` gives them; the policy's seed first."""
    for seed in range(40):
        options = {"refine": {"refiner": "search", **refine}}
        episode = collect_episode(make(env, engine, grid_settings, DEADLY, random_slots(seed), **options))
        if episode[3]["blackout"] and len(episode[1]) >= 6:
            yield seed, *episode


@pytest.fixture(scope="module")
def blackout(env, engine, grid_settings):
    """One such episode."""
    return next(blackouts(env, engine, grid_settings, lookback=3))


def test_rows_are_what_the_decision_environment_did(env, engine, grid_settings, blackout):
    seed, states, rows, _, episode = blackout
    plain = DecisionEnv(env, engine, grid_settings)
    obs, info = plain.reset(options={"scenario": DEADLY})
    total, choose = 0.0, random_slots(seed)
    for i, row in enumerate(rows):
        decision, stored = plain.decision, states[row["state_id"]]
        for name in OBSERVED:
            np.testing.assert_array_equal(getattr(stored, name)[0], obs[name])
        np.testing.assert_array_equal(stored.ids[0], decision.ids)
        assert row["step"] == info["step"] and row["slot"] == choose(decision)
        assert row["catalogue_id"] == decision.ids[row["slot"]] and row["id"] == row["state_id"]
        obs, reward, terminated, truncated, info = plain.step(row["slot"])
        total += sum(info["rewards"])
        assert (row["reward"], row["discount"], row["steps"]) == (reward, info["discount"], info["steps"])
        assert (row["terminated"], row["truncated"]) == (terminated, truncated)
        assert row["next_id"] == (rows[i + 1]["id"] if i + 1 < len(rows) else -1)
    assert terminated and episode["blackout"] and episode["steps"] == info["step"]
    assert episode["survival"] == info["survival"] and episode["reward"] == pytest.approx(total)
    assert records.plain_batch("transition", rows, StateShape.of(engine.spec)).num_rows == len(rows)


def test_a_blackout_leaves_its_last_decisions_to_think_over_and_the_log_leads_back_to_them(blackout):
    _, _, rows, pending, _ = blackout
    mine = [item for item in pending if item.chain == rows[0]["episode"]]
    assert [item.distance for item in mine] == [0, 1, 2] and {item.reason for item in mine} == {"lookback"}
    assert len({item.priority for item in mine}) == 1
    for item, row, snapshot in zip(mine, rows[::-1], snapshots_of(rows, 3, GridDomain()), strict=False):
        assert item.parent_id == row["id"] and item.played == row["catalogue_id"] and item.reward == row["reward"]
        assert item.snapshot.key() == snapshot.key()


def test_the_end_of_a_scenario_is_no_blackout_and_its_last_state_is_kept_for_the_bootstrap(env, engine, grid_settings):
    quiet = Scenario(DEADLY.env, "shipped", "Scenario_august_dummy", 3, 0, 90)
    states, rows, pending, episode = collect_episode(make(env, engine, grid_settings, quiet, lambda d: 0))
    last = rows[-1]
    assert last["truncated"] and not last["terminated"] and not pending and not episode["blackout"]
    final = states[last["next_id"]]
    assert np.abs(final.slots).sum() > 0 and final.mask[0, 0] and episode["survival"] == 1.0
    assert states[rows[-1]["state_id"]].context.tolist() != final.context.tolist()


def test_hard_starts_begin_at_the_given_decision(env, engine, grid_settings, blackout):
    _, _, rows, _, _ = blackout
    start = snapshots_of(rows, 3, GridDomain())[-1]
    options = {"rollout": {"hard_starts": 1.0}}
    worker = make(env, engine, grid_settings, DEADLY, random_slots(), lambda: start, **options)
    _, again, _, episode = collect_episode(worker)
    assert again[0]["step"] == start.step == rows[-3]["step"] and episode["hard_start"]
    assert snapshots_of(again, len(again), GridDomain())[-1].key() == start.key()


def test_the_papers_trigger_asks_about_low_rewards_only(env, engine, grid_settings):
    options = {"refine": {"refiner": "search", "trigger": "paper", "r_low": 0.15}}
    _, rows, pending, _ = collect_episode(make(env, engine, grid_settings, DEADLY, random_slots(3), **options))
    low = [row["id"] for row in rows if row["reward"] < 0.15]
    mine = [item for item in pending if item.chain == rows[0]["episode"]]
    assert [item.parent_id for item in mine] == low and 0 < len(low) < len(rows)
    assert {item.reason for item in mine} == {"paper"}
    assert mine[-1].distance == (0 if rows[-1]["terminated"] and mine[-1].parent_id == rows[-1]["id"] else -1)


def test_nothing_is_asked_when_nobody_refines(env, engine, grid_settings):
    assert next(blackouts(env, engine, grid_settings, refiner="off"))[3] == []


def test_an_episode_that_cannot_be_played_is_given_up_with_its_chronics_name(env, engine, grid_settings):
    trouble = iter([True, False, *[True] * 5])

    def choose(decision):
        if next(trouble):
            raise RuntimeError("the power flow broke")
        return 0

    worker = make(env, engine, grid_settings, DEADLY, choose)
    fragment = worker.collect(1, 1e9)
    assert fragment.given_up == [(DEADLY.chronic, "RuntimeError: the power flow broke")]
    assert len(fragment.transitions) == 1
    again = worker.collect(1, 1e9)
    assert len(again.given_up) == 5 and not again.transitions  # the caller learns of it instead of waiting for ever


@pytest.mark.parametrize("method", ["reset", "step"])
def test_whatever_the_simulator_raises_gives_the_episode_up(env, engine, grid_settings, monkeypatch, method):
    real, broken = getattr(DecisionEnv, method), iter([True, False])

    def play(self, *args, **options):
        if next(broken, False):
            raise IndexError("index 5 is out of bounds")
        return real(self, *args, **options)

    monkeypatch.setattr(DecisionEnv, method, play)
    fragment = make(env, engine, grid_settings, DEADLY, lambda decision: 0).collect(1, 1e9)
    ((chronic, error),) = fragment.given_up
    assert chronic == DEADLY.chronic and "IndexError: index 5 is out of bounds" in error
    assert len(fragment.transitions) == 1
