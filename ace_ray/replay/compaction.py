"""Compaction: refined rows and their originals are kept for ever, plain rows for the replay window.

Shards that hold little that is still needed give their needed rows to one new shard a kind (`-kept` in its name) and
are deleted; the manifest is the commit. Records of refinements are never dropped (they are small, and prompts and
replies are what fine-tuning reads), but many small shards of them become one.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ace_ray.replay.shards import Shard, ShardLog

KEY = {"state": "id", "transition": "id", "edit": "transition_id"}
MANY = 32  # shards of refinements that are worth merging


def compact(log: ShardLog, window: int, keep_share: float = 0.5) -> int:
    """Drops from the log what no window, refined row or pending refinement needs.

    Args:
        log: opened for writing, nothing buffered.
        window: latest plain transitions that stay.
        keep_share: a shard of which at least this share is needed stays as it is.

    Returns:
        Bytes freed.
    """
    columns = ["source", "parent_id", "state_id", "next_id", "refined"]
    rows = {name: column.to_numpy(zero_copy_only=False) for name, column in _columns(log.read("transition", columns))}
    needed = _needed(log, rows, window)
    swap = _Swap(log, keep_share)
    stay = np.isin(rows["id"], swap.thin_out("transition", rows["id"][needed]))
    # What stays is more than what is needed: whole shards stay, and everything that they name has to stay with them.
    swap.thin_out("state", np.unique(np.concatenate([rows["state_id"][stay], rows["next_id"][stay]])))
    swap.thin_out("edit", rows["id"][stay])
    told = [shard for shard in log.shards if shard.kind == "refinement"]
    if len(told) >= MANY:
        swap.old += told
        swap.new.append(log.write("refinement", log.read("refinement"), kept=True))
    if not swap.old:
        return 0
    log.replace(swap.old, swap.new, swap.dropped)
    return sum(shard.bytes for shard in swap.old) - sum(shard.bytes for shard in swap.new)


def _needed(log: ShardLog, rows: dict[str, np.ndarray], window: int) -> np.ndarray:
    """What has to stay: the latest plain rows, all refined ones, and the originals of refined and pending ones."""
    refined = rows["refined"].astype(bool)
    plain = np.flatnonzero(~refined)
    needed = refined.copy()
    needed[plain[max(0, len(plain) - window) :]] = True
    return needed | np.isin(rows["id"], np.concatenate([rows["parent_id"][refined], _pending_parents(log)]))


class _Swap:
    """Shards that go and shards that take their place."""

    def __init__(self, log: ShardLog, keep_share: float) -> None:
        self.log, self.keep_share = log, keep_share
        self.old: list[Shard] = []
        self.new: list[Shard] = []
        self.dropped: Counter[str] = Counter()

    def thin_out(self, kind: str, ids: np.ndarray) -> np.ndarray:
        """Moves the rows with these ids out of shards that hold little else of use; returns the ids that stay."""
        moved, stay = [], [ids]
        for shard in [s for s in self.log.shards if s.kind == kind]:
            here = self.log.read_shard(shard, [KEY[kind]])[KEY[kind]].to_numpy()
            keep = np.isin(here, ids)
            if keep.mean() >= self.keep_share:
                stay.append(here)
                continue
            table = self.log.read_shard(shard)
            moved.append(table.filter(pa.array(keep)))
            if kind == "transition":
                self.dropped.update(table.filter(pa.array(~keep))["source"].to_pylist())
            self.old.append(shard)
        if sum(table.num_rows for table in moved):
            self.new.append(self.log.write(kind, pa.concat_tables(moved), kept=True))
        return np.unique(np.concatenate(stay))


def _columns(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _pending_parents(log: ShardLog) -> np.ndarray:
    table = log.read("refinement", ["status", "parent_id"])
    waiting = pc.equal(table["status"], "pending")
    return table.filter(waiting)["parent_id"].to_numpy().astype(np.int64)
