"""The files of a chronic: which there are, how many rows they have, and whether they agree with grid and each other.

Grid2Op reads what is there and says nothing of what is not: a column that is missing shifts the others or breaks the
simulator in mid-episode, and a file that is shorter than the others ends the episode early. So every table is checked
once, when its chronic is read, and all that can go wrong meanwhile is one kind of error.
"""

import bz2
import gzip
import lzma
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from grid2op.Chronics import GridStateFromFileWithForecastsWithMaintenance

from ace_ray.config.errors import AceError, DataError

MAINTENANCE_META = "maintenance_meta.json"
_ENDINGS = (".csv", ".csv.bz2", ".zip", ".csv.gzip", ".csv.xz")  # those that Grid2Op reads
_COUNTED = ("prod_p", "load_p", "prod_v", "load_q")  # the first one present tells the number of rows
_MONTHS = 12
_NAMED = 5  # elements that a message names at most
_LONGEST = 300  # characters of a foreign message


@contextmanager
def reading(folder: str) -> Iterator[None]:
    """What goes wrong in the block is a DataError that names the folder of the chronic.

    pandas, the archives, `json` and Grid2Op raise dozens of kinds for a file that is torn, empty or not a table.
    """
    try:
        yield
    except (AceError, MemoryError):
        raise
    except Exception as error:
        raise unreadable(folder, f"{type(error).__name__}: {shortened(error)}") from error


def unreadable(folder: str, problem: str) -> DataError:
    """The error for a chronic that cannot be played."""
    return DataError(
        f"chronic {folder} cannot be read: {problem}",
        "fix or remove its folder; its files must name the loads, generators and lines of this environment, "
        "with one row per step",
    )


def shortened(error: BaseException) -> str:
    """The first line of an error of Grid2Op or pandas, whose messages may list a whole grid."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= _LONGEST else lines[0][:_LONGEST] + " ..."


def count_rows(folder: str) -> int:
    """Rows of a chronic (its initial state included), counted without parsing; 0 where it holds no series."""
    path = next(_files(folder, _COUNTED), None)
    return 0 if path is None else max(0, _count_lines(path) - 1)


def draws_maintenance(folder: str, series_class: type) -> bool:
    """Whether the maintenance of a chronic is drawn from the environment seed.

    Args:
        folder: Of the chronic.
        series_class: What the environment reads its chronics with.
    """
    if not os.path.exists(os.path.join(folder, MAINTENANCE_META)):
        return False
    planned = next(_files(folder, ("maintenance",)), None)
    return planned is None or issubclass(series_class, GridStateFromFileWithForecastsWithMaintenance)


def check_columns(folder: str, file: str, table: pd.DataFrame, known: Mapping[str, Any], kind: str) -> None:
    """Raise DataError unless a table has one column of numbers for each element.

    Args:
        folder: Of the chronic.
        file: Name of the table.
        table: As read.
        known: Element names, as chronics write them.
        kind: What the elements are: `load`, `generator` or `line`.
    """
    found = set(map(str, table.columns))
    missing, foreign = sorted(set(known) - found), sorted(found - set(known))
    problems = []
    if missing:
        problems.append(f"no column for {kind} {_listed(missing)}")
    if foreign:
        problems.append(f"a column {_listed(foreign)}, which is no {kind} of this grid")
    if problems:
        raise unreadable(folder, f"{file} has {' and '.join(problems)}")
    if not _all_numbers(table):
        name = next(name for name in table.columns if not _all_numbers(table[name]))
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float32)
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise unreadable(folder, f"{file} has '{table[name].iloc[row]}' for {name} in row {row}, which is no number")


def check_rows(folder: str, rows: Mapping[str, int]) -> int:
    """The number of rows that all tables of a chronic share; raises DataError where they differ or there is no step."""
    if len(set(rows.values())) > 1:
        raise unreadable(
            folder, "its files differ in length: " + ", ".join(f"{n} {rows[n]} rows" for n in sorted(rows))
        )
    count = next(iter(rows.values()), 0)
    if count < 2:
        raise unreadable(folder, f"its series have {count} rows, of which the first is the initial state")
    return count


def check_maintenance_meta(folder: str, meta: Any, lines: Iterable[str]) -> None:
    """Raise DataError where `maintenance_meta.json` names lines that the grid has not, or lacks a month.

    Args:
        folder: Of the chronic.
        meta: Series that have read it.
        lines: Of the grid.
    """
    foreign = sorted(set(meta.line_to_maintenance) - set(map(str, lines)))
    if foreign:
        raise unreadable(folder, f"{MAINTENANCE_META} names {_listed(foreign)}, which is no line of this grid")
    for field in ("daily_proba_per_month_maintenance", "max_daily_number_per_month_maintenance"):
        if len(getattr(meta, field)) != _MONTHS:
            raise unreadable(folder, f"{MAINTENANCE_META} has {len(getattr(meta, field))} values of {field}, not 12")


def _all_numbers(values: pd.DataFrame | pd.Series) -> bool:
    try:
        return bool(np.isfinite(values.to_numpy(dtype=np.float32)).all())
    except (TypeError, ValueError):
        return False


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _files(folder: str, names: Iterable[str]) -> Iterator[str]:
    candidates = (os.path.join(folder, name + ending) for name in names for ending in _ENDINGS)
    return (path for path in candidates if os.path.exists(path))


def _count_lines(path: str) -> int:
    """Lines that are not blank."""
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            return sum(not line.isspace() for line in archive.read(archive.namelist()[0]).splitlines() if line)
    opener: Any = {".bz2": bz2.open, ".gzip": gzip.open, ".xz": lzma.open}.get(os.path.splitext(path)[1], open)
    with opener(path, "rb") as stream:
        return sum(not line.isspace() for line in stream)
