import numpy as np
import pytest

from ace_ray.config.errors import ConfigError
from ace_ray.grid.domain import GridDomain
from ace_ray.replay.core import ReplayCore
from ace_ray.replay.pending import PendingQueue, RefinementResult
from tests.replay.rows import IDENTITY, chain, chain_states, pending, settings, states

pytestmark = pytest.mark.unit


def core(folder, **replay):
    return ReplayCore(folder, settings(**replay), IDENTITY, GridDomain(), clock=lambda: 100.0)


def store(replay, n=6, pushed=(), episode="e"):
    first = replay.reserve(n)
    replay.store(chain_states(first, n), chain(first, n, episode=episode), pushed)
    return first


def state(id):
    return states([id])


def result(replay, item, status="accepted", advantage=1.0, reward=1.0, salvageable=True, rounds=2):
    """A refinement whose last round won (or not), the others being ordinary rows."""
    first = replay.reserve(rounds)
    accepted = status == "accepted"
    rows, attempts = [], []
    for i in range(rounds):
        last = i == rounds - 1 and accepted
        row = {"id": first + i, "state_id": first, "next_id": -1, "terminated": True, "source": "search"}
        row |= {"parent_id": item.parent_id, "catalogue_id": 30 + i, "slot": i, "reward": reward, "round": i + 1}
        rows.append(row | {"valid": last, "advantage": advantage if last else -1.0, "refiner": "search"})
        attempts.append({"verdict": "better" if last else "worse", "catalogue_id": 30 + i, "refiner": "search"})
    return RefinementResult(
        item, status, salvageable, -1.0, attempts, [state(first)], rows, rounds - 1 if accepted else -1
    )


def test_a_resume_continues_ids_counters_rows_queue_memory_and_hard_starts(tmp_path):
    replay = core(tmp_path)
    first = store(replay)
    items = [pending(replay.reserve(1), distance=d, parent=first + 5 - d) for d in range(3)]
    replay.push(items)
    taken = replay.pop("refiner-0")
    assert [item.distance for item in taken] == [0, 1, 2]
    replay.finish("refiner-0", result(replay, taken[0]))
    replay.finish("refiner-0", RefinementResult(taken[1], "unsalvageable", False, -0.5))
    replay.edit("e", [{"transition_id": first, "delta": -0.4}])
    replay.sample(8, batches=3)
    replay.seal()
    stats = replay.stats()

    again = core(tmp_path)
    again.set_updates(3)
    assert again.report() == []
    resumed = again.stats()
    for name in ("decisions", "updates", "updates_due", "sources", "refinement", "edits", "memory", "hard_starts"):
        assert resumed[name] == stats[name], name
    assert resumed["table"] == pytest.approx(stats["table"])
    assert again.reserve(1) >= replay.reserve(1)
    # What was taken but not finished, and what was to be asked again, waits.
    waiting = again.pop("refiner-0") + again.pop("refiner-1")
    assert [(item.reason, item.distance) for item in waiting] == [("lookback", 2), ("advantage", 1)]
    assert waiting[0] == items[2] and waiting[1].priority == 0.5
    assert again.memory() == [31] and again.hard_start().scenario == items[0].snapshot.scenario
    for id in [*range(first, first + 6), *(row["id"] for row in result_rows(replay))]:
        assert again.table.get(id) == pytest.approx(replay.table.get(id), nan_ok=True), id


def result_rows(replay):
    return [row for row in replay.log.read("transition").to_pylist() if row["source"] == "search"]


