"""Episodes as Parquet: one row an episode of an agent, what identifies it and its result.

docs/evaluation.md describes the columns. Any Parquet reader takes them up; rows of several evaluations simply add up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ace_ray.config.files import replacing
from ace_ray.evaluation.result import Evaluation

# Missing values are null: decision times without any decision, scores that were not asked for.
SCHEMA = pa.schema(
    [
        pa.field("agent", pa.string(), nullable=False),
        pa.field("env", pa.string(), nullable=False),
        pa.field("data", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("in_sample", pa.bool_(), nullable=False),
        pa.field("predicate", pa.string(), nullable=False),
        pa.field("catalogue", pa.string(), nullable=False),
        pa.field("chronic", pa.string(), nullable=False),
        pa.field("env_seed", pa.int64(), nullable=False),
        pa.field("start_step", pa.int32(), nullable=False),
        pa.field("max_steps", pa.int32(), nullable=False),
        pa.field("maintenance", pa.float64(), nullable=False),
        pa.field("perturbation", pa.float64(), nullable=False),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("survival", pa.float64(), nullable=False),
        pa.field("full", pa.bool_(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("decisions", pa.int32(), nullable=False),
        pa.field("actions", pa.int32(), nullable=False),
        pa.field("illegal_actions", pa.int32(), nullable=False),
        pa.field("decision_ms_p50", pa.float64()),
        pa.field("decision_ms_p99", pa.float64()),
        pa.field("score_2020", pa.float64()),
        pa.field("score_2022", pa.float64()),
    ]
)


def write_parquet(evaluations: Sequence[Evaluation], path: str | os.PathLike[str]) -> None:
    """Writes the episodes of all evaluations, in their order, through a temporary file."""
    rows = [
        {
            "agent": one.agent,
            "env": one.env,
            "data": one.data,
            "split": one.split,
            "in_sample": one.in_sample,
            "predicate": one.predicate,
            "catalogue": one.catalogue,
            "survival": episode.survival,
            "full": episode.steps == episode.max_steps,
            **vars(episode),
        }
        for one in evaluations
        for episode in one.episodes
    ]
    path = Path(path)
    with replacing(path, parents=True) as unfinished:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), unfinished, compression="zstd")
