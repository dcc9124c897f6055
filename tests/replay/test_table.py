import numpy as np
import pytest

from ace_ray.config.learning import MixingSettings, ReplaySettings
from ace_ray.replay.records import table_columns
from ace_ray.replay.table import ReplayTable
from ace_ray.schema import States
from tests.replay.rows import SHAPE, chain, chain_states, states

pytestmark = pytest.mark.unit


def table(capacity=32, **mixing):
    return ReplayTable(SHAPE, ReplaySettings(capacity=capacity, refined_capacity=16), MixingSettings(**mixing))


def append(replay, first, n, ends=True, **columns):
    return replay.append(chain_states(first, n, ends), table_columns(chain(first, n, ends, **columns)))


def refine(replay, id, parent, advantage, valid=True, **columns):
    row = {"id": id, "state_id": id, "reward": 1.0, "parent_id": parent, "valid": valid, "advantage": advantage}
    row |= {"source": "llm", "terminated": True, "next_id": -1, **columns}
    return replay.add_refinement(states([id]), table_columns([row]))


def test_a_transition_comes_back_with_its_state_and_the_next_decisions_state():
    replay = table()
    assert append(replay, 0, 5).tolist() == [0, 1, 2, 3, 4]
    batch = replay.sample(200)
    for i, id in enumerate(batch["id"].tolist()):
        assert (batch["context"][i] == id).all() and (batch["slots"][i] == id).all()
        assert batch["reward"][i] == id and batch["slot"][i] == id % 4 and batch["weight"][i] == 1.0
        assert batch["terminated"][i] == (id == 4)
        expected = 0 if id == 4 else id + 1
        assert (batch["next_context"][i] == expected).all() and (batch["next_score"][i] == -expected).all()
        assert batch["next_mask"][i].tolist() == ([True, False, False, False] if id == 4 else [True] * 4)
    assert set(batch["id"].tolist()) == set(range(5))
    assert batch["slots"].dtype == np.float32 and batch["slot"].dtype == np.int64


def test_each_state_is_stored_once_and_leaves_with_its_last_transition():
    replay = table(capacity=32)
    append(replay, 0, 20, ends=False)
    assert len(replay.states) == 21
    replay.append(states([21]), table_columns([{"id": 20, "state_id": 20, "next_id": 21}]))
    assert len(replay.states) == 22
    append(replay, 100, 32)
    assert len(replay.states) == 32 and replay.get(20) is None and replay.states.row(20) is None


def test_a_full_table_forgets_its_oldest_rows_and_keeps_originals_of_refined_ones():
    replay = table(capacity=32)
    append(replay, 0, 32)
    assert refine(replay, 1000, parent=3, advantage=1.0)
    append(replay, 100, 32)
    assert replay.get(3) is not None and replay.get(4) is None and replay.get(100) is None
    batch = replay.sample(2000, beta=0.0)
    assert set(batch["id"].tolist()) == {3, *range(101, 132)}
    assert (batch["context"][batch["id"] == 3] == 3).all() and (batch["next_context"][batch["id"] == 3] == 4).all()
    for i in range(16):  # a whole ring of newer refinements lets it go
        refine(replay, 2000 + i, parent=110, advantage=1.0)
    append(replay, 200, 32)
    assert replay.get(1000) is None and replay.get(3) is None and replay.get(110) is not None


def test_draws_follow_p_mix():
    replay = table(beta=0.5, ramp=4, tau=1.0, weight_min=1e-3, weight_max=1e3)  # two valid rows of four: beta 0.25
    append(replay, 0, 8)
    for i, (advantage, valid) in enumerate([(1.0, True), (2.0, True), (0.1, False)]):
        refine(replay, 100 + i, parent=i, advantage=advantage, valid=valid)
    each, refined = replay.probabilities()
    drawn = np.concatenate([replay.sample(64)["id"] for _ in range(400)])
    share = {id: (drawn == id).mean() for id in [*range(8), 100, 101, 102]}
    assert refined[2] == 0.0 == share[102] and refined.sum() == pytest.approx(0.25)
    for i in range(8):
        assert share[i] == pytest.approx(each, abs=0.01)
    for i in range(2):
        assert share[100 + i] == pytest.approx(refined[i], abs=0.01)
    rows = [replay.get(100), replay.get(101)]
    assert rows[1]["weight"] / rows[0]["weight"] == pytest.approx(
        np.exp(1.0 / replay.stats()["advantage_scale"]), rel=1e-4
    )
    batch = replay.sample(64)
    weights = {id: replay.get(id)["weight"] for id in (100, 101)}
    np.testing.assert_allclose(batch["weight"], [weights.get(i, 1.0) for i in batch["id"].tolist()], rtol=1e-6)
    assert (batch["refined"] == (batch["id"] >= 100)).all()


def test_an_edit_changes_the_q_reward_alone_and_may_be_replaced():
    replay = table()
    append(replay, 0, 3)
    assert replay.apply_edit(1, -0.4) and replay.apply_edit(1, 0.2)
    row = replay.get(1)
    assert row["reward"] == pytest.approx(1.2) and row["original_reward"] == 1.0
    batch = replay.sample(100)
    assert np.unique(batch["reward"][batch["id"] == 1]) == pytest.approx([1.2])
    assert not replay.apply_edit(77, 0.2)


def test_rows_without_their_states_are_counted_and_rows_sent_twice_are_stored_once():
    replay = table()
    append(replay, 0, 3)
    append(replay, 0, 3)
    assert replay.stats()["transitions"] == 3 and replay.lost == 0
    assert replay.append(States.none(), table_columns([{"id": 9, "state_id": 9, "next_id": 10}])).size == 0
    assert replay.lost == 1


def test_huge_features_are_bounded_instead_of_becoming_infinite():
    replay = table()
    rows = states([0])
    rows.context[:] = 1e9
    rows.slots[:] = -1e9
    replay.append(rows, table_columns([{"id": 0, "state_id": 0, "terminated": True}]))
    batch = replay.sample(1)
    assert np.isfinite(batch["context"]).all() and np.isfinite(batch["slots"]).all()


def test_a_table_that_is_all_pinned_says_so_and_names_the_setting():
    replay = table(capacity=16)
    append(replay, 0, 16)
    for id in range(16):
        replay.pin(id)
    with pytest.raises(MemoryError, match=r"replay\.capacity"):
        append(replay, 100, 1)
    replay.unpin(5)
    append(replay, 200, 1)
    assert replay.get(5) is None and replay.get(200) is not None


def test_sampling_nothing_is_refused():
    with pytest.raises(ValueError):
        table().sample(1)


def test_pairs_are_the_refined_and_the_played_action_of_valid_rows_in_one_state():
    replay = table()
    append(replay, 0, 4)
    refine(replay, 100, parent=2, advantage=1.0)
    refine(replay, 101, parent=3, advantage=1.0, valid=False)
    refine(replay, 102, parent=999, advantage=1.0)  # its original is gone
    pairs = replay.pairs()
    assert len(pairs["slot"]) == 1 == len(pairs["context"])
    refined, played = replay.get(100), replay.get(2)
    assert pairs["slot"].tolist() == [refined["slot"]] and pairs["played"].tolist() == [played["slot"]]
