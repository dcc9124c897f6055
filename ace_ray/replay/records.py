"""The four record kinds of the replay's durable log and their Arrow schemas (docs/replay.md).

    state       one decision state, stored once (`schema.States`)
    transition  a decision that was played: by the policy (source 'rl') or by a refiner (its name)
    refinement  the life of one refinement: status 'pending', one record a 'round', then its result
    edit        a critic's correction of one transition's reward

The log is append-only. Records that share a key replace each other, the latest wins: state, transition: `id`;
refinement: (`id`, `round`), where round 0 is the refinement itself and round 1.. are its rounds; edit: `transition_id`.
Columns have the names of `ace_ray.schema`; `read` gives them those names in shards of earlier formats too.
`priority` and `w_r` are what they were when the record was written; the table derives them again.
`rho_before`, `rho_line` and `overloads` describe the state of the decision (max rho, its line, lines at rho >= 1),
`rho_max` the largest rho during the k steps that followed, `rank` and `behind` the place of the slot among the legal
ones by score (1 is the best, 0 unknown) and the score by which the best one leads. The full Grid2Op observation of any
decision is rebuilt from (scenario, log): the log is `lead` (what was played before the first decision of the episode)
and the `segment` of every earlier transition of the same episode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ace_ray.replay.files import decode
from ace_ray.schema import STATE_COLUMNS, TRANSITION_COLUMNS, States, StateShape

KINDS = ("state", "transition", "refinement", "edit")
SOURCES = ("rl", "llm", "search", "random", "replay")
KEYS: dict[str, tuple[str, ...]] = {
    "state": ("id",),
    "transition": ("id",),
    "refinement": ("id", "round"),
    "edit": ("transition_id",),
}
NAN = float("nan")

FORMAT = 2
# Format 1 named some columns differently: kind -> {then: now}.
FORMER_NAMES: dict[str, dict[str, str]] = {
    "state": {"observation": "context", "features": "slots", "catalogue_ids": "ids"},
    "transition": {"k": "steps"},
}

# name -> (type, value where a caller gives none)
_TRANSITION: dict[str, tuple[pa.DataType, Any]] = {
    **{name: (pa.from_numpy_dtype(column.dtype), column.fill) for name, column in TRANSITION_COLUMNS.items()},
    "source": (pa.string(), "rl"),
    "episode": (pa.string(), ""),
    "scenario": (pa.string(), ""),
    "step": (pa.int32(), 0),
    "lead": (pa.string(), ""),
    "segment": (pa.string(), "[]"),
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
    "w_r": (pa.float32(), 1.0),
    "priority": (pa.float32(), 0.0),
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


def schema(kind: str, shape: StateShape) -> pa.Schema:
    """The Arrow schema of one record kind; K, F and C stand in the metadata of the state schema."""
    if kind != "state":
        return pa.schema([pa.field(name, kind_) for name, (kind_, _) in _PLAIN[kind].items()])
    arrays = [
        pa.field(name, pa.list_(pa.from_numpy_dtype(column.kept), math.prod(column.shape(shape))))
        for name, column in STATE_COLUMNS.items()
    ]
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


def state_batch(states: States, shape: StateShape) -> pa.RecordBatch:
    """States as a record batch; the axes of a row are flattened."""
    wanted = schema("state", shape)
    arrays = [pa.array(states.id, pa.int64())]
    for name, column in STATE_COLUMNS.items():
        flat = np.ascontiguousarray(column.keep(getattr(states, name))).reshape(-1)
        kind = wanted.field(name).type
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat, type=kind.value_type), kind.list_size))
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def states_of(table: pa.Table, shape: StateShape) -> States:
    """The inverse of `state_batch`, in the types in which states are kept."""
    table = table.combine_chunks()
    columns = []
    for name, column in STATE_COLUMNS.items():
        chunks = table[name].chunks
        flat = chunks[0].flatten().to_numpy(zero_copy_only=False) if chunks else np.empty(0, column.kept)
        columns.append(flat.reshape(table.num_rows, *column.shape(shape)))
    return States(table["id"].to_numpy().astype(np.int64), *columns)


def table_columns(rows: Sequence[Mapping[str, Any]] | pa.Table) -> dict[str, np.ndarray]:
    """Transition records as the columns of `ReplayTable.append`, each [n]."""
    found = {}
    for name in TRANSITION_COLUMNS:
        if isinstance(rows, pa.Table):
            values = rows[name].to_numpy()
        else:
            values = np.array([row.get(name, _TRANSITION[name][1]) for row in rows])
        found[name] = values
    codes = {source: code for code, source in enumerate(SOURCES)}
    found["source"] = np.array([codes[source] for source in found["source"]], np.int8)
    missing = np.isnan(found["original_reward"].astype(np.float32))
    found["original_reward"] = np.where(missing, found["reward"], found["original_reward"])
    return found


def read(path: Path, kind: str, shape: StateShape, columns: Sequence[str] | None = None) -> pa.Table:
    """The records of one shard, or some of their columns, under today's names whenever it was written.

    What was not recorded then takes the column's default.

    Raises:
        OSError, pa.ArrowInvalid: not readable.
    """
    wanted = schema(kind, shape).names if columns is None else list(columns)
    now = FORMER_NAMES.get(kind, {})
    former = [then for then, name in now.items() if name in wanted]
    table = decode(path, [*wanted, *former])
    table = table.rename_columns([now.get(name, name) for name in table.column_names])
    for name in wanted:
        if name not in table.column_names:
            type_, fill = _PLAIN[kind][name]
            table = table.append_column(name, pa.array([fill] * table.num_rows, type_))
    return table.select(wanted).replace_schema_metadata(None)


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
