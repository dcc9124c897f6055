import errno
import json
import os

import numpy as np
import pyarrow as pa
import pytest

from ace_ray.config.errors import GridMismatchError, RunFolderError, ShardError
from ace_ray.replay import records
from ace_ray.replay.compaction import compact
from ace_ray.replay.inspect import verify
from ace_ray.replay.shards import LogIdentity, ShardLog
from ace_ray.schema import STATE_COLUMNS, StateShape
from tests.replay.rows import IDENTITY, SHAPE, chain, chain_states, states

pytestmark = pytest.mark.unit


def log(folder, **options):
    return ShardLog(folder, IDENTITY, **options)


def write(folder, parts, **options):
    """One seal a part of (first id, rows)."""
    found = log(folder, **options)
    for first, n in parts:
        found.append_states(chain_states(first, n))
        found.append("transition", chain(first, n))
        found.seal(first + n)
    return found


def ids(found, kind="transition"):
    return found.read(kind, ["id"])["id"].to_pylist()


def test_what_is_sealed_reads_back_and_what_is_not_is_gone(tmp_path):
    found = write(tmp_path, [(0, 3), (3, 2)])
    found.append("transition", chain(5, 1))
    again = log(tmp_path)
    assert ids(again) == [0, 1, 2, 3, 4] and again.next_id == 5 and again.report.lines() == []
    back = records.states_of(again.read("state"), SHAPE)
    for name, values in vars(states(range(5))).items():
        np.testing.assert_array_equal(getattr(back, name), values)


def test_shards_are_plain_arrow_files(tmp_path):
    write(tmp_path, [(0, 3)])
    path = next(tmp_path.glob("*-transition.arrow"))
    table = pa.ipc.open_file(path).read_all()
    design = {"id", "source", "parent_id", "scenario", "step", "steps", "segment", "slot", "catalogue_id", "reward"}
    design |= {"original_reward", "discount", "next_id", "prompt", "reply", "round", "refiner", "model"}
    design |= {"adapter_version", "valid", "advantage", "w_r", "priority", "policy_version"}
    assert design <= set(table.column_names) and table["reward"].to_pylist() == [0.0, 1.0, 2.0]
    state = pa.ipc.open_file(next(tmp_path.glob("*-state.arrow"))).schema
    assert {"id", *STATE_COLUMNS} == set(state.names) and state.metadata[b"K"] == b"4"


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_torn_shard_loses_only_itself_and_is_reported(tmp_path, damage):
    write(tmp_path, [(0, 3), (3, 2), (5, 2)])
    victim = sorted(tmp_path.glob("*-transition.arrow"))[1]
    data = bytearray(victim.read_bytes())
    if damage == "delete":
        victim.unlink()
    elif damage == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0xFF
        victim.write_bytes(data)
    again = log(tmp_path)
    assert ids(again) == [0, 1, 2, 5, 6] and len(ids(again, "state")) == 7
    assert len(again.report.lines()) == 1 and victim.name in again.report.lines()[0]
    assert log(tmp_path).report.lines() == []  # reported once, then set aside
    again.append("transition", chain(7, 1))
    again.seal(8)
    assert ids(log(tmp_path)) == [0, 1, 2, 5, 6, 7]


def test_a_crash_between_rename_and_manifest_loses_nothing(tmp_path):
    found = write(tmp_path, [(0, 3)])
    before = (tmp_path / "manifest.json").read_bytes()
    found.append("transition", chain(3, 2))
    found.seal(5)
    (tmp_path / "manifest.json").write_bytes(before)
    (tmp_path / "00000099-state.arrow.tmp").write_bytes(b"half")
    again = log(tmp_path)
    assert ids(again) == [0, 1, 2, 3, 4] and len(again.report.adopted) == 1
    assert not list(tmp_path.glob("*.tmp"))


def test_a_lost_manifest_is_rebuilt_from_the_shards(tmp_path):
    write(tmp_path, [(0, 3), (3, 2)])
    (tmp_path / "manifest.json").write_text('{"identity": {"env"')
    again = ShardLog(tmp_path)
    assert ids(again) == [0, 1, 2, 3, 4] and again.identity == IDENTITY and again.report.rebuilt


def test_the_latest_record_of_a_key_wins(tmp_path):
    found = write(tmp_path, [(0, 3)])
    found.append("transition", [{**chain(1, 1)[0], "reward": 9.0}])
    found.append("refinement", [{"id": 7}, {"id": 7, "round": 1, "status": "round"}])
    found.seal(3)
    found.append("refinement", [{"id": 7, "status": "accepted"}])
    found.seal(8)
    again = log(tmp_path)
    rows = {row["id"]: row["reward"] for row in again.read("transition").to_pylist()}
    assert rows == {0: 0.0, 1: 9.0, 2: 2.0}
    assert {(r["round"], r["status"]) for r in again.read("refinement").to_pylist()} == {(1, "round"), (0, "accepted")}


def test_another_grid_or_catalogue_is_refused(tmp_path):
    write(tmp_path, [(0, 1)])
    for other in (LogIdentity("grid", "other", SHAPE), LogIdentity("grid", "hash", StateShape(5, 3, 2))):
        with pytest.raises(GridMismatchError):
            ShardLog(tmp_path, other)


