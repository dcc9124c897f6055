"""Speed of the replay on this machine: `python -m ace_ray.replay.bench` writes one JSON object.

Rows have the sizes of the 36-substation grid (64 slots of 90 features, 391 context features) and random content, which
compresses worse than real features.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ace_ray.config.run import RunSettings
from ace_ray.replay.core import ReplayCore
from ace_ray.replay.shards import LogIdentity
from ace_ray.replay.states import StateShape

SHAPE = StateShape(64, 90, 391)
PART = 64


def measure_replay(rows: int = 4096, batch: int = 64, batches: int = 64) -> dict[str, float]:
    """Rows a second of storing (shards included), sampling (by eq. 9) and resuming, and MB for 1,000 rows."""
    rng = np.random.default_rng(0)
    settings = RunSettings()
    with tempfile.TemporaryDirectory() as folder:
        replay = ReplayCore(Path(folder), settings, LogIdentity("bench", "bench", SHAPE))
        parts = [_part(start, rng) for start in range(0, rows, PART)]
        stored = _timed(lambda: [replay.store(*part) for part in parts] and replay.seal())
        drawn = _timed(lambda: replay.sample(batch, batches))
        resumed = _timed(lambda: ReplayCore(Path(folder), settings, LogIdentity("bench", "bench", SHAPE)))
        return {
            "stored_rows_per_s": rows / stored,
            "sampled_rows_per_s": batch * batches / drawn,
            "batches_per_s": batches / drawn,
            "resumed_rows_per_s": rows / resumed,
            "mb_per_1000_rows": replay.stats()["mb_per_1000_decisions"],
        }


def _part(start: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    ids = np.arange(start, start + PART + 1)
    states = {
        "id": ids if start == 0 else ids[1:],
        "context": rng.random((PART + (start == 0), SHAPE.context_features), np.float32),
        "slots": rng.random((PART + (start == 0), SHAPE.slots, SHAPE.slot_features), np.float32),
        "mask": np.ones((PART + (start == 0), SHAPE.slots), bool),
        "score": rng.random((PART + (start == 0), SHAPE.slots), np.float32),
        "catalogue_ids": rng.integers(0, 66_810, (PART + (start == 0), SHAPE.slots), np.int32),
    }
    rows = [{"id": int(i), "state_id": int(i), "next_id": int(i) + 1, "episode": "e"} for i in ids[:-1]]
    return states, rows


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: round(value, 1) for name, value in measure_replay().items()}, indent=1) + "\n")
