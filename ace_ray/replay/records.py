"""The four record kinds of the replay's durable log and their Arrow schemas (docs/replay.md).

    state       one decision state, stored once: `observation` (context features), `features` of the K slots, mask
    transition  a decision that was played: by the policy (source 'rl') or by a refiner (its name)
    refinement  the life of one refinement: status 'pending', one record a 'round', then its result
    edit        a critic's correction of one transition's reward

The log is append-only. Records that share a key replace each other, the latest wins: state, transition: `id`;
refinement: (`id`, `round`), where round 0 is the refinement itself and round 1.. are its rounds; edit: `transition_id`.
`priority` and `w_r` are what they were when the record was written; the table derives them again.
`rho_before`, `rho_line` and `overloads` describe the state of the decision (max rho, its line, lines at rho >= 1),
`rho_max` the largest rho during the k steps that followed, `rank` and `behind` the place of the slot among the legal
ones by score (1 is the best, 0 unknown) and the score by which the best one leads. The full Grid2Op observation of any
decision is rebuilt from (scenario, log): the log is `lead` (what was played before the first decision of the episode)
and the `segment` of every earlier transition of the same episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ace_ray.replay.states import StateShape

KINDS = ("state", "transition", "refinement", "edit")
SOURCES = ("rl", "llm", "search", "random", "replay")
# column of the replay table -> column of the transition record
TABLE_COLUMNS = {
    "id": "id",
    "state_id": "state_id",
    "next_id": "next_id",
    "parent_id": "parent_id",
    "source": "source",
    "action": "slot",
    "catalogue_id": "catalogue_id",
    "steps": "k",
    "reward": "reward",
    "original_reward": "original_reward",
    "discount": "discount",
    "terminated": "terminated",
    "truncated": "truncated",
    "policy_version": "policy_version",
    "valid": "valid",
    "advantage": "advantage",
}
KEYS: dict[str, tuple[str, ...]] = {
    "state": ("id",),
    "transition": ("id",),
    "refinement": ("id", "round"),
    "edit": ("transition_id",),
}
NAN = float("nan")

# name -> (type, value where a caller gives none)
_TRANSITION: dict[str, tuple[pa.DataType, Any]] = {
    "id": (pa.int64(), None),
    "source": (pa.string(), "rl"),
    "parent_id": (pa.int64(), -1),
    "state_id": (pa.int64(), None),
    "next_id": (pa.int64(), -1),
    "episode": (pa.string(), ""),
    "scenario": (pa.string(), ""),
    "step": (pa.int32(), 0),
    "k": (pa.int32(), 1),
    "lead": (pa.string(), ""),
    "segment": (pa.string(), "[]"),
    "slot": (pa.int16(), 0),
    "catalogue_id": (pa.int32(), 0),
    "reward": (pa.float32(), 0.0),
    "original_reward": (pa.float32(), NAN),
    "discount": (pa.float32(), 1.0),
    "terminated": (pa.bool_(), False),
    "truncated": (pa.bool_(), False),
    "rho_before": (pa.float32(), NAN),
    "rho_line": (pa.int16(), -1),
    "overloads": (pa.int16(), 0),
    "rho_max": (pa.float32(), NAN),
    "rank": (pa.int16(), 0),
    "behind": (pa.float32(), 0.0),
    "refined": (pa.bool_(), False),
    "prompt": (pa.string(), ""),
    "reply": (pa.string(), ""),
    "round": (pa.int16(), 0),
    "refiner": (pa.string(), ""),
    "model": (pa.string(), ""),
    "adapter_version": (pa.int32(), 0),
    "verdict": (pa.string(), ""),
    "valid": (pa.bool_(), False),
    "advantage": (pa.float32(), NAN),
    "w_r": (pa.float32(), 1.0),
    "priority": (pa.float32(), 0.0),
    "policy_version": (pa.int32(), -1),
    "worker": (pa.string(), ""),
    "time": (pa.float64(), 0.0),
}
_REFINEMENT: dict[str, tuple[pa.DataType, Any]] = {
    "id": (pa.int64(), None),
    "round": (pa.int16(), 0),
    "status": (pa.string(), "pending"),
    "parent_id": (pa.int64(), -1),
    "snapshot": (pa.string(), ""),
    "played": (pa.int32(), 0),
    "reason": (pa.string(), ""),
    "distance": (pa.int16(), -1),
    "priority": (pa.float64(), 0.0),
    "chain": (pa.string(), ""),
    "reward": (pa.float32(), NAN),
    "salvageable": (pa.bool_(), False),
    "advantage": (pa.float32(), NAN),
    "rounds": (pa.int16(), 0),
    "result_id": (pa.int64(), -1),
    "catalogue_id": (pa.int32(), -1),
    "verdict": (pa.string(), ""),
    "error": (pa.string(), ""),
    "survived": (pa.bool_(), False),
    "steps": (pa.int32(), 0),
    "ret": (pa.float32(), NAN),
    "played_survived": (pa.bool_(), False),
    "played_steps": (pa.int32(), 0),
    "played_ret": (pa.float32(), NAN),
    "case": (pa.string(), ""),
    "compared": (pa.string(), ""),
    "refiner": (pa.string(), ""),
    "model": (pa.string(), ""),
    "adapter_version": (pa.int32(), 0),
    "prompt": (pa.string(), ""),
    "reply": (pa.string(), ""),
    "prompt_tokens": (pa.int32(), 0),
    "reply_tokens": (pa.int32(), 0),
    "seconds": (pa.float32(), 0.0),
    "worker": (pa.string(), ""),
    "time": (pa.float64(), 0.0),
}
_EDIT: dict[str, tuple[pa.DataType, Any]] = {
    "transition_id": (pa.int64(), None),
    "episode": (pa.string(), ""),
    "delta": (pa.float32(), None),
    "reason": (pa.string(), ""),
    "prompt": (pa.string(), ""),
    "reply": (pa.string(), ""),
    "model": (pa.string(), ""),
    "adapter_version": (pa.int32(), 0),
    "worker": (pa.string(), ""),
    "time": (pa.float64(), 0.0),
}
_PLAIN = {"transition": _TRANSITION, "refinement": _REFINEMENT, "edit": _EDIT}
_STATE_ARRAYS = {
    # shard column -> (table column, Arrow value type, axes that are flattened)
    "observation": ("context", pa.float16(), "C"),
    "features": ("slots", pa.float16(), "KF"),
    "mask": ("mask", pa.bool_(), "K"),
    "score": ("score", pa.float32(), "K"),
    "catalogue_ids": ("catalogue_ids", pa.int32(), "K"),
}


def schema(kind: str, shape: StateShape) -> pa.Schema:
    """The Arrow schema of one record kind; K, F and C stand in the metadata of the state schema."""
    if kind != "state":
        return pa.schema([pa.field(name, kind_) for name, (kind_, _) in _PLAIN[kind].items()])
    sizes = {"C": shape.context_features, "K": shape.slots, "KF": shape.slots * shape.slot_features}
    arrays = [pa.field(n, pa.list_(value, sizes[axes])) for n, (_, value, axes) in _STATE_ARRAYS.items()]
    metadata = {b"K": str(shape.slots), b"F": str(shape.slot_features), b"C": str(shape.context_features)}
    return pa.schema([pa.field("id", pa.int64()), *arrays], metadata=metadata)


def plain_batch(kind: str, rows: Sequence[Mapping[str, Any]], shape: StateShape) -> pa.RecordBatch:
    """Rows of a kind other than state as a record batch; keys that a row lacks take the column's default.

    Raises:
        ValueError: a key that is no column, or a column without default that is missing.
    """
    columns = _PLAIN[kind]
    for row in rows:
        unknown = row.keys() - columns.keys()
        if unknown:
            raise ValueError(f"{kind} record has no column {sorted(unknown)}")
    arrays = []
    for name, (kind_, fill) in columns.items():
        values = [row.get(name, fill) for row in rows]
        if any(value is None for value in values):
            raise ValueError(f"{kind} record without {name}")
        arrays.append(pa.array(values, kind_))
    return pa.RecordBatch.from_arrays(arrays, schema=schema(kind, shape))


def state_batch(states: Mapping[str, np.ndarray], shape: StateShape) -> pa.RecordBatch:
    """States in the table's columns ('id' [n], 'context' [n, C], 'slots' [n, K, F], ...) as a record batch."""
    wanted = schema("state", shape)
    arrays = [pa.array(np.asarray(states["id"], np.int64))]
    for name, (column, value, _) in _STATE_ARRAYS.items():
        flat = np.ascontiguousarray(states[column]).reshape(-1)
        if value == pa.float16():
            limit = float(np.finfo(np.float16).max)
            flat = np.clip(flat, -limit, limit).astype(np.float16)
        values = pa.array(flat, type=value)
        arrays.append(pa.FixedSizeListArray.from_arrays(values, wanted.field(name).type.list_size))
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def states_of(table: pa.Table, shape: StateShape) -> dict[str, np.ndarray]:
    """The inverse of `state_batch`: the table's state columns, features in float16."""
    table = table.combine_chunks()
    n, k = table.num_rows, shape.slots
    sizes = {"C": (n, shape.context_features), "K": (n, k), "KF": (n, k, shape.slot_features)}
    found: dict[str, np.ndarray] = {"id": table["id"].to_numpy().astype(np.int64)}
    for name, (column, _, axes) in _STATE_ARRAYS.items():
        chunks = table[name].chunks
        flat = chunks[0].flatten().to_numpy(zero_copy_only=False) if chunks else np.empty(0)
        found[column] = flat.reshape(sizes[axes])
    return found


