"""The salvageable decisions shipped with the embedded model: they may seed the queue of refinements
(`refine.seed_queue`).

Every one is a decision of a training scenario whose played action dies while another of the compared set survives, so
a run that has seen no blackout yet has something to think twice about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ace_ray.agents.fate import Fate
from ace_ray.config.errors import GridMismatchError, ModelError
from ace_ray.config.grid import GridSettings
from ace_ray.finetune.label_files import MODEL_META, read_parquet
from ace_ray.grid.snapshot import Snapshot
from llm_service.settings import EMBEDDED

SEED_FILE = "seeds.parquet"


@dataclass(frozen=True)
class Seed:
    """A decision to think twice about: where, what was played, and how the compared set fared."""

    snapshot: Snapshot
    played: int
    distance: int
    fates: Mapping[int, Fate]


def read_seeds(grid: GridSettings, catalogue_hash: str, folder: Path = EMBEDDED) -> list[Seed]:
    """All seeds that belong to a grid.

    Args:
        grid: settings of the run; seeds of another environment are refused.
        catalogue_hash: of the run's catalogue.
        folder: model directory.

    Raises:
        ModelError: there is no seed file.
        GridMismatchError: the seeds were made on another grid.
    """
    path = folder / SEED_FILE
    if not path.is_file():
        raise ModelError(f"{path} is missing: nothing can seed the queue", "set refine.seed_queue=false")
    meta = json.loads((folder / MODEL_META).read_text())
    if meta["catalogue"] != catalogue_hash:
        raise GridMismatchError(
            f"the seeds in {path} belong to another grid than {grid.env}", "set refine.seed_queue=false"
        )
    return [_seed(row) for row in read_parquet(path)]


def _seed(row: dict) -> Seed:
    fates = zip(row["ids"], row["survived"], row["steps"], row["returns"], row["spans"], strict=True)
    return Seed(
        Snapshot.from_json(row["snapshot"]),
        json.loads(row["played"])["id"],
        int(row["distance"]),
        {int(i): Fate(bool(s), int(n), float(r), float(p)) for i, s, n, r, p in fates},
    )