def test_paths_stay_inside_the_run(tmp_path):
    folder = tmp_path / "replay"
    write(folder, [(0, 1)])
    outside = tmp_path / "00000001-edit.arrow"
    outside.write_bytes(b"x")
    (folder / "00000042-edit.arrow").symlink_to(outside)
    with pytest.raises(ShardError):
        log(folder).path("00000042-edit.arrow")
    (folder / "00000042-edit.arrow").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["file"] = "../00000001-edit.arrow"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ShardError):
        log(folder)
    assert outside.exists()


def test_a_full_disk_is_a_clear_error_and_nothing_buffered_is_lost(tmp_path, monkeypatch):
    found = log(tmp_path)
    found.append("transition", chain(0, 3))
    real = os.fsync

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="no space left.*\n.*runs_root"):
        found.seal(3)
    assert not list(tmp_path.glob("*.tmp"))
    monkeypatch.setattr(os, "fsync", real)
    found.seal(3)
    assert ids(log(tmp_path)) == [0, 1, 2]


def test_seals_by_rows_or_by_time(tmp_path):
    now = [0.0]
    found = log(tmp_path, shard_rows=5, shard_seconds=60.0, clock=lambda: now[0])
    now[0] = 1000.0
    assert not found.due()
    found.append("transition", chain(0, 3))
    assert not found.due()
    now[0] += 61.0
    assert found.due()
    found.seal(3)
    found.append("transition", chain(3, 5))
    assert found.due()


def test_rows_with_an_unknown_or_a_missing_column_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rewrad"):
        log(tmp_path).append("transition", [{"id": 1, "state_id": 1, "rewrad": 2.0}])
    with pytest.raises(ValueError, match="state_id"):
        log(tmp_path).append("transition", [{"id": 1}])


def test_compaction_keeps_refined_rows_their_originals_and_the_window(tmp_path):
    found = write(tmp_path, [(10 * i, 10) for i in range(8)])
    refined = {**chain(1000, 1)[0], "source": "llm", "refined": True, "parent_id": 12, "id": 1000}
    found.append_states(states([1000]))
    found.append("transition", [refined])
    found.append("refinement", [{"id": 2000, "parent_id": 25}, {"id": 2001, "parent_id": 35, "status": "rejected"}])
    found.append("edit", [{"transition_id": i, "delta": 0.2} for i in (12, 13, 14)])
    found.seal(2001)
    size = found.bytes
    freed = compact(found, window=20)
    assert freed > 0 and found.bytes == size - freed
    again = log(tmp_path)
    assert again.report.lines() == [] and again.verify() == []
    assert ids(again) == [12, 25, *range(60, 80), 1000]
    assert sorted(ids(again, "state")) == [12, 13, 25, 26, *range(60, 80), 1000]
    assert again.read("edit")["transition_id"].to_pylist() == [12]
    assert len(again.read("refinement")) == 2 and again.dropped == {"rl": 58}
    assert sum(1 for _ in tmp_path.glob("*.arrow")) == len(again.shards)
    assert compact(again, window=20) == 0


def test_compaction_merges_refinements_and_drops_none_of_them(tmp_path):
    found = log(tmp_path)
    for i in range(40):
        found.append("refinement", [{"id": i}, {"id": i - 1, "status": "accepted"}])
        found.seal(i + 1)
    before = {(row["id"], row["status"]) for row in found.read("refinement").to_pylist()}
    compact(found, window=10)
    again = log(tmp_path)
    assert {(row["id"], row["status"]) for row in again.read("refinement").to_pylist()} == before
    assert len(again.shards) == 1 and again.verify() == []


def test_whatever_compaction_leaves_names_nothing_that_is_gone(tmp_path):
    """Shards of transitions and of states end at different rows, and originals of refined rows lie in some of them."""
    rng = np.random.default_rng(0)
    found = log(tmp_path)
    rows, state_ids, sent = chain(0, 300, ends=False), np.arange(301), 0
    for first in range(0, 300, 12):
        found.append_states(states(state_ids[sent : first + 13]))
        sent = first + 13
        found.append("transition", rows[first : first + 12])
        if first % 5 == 0:
            parents = [p for p in range(first, first + 12) if rng.random() < 0.45]
            shared = {"source": "llm", "refined": True, "next_id": -1, "terminated": True}
            found.append("transition", [{**rows[p], **shared, "id": 5000 + p, "parent_id": p} for p in parents])
            found.append("edit", [{"transition_id": p, "delta": 0.2} for p in range(first, first + 12)])
        found.seal(6000)
    compact(found, window=30)
    whole, lines = verify(tmp_path)
    assert whole, lines
    assert found.read("transition").num_rows < 300


def test_a_log_from_before_a_column_was_added_is_continued(tmp_path, monkeypatch):
    with monkeypatch.context() as then:
        then.delitem(records._TRANSITION, "rank")
        write(tmp_path, [(0, 2)])
    found = log(tmp_path)
    found.append("transition", chain(2, 1, rank=3))
    found.seal(3)
    assert log(tmp_path).read("transition")["rank"].to_pylist() == [0, 0, 3]
