"""From shards back to a running replay: table rows, pending refinements, counts, hard starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ace_ray.config.learning import ReplaySettings
from ace_ray.config.run import RunSettings
from ace_ray.domain import Domain, Snapshot
from ace_ray.replay import records
from ace_ray.replay.episodes import COLUMNS, blackouts
from ace_ray.replay.pending import PendingRefinement
from ace_ray.replay.shards import ShardLog
from ace_ray.replay.table import ReplayTable
from ace_ray.schema import TRANSITION_COLUMNS, States

CHUNK = 4096
_RESULT_COLUMNS = ["status", "round", "reason", "distance", "salvageable", "rounds", "verdict", "error", "catalogue_id"]
_PENDING_COLUMNS = ["parent_id", "snapshot", "played", "priority", "chain", "reward"]


@dataclass
class Restored:
    """What the sealed records say beyond the rows that are in the table again."""

    next_id: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    refinements: list[dict[str, Any]] = field(default_factory=list)
    pending: list[PendingRefinement] = field(default_factory=list)
    blackouts: list[list[Snapshot]] = field(default_factory=list)
    edits: int = 0


def restore(log: ShardLog, table: ReplayTable, settings: RunSettings, hard_starts: int, domain: Domain) -> Restored:
    """Fills an empty table from the log and returns the rest; at most `hard_starts` blackouts are looked up.

    The last `capacity` plain rows come back (the originals of refined and pending rows among them, whatever their age)
    and the last `refined_capacity` refined ones, in the order in which they were written; then the edits.
    """
    found = Restored(next_id=log.next_id)
    found.sources.update(log.dropped)
    refinements = log.read("refinement", [*_RESULT_COLUMNS, *_PENDING_COLUMNS])
    found.refinements = refinements.drop_columns(["snapshot"]).to_pylist()
    waiting = [row for row in refinements.to_pylist() if row["round"] == 0 and row["status"] == "pending"]
    found.pending = [_pending(row, domain) for row in waiting]

    rows = log.read("transition", list(dict.fromkeys([*TRANSITION_COLUMNS, "refined", *COLUMNS])))
    found.sources.update(rows["source"].to_pylist())
    found.blackouts = blackouts(rows.select(COLUMNS).to_pylist(), hard_starts, settings.refine.lookback, domain)
    _fill(log, table, settings.replay, rows, {item.parent_id for item in found.pending})

    edits = log.read("edit", ["delta"])
    found.edits = edits.num_rows
    for transition, delta in zip(edits["transition_id"].to_pylist(), edits["delta"].to_pylist(), strict=True):
        table.apply_edit(transition, delta)

    highest = [found.next_id - 1]
    for column in (rows["id"], rows["state_id"], rows["next_id"], refinements["id"]):
        highest += [int(column.to_numpy().max())] if len(column) else []
    found.next_id = max(highest) + 1
    return found


def _fill(log: ShardLog, table: ReplayTable, settings: ReplaySettings, rows: pa.Table, pending: set[int]) -> None:
    refined_flag = rows["refined"].to_numpy(zero_copy_only=False).astype(bool)
    refined = np.flatnonzero(refined_flag)[-settings.refined_capacity :]
    plain = np.flatnonzero(~refined_flag)
    ids = rows["id"].to_numpy()
    needed = set(rows["parent_id"].to_numpy()[refined].tolist()) | pending
    original = np.isin(ids[plain], np.array(sorted(needed), np.int64))
    others = np.flatnonzero(~original)
    room = max(0, settings.capacity - int(original.sum()))
    chosen = np.sort(np.concatenate([np.flatnonzero(original), others[max(0, len(others) - room) :]]))
    plain = plain[chosen]

    wanted = rows.take(pa.array(np.concatenate([plain, refined])))
    _load_states(log, table, {*wanted["state_id"].to_pylist(), *wanted["next_id"].to_pylist()})
    for start in range(0, len(plain), CHUNK):
        table.append(States.none(), records.table_columns(rows.take(pa.array(plain[start : start + CHUNK]))))
    for row in refined.tolist():
        table.add_refinement(States.none(), records.table_columns(rows.slice(row, 1)))


def _load_states(log: ShardLog, table: ReplayTable, needed: set[int]) -> None:
    """Shard by shard, so that no more than one is in memory; a later record of the same state replaces the earlier."""
    wanted = np.array(sorted(needed), np.int64)
    for shard in [s for s in log.shards if s.kind == "state"]:
        states = log.read_shard(shard)
        states = states.filter(pa.array(np.isin(states["id"].to_numpy(), wanted)))
        table.states.add(records.states_of(states, log.identity.shape))


def _pending(row: dict[str, Any], domain: Domain) -> PendingRefinement:
    return PendingRefinement(
        id=row["id"],
        parent_id=row["parent_id"],
        snapshot=Snapshot.from_json(row["snapshot"], domain.scenario),
        played=row["played"],
        reason=row["reason"],
        distance=row["distance"],
        priority=row["priority"],
        chain=row["chain"],
        reward=row["reward"],
    )
