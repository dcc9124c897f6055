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

from ace_ray.replay.files import decode
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
    refined = rows["refined"].astype(bool)
    plain = np.flatnonzero(~refined)
    needed = np.zeros(len(refined), bool)
    needed[plain[max(0, len(plain) - window) :]] = True
    needed |= refined
    originals = np.concatenate([rows["parent_id"][refined], _pending_parents(log)])
    needed |= np.isin(rows["id"], originals)
    ids = {"transition": rows["id"][needed], "edit": rows["id"][needed]}
    ids["state"] = np.unique(np.concatenate([rows["state_id"][needed], rows["next_id"][needed]]))

    old: list[Shard] = []
    new: list[Shard] = []
    dropped: Counter[str] = Counter()
    for kind, key in KEY.items():
        moved = []
        for shard in [s for s in log.shards if s.kind == kind]:
            keep = np.isin(decode(log.path(shard.file), [key])[key].to_numpy(), ids[kind])
            if keep.mean() >= keep_share:
                continue
            table = decode(log.path(shard.file))
            moved.append(table.filter(pa.array(keep)).replace_schema_metadata(None))
            if kind == "transition":
                dropped.update(table.filter(pa.array(~keep))["source"].to_pylist())
            old.append(shard)
        kept = pa.concat_tables(moved) if moved else None
        if kept is not None and kept.num_rows:
            new.append(log.write(kind, kept, kept=True))
    told = [shard for shard in log.shards if shard.kind == "refinement"]
    if len(told) >= MANY:
        old += told
        new.append(log.write("refinement", log.read("refinement"), kept=True))
    if not old:
        return 0
    log.replace(old, new, dropped)
    return sum(shard.bytes for shard in old) - sum(shard.bytes for shard in new)


def _columns(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _pending_parents(log: ShardLog) -> np.ndarray:
    table = log.read("refinement", ["status", "parent_id"])
    waiting = pc.equal(table["status"], "pending")
    return table.filter(waiting)["parent_id"].to_numpy().astype(np.int64)