def test_refined_rows_are_kept_apart_and_losing_rounds_are_ordinary_off_policy_rows(tmp_path):
    replay = core(tmp_path)
    first = store(replay)
    replay.push([pending(replay.reserve(1), parent=first + 5)])
    (item,) = replay.pop("r")
    replay.finish("r", result(replay, item))
    stats = replay.stats()
    assert stats["table"]["refined"] == 1 and stats["table"]["transitions"] == 7
    assert stats["sources"] == {"rl": 6, "search": 2} and stats["decisions"] == 6
    replay.seal()
    loser, winner = result_rows(replay)
    assert (winner["refined"], winner["valid"], winner["parent_id"]) == (True, True, first + 5)
    assert winner["w_r"] == pytest.approx(np.e, rel=1e-5) and winner["priority"] == winner["w_r"]
    assert not loser["refined"] and loser["w_r"] == 1.0
    assert stats["refinement"]["by_distance"] == {"0": {"accepted": 1, "asked": 1, "salvageable": 1}}
    assert stats["refinement"]["accepted_by_round"] == {"2": 1} and stats["refinement"]["later_rounds"] == 1


def test_nothing_sealed_is_lost_and_what_was_not_is_forgotten_consistently(tmp_path):
    replay = core(tmp_path)
    store(replay, 4, episode="a")
    replay.seal()
    store(replay, 4, episode="b")
    again = core(tmp_path)
    assert again.decisions == 4 and again.table.stats()["transitions"] == 4 and again.table.lost == 0
    assert again.reserve(1) > 1000, "ids that were given away and not sealed are never given away again"


def test_ids_in_living_hands_are_not_given_away_again_even_if_nothing_was_sealed(tmp_path):
    first = core(tmp_path)
    assert first.reserve(10) == 0
    second = core(tmp_path)  # the first one died; workers still hold its ids
    held = second.reserve(10)
    assert held > 1000
    assert core(tmp_path).reserve(1) > held + 1000


def test_a_torn_state_shard_costs_its_rows_only(tmp_path):
    replay = core(tmp_path)
    for episode in "ab":
        store(replay, 4, episode=episode)
        replay.seal()
    torn = sorted(tmp_path.glob("*-state.arrow"))[0]
    torn.write_bytes(torn.read_bytes()[:-30])
    again = core(tmp_path)
    assert any(torn.name in line for line in again.report())
    assert again.table.stats()["transitions"] == 4 and again.table.lost == 4
    assert set(again.sample(50)[0]["id"].tolist()) == {4, 5, 6, 7}


def test_a_resume_of_more_rows_than_fit_keeps_the_newest_and_the_originals(tmp_path):
    replay = core(tmp_path, capacity=64)
    first = store(replay, 6)
    replay.push([pending(replay.reserve(1), parent=first + 2)])
    (item,) = replay.pop("r")
    replay.finish("r", result(replay, item))
    for i in range(20):
        store(replay, 6, episode=str(i))
    replay.seal()
    again = core(tmp_path, capacity=64)
    for table in (replay.table, again.table):
        assert table.get(first + 2) is not None and table.get(first + 3) is None
    assert again.table.stats()["transitions"] == 64
    assert set(again.sample(5000)[0]["id"].tolist()) == set(replay.sample(5000)[0]["id"].tolist())


def test_disk_does_not_grow_with_plain_rows_for_ever(tmp_path):
    replay = core(tmp_path, capacity=64)
    for i in range(60):
        store(replay, 6, episode=str(i))
        replay.seal()
    rows = replay.log.read("transition").num_rows
    assert rows <= 3 * 64 + 12
    assert replay.decisions == 360 == core(tmp_path, capacity=64).decisions


def test_edits_out_of_bounds_are_refused_and_a_dozen_becomes_four(tmp_path):
    replay = core(tmp_path)
    first = store(replay, 6)
    wanted = [{"transition_id": first, "delta": 0.3}, {"transition_id": first + 1, "delta": 0.2}]
    wanted += [{"transition_id": first + 1, "delta": -0.4}, {"transition_id": 999, "delta": 0.4}]
    assert replay.edit("e", wanted) == 1
    assert replay.table.get(first)["reward"] == float(first)
    assert replay.edit("e", [{"transition_id": first + i, "delta": 0.4} for i in range(6)]) == 4