def table_columns(rows: Sequence[Mapping[str, Any]] | pa.Table) -> dict[str, np.ndarray]:
    """Transition records as the columns of `ReplayTable.append`, each [n]."""
    found = {}
    for name, column in TABLE_COLUMNS.items():
        if isinstance(rows, pa.Table):
            values = rows[column].to_numpy()
        else:
            values = np.array([row.get(column, _TRANSITION[column][1]) for row in rows])
        found[name] = values
    codes = {source: code for code, source in enumerate(SOURCES)}
    found["source"] = np.array([codes[source] for source in found["source"]], np.int8)
    missing = np.isnan(found["original_reward"].astype(np.float32))
    found["original_reward"] = np.where(missing, found["reward"], found["original_reward"])
    return found


def completed(kind: str, table: pa.Table) -> pa.Table:
    """A table of plain records as written before a column was added: what it lacks takes the column's default."""
    for place, (name, (kind_, fill)) in enumerate(_PLAIN.get(kind, {}).items()):
        if name not in table.column_names:
            table = table.add_column(place, name, pa.array([fill] * table.num_rows, kind_))
    return table


def latest(kind: str, table: pa.Table) -> pa.Table:
    """One row a key, the last written, in the order in which the keys came last."""
    if table.num_rows == 0:
        return table
    position = {}
    for i, key in enumerate(zip(*(table[name].to_pylist() for name in KEYS[kind]), strict=True)):
        position[key] = i
    if len(position) == table.num_rows:
        return table
    return table.take(pa.array(sorted(position.values()), pa.int64()))
