"""Banks of drills: frozen lists of ids in small Parquet files, one a family and split.

The order of a bank is drawn once, so its first N drills are a fair sample, and the same one for everybody.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from ace_ray.config.errors import ConfigError, DataError
from ace_ray.config.files import replacing
from ace_ray.grid.scenarios.drills import Drill, Family
from ace_ray.grid.scenarios.scenario import Scenario

SHIPPED = Path(__file__).parent / "banks"
FAMILIES: tuple[Family, ...] = get_args(Family)
SCHEMA = pa.schema(
    [
        pa.field("chronic", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("env_seed", pa.int32(), nullable=False),
        pa.field("start_step", pa.int32(), nullable=False),
        pa.field("warm_up", pa.int16(), nullable=False),
        pa.field("line", pa.int16(), nullable=False),
        pa.field("outage", pa.int16(), nullable=False),
        pa.field("steps", pa.int16(), nullable=False),
    ]
)


@dataclass(frozen=True)
class DrillBank:
    """Drills of one family and split.

    Attributes:
        family: how lines are lost.
        env: Grid2Op environment.
        data: data set that the bank was made from (`packaged`, `shipped` or the name of a folder); whoever plays it
            says where the chronics lie.
        split: whose chronics they are.
        drills: in the frozen order.
    """

    family: Family
    env: str
    data: str
    split: str
    drills: tuple[Drill, ...]

    def taken(self, limit: int | None = None, lines: Sequence[int] = ()) -> tuple[Drill, ...]:
        """The first `limit` drills; where `lines` are named, drill i loses line `lines[i % len(lines)]` instead."""
        drills = self.drills[:limit]
        if not lines:
            return drills
        return tuple(replace(drill, line=lines[i % len(lines)]) for i, drill in enumerate(drills))


def bank_file(folder: Path, family: str, split: str) -> Path:
    """Where a folder of banks keeps one."""
    return folder / f"{family}-{split}.parquet"


def shipped_bank(family: str, split: str) -> Path:
    """The file of a bank that ships with this package.

    Raises:
        ConfigError: there is none.
    """
    path = bank_file(SHIPPED, family, split)
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in SHIPPED.glob("*.parquet")))
        raise ConfigError(
            f"there is no bank of drills {path.stem}", f"take one of {known}, or a file of ace bench drills --make-bank"
        )
    return path


def write_bank(bank: DrillBank, path: str | os.PathLike[str]) -> None:
    """Writes a bank through a temporary file."""
    about = {"family": bank.family, "env": bank.env, "data": bank.data, "split": bank.split}
    rows = [
        {
            "chronic": drill.scenario.chronic,
            "env_seed": drill.scenario.env_seed,
            "start_step": drill.scenario.start_step,
            "warm_up": drill.warm_up,
            "line": drill.line,
            "outage": drill.outage,
            "steps": drill.scenario.max_steps,
        }
        for drill in bank.drills
    ]
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata(about))
    with replacing(Path(path), parents=True) as unfinished:
        pq.write_table(table, unfinished, compression="zstd", compression_level=19, write_statistics=False)


def read_bank(path: str | os.PathLike[str], data: str) -> DrillBank:
    """Reads a bank.

    Args:
        path: of the file.
        data: id of the data set that holds its chronics (see `ace_ray.grid.scenarios.data`).

    Raises:
        DataError: it is no bank of drills.
    """
    try:
        table = pq.read_table(path)
        about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        family = next(one for one in FAMILIES if one == about["family"])
        drills = tuple(_drill(row, family, about["env"], data) for row in table.to_pylist())
        return DrillBank(family, about["env"], about["data"], about["split"], drills)
    except (OSError, KeyError, StopIteration, TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path} is no bank of drills: {type(error).__name__}: {error}",
            "name a family (attack, load-rise) or a file that ace bench drills --make-bank wrote",
        ) from error


def _drill(row: dict[str, Any], family: Family, env: str, data: str) -> Drill:
    scenario = Scenario(env, data, row["chronic"], row["env_seed"], row["start_step"], row["steps"])
    return Drill(family, scenario, row["warm_up"], row["line"], row["outage"])