def test_the_critic_is_offered_finished_episodes_once_d_llm_is_full(tmp_path):
    replay = core(tmp_path)
    store(replay, 3, episode="early")
    assert replay.take_episode() == []
    for _ in range(16):
        replay.push([pending(replay.reserve(1), reason="seed")])
        (item,) = replay.pop("r")
        replay.finish("r", result(replay, item, rounds=1))
    first = store(replay, 3, episode="late")
    episode = replay.take_episode()
    assert [row["id"] for row in episode] == [first, first + 1, first + 2] and replay.take_episode() == []


def test_a_refiner_that_was_restarted_gets_what_it_had_taken(tmp_path):
    replay = core(tmp_path)
    replay.push([pending(1, distance=0), pending(2, distance=1), pending(3, chain="other", priority=0.0)])
    assert [item.id for item in replay.pop("a")] == [1, 2]
    assert [item.id for item in replay.pop("b")] == [3]
    replay.finish("a", RefinementResult(pending(1), "unsalvageable"))
    assert [item.id for item in replay.pop("a")] == [2]


def test_a_decision_over_which_refiners_die_is_given_up(tmp_path):
    replay = core(tmp_path)
    replay.push([pending(1, distance=0), pending(2, distance=1)])
    for _ in range(3):
        assert [item.id for item in replay.pop("a")] == [1, 2]
    assert [item.id for item in replay.pop("a")] == [2]
    assert replay.stats()["refinement"]["failed"] == 1


def test_a_result_for_a_replay_that_was_restarted_meanwhile_counts_once(tmp_path):
    replay = core(tmp_path)
    replay.push([pending(1)])
    replay.seal()
    (item,) = replay.pop("a")
    again = core(tmp_path)
    again.finish("a", result(again, item, rounds=1))
    assert again.pop("a") == [] and again.stats()["refinement"]["accepted"] == 1


def test_updates_are_due_by_the_learners_own_count(tmp_path):
    replay = core(tmp_path, warmup=4)
    store(replay, 20)
    assert replay.limits()["updates_due"] == 16
    replay.set_updates(10)
    assert replay.limits()["updates_due"] == 6
    replay.sample(4, batches=2)
    assert replay.limits()["updates"] == 12 and replay.limits()["updates_due"] == 4


def test_queue_serves_blackouts_first_then_lowest_advantage_then_seeds():
    queue = PendingQueue(16, advantage_share=1.0)
    queue.push([pending(1, reason="seed", chain=""), pending(2, reason="advantage", priority=0.1)])
    queue.push([pending(3, reason="advantage", priority=0.7)])
    queue.push([pending(4, distance=1, chain="old", priority=10), pending(5, distance=0, chain="old", priority=10)])
    queue.push([pending(6, distance=0, chain="new", priority=20)])
    order = [[item.id for item in queue.pop()] for _ in range(5)]
    assert order == [[6], [5, 4], [3], [2], [1]] and queue.pop() == []


def test_advantage_share_splits_requests_between_advantage_and_seeds():
    queue = PendingQueue(500, advantage_share=0.25, seed=1)
    queue.push([pending(i, reason="seed", chain="") for i in range(250)])
    queue.push([pending(1000 + i, reason="advantage", chain="") for i in range(250)])
    reasons = [queue.pop()[0].reason for _ in range(240)]
    assert 0.15 < reasons.count("advantage") / 240 < 0.35


def test_a_full_queue_drops_the_oldest_of_the_lowest_value():
    queue = PendingQueue(2, advantage_share=0.5)
    assert queue.push([pending(1, reason="seed"), pending(2, reason="advantage", priority=0.2)]) == []
    assert [item.id for item in queue.push([pending(3)])] == [1]
    assert [item.id for item in queue.push([pending(4, reason="advantage", priority=0.1)])] == [4]
    assert [item.id for item in queue.push([pending(5, priority=2.0)])] == [2]
    assert [item.id for item in queue.push([pending(6, priority=3.0)])] == [3]


def test_a_table_that_could_fill_with_pinned_rows_is_refused_before_the_start(tmp_path):
    with pytest.raises(ConfigError, match=r"replay\.capacity"):
        core(tmp_path, capacity=40)
