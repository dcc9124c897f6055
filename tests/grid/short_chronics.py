"""Short chronics of the 14-substation grid, cut from those of grid2op, for tests that break one."""

import shutil
from functools import lru_cache
from pathlib import Path

import pandas as pd

from ace_ray.grid.scenarios.environment import environment_folder

ENV = "l2rpn_case14_sandbox"
ROWS = 12
LINES = [
    "0_1_0",
    "0_4_1",
    "8_9_10",
    "8_13_11",
    "9_10_12",
    "11_12_13",
    "12_13_14",
    "1_2_2",
    "1_3_3",
    "1_4_4",
    "2_3_5",
    "3_4_6",
    "5_10_7",
    "5_11_8",
    "5_12_9",
    "3_6_15",
    "3_8_16",
    "4_5_17",
    "6_7_18",
    "6_8_19",
]


def write(folder: Path, rows: int = ROWS) -> Path:
    """A sound chronic with forecasts and without maintenance; returns its folder."""
    folder.mkdir(parents=True)
    for name, table in _tables().items():
        save(folder / f"{name}.csv", table.head(rows))
    for info in ("start_datetime.info", "time_interval.info"):
        shutil.copy(_source() / info, folder / info)
    return folder


def save(path: Path, table: pd.DataFrame) -> None:
    """Writes a table as Grid2Op reads it, compressed as the name says."""
    table.to_csv(path, sep=";", index=False)


def load(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep=";")


def switches(rows: int = ROWS) -> pd.DataFrame:
    """A table of maintenance or hazards: one line is out in rows 3 to 5."""
    table = pd.DataFrame(0, index=range(rows), columns=LINES)
    table.loc[3:5, "1_3_3"] = 1
    return table


@lru_cache(maxsize=1)
def _tables() -> dict[str, pd.DataFrame]:
    """Once a process: unpacking them takes most of the time."""
    return {path.name.partition(".")[0]: pd.read_csv(path, sep=";", nrows=400) for path in _source().glob("*.csv.bz2")}


def _source() -> Path:
    return environment_folder(ENV) / "chronics" / "0000"
