"""Data sets: where the chronics of an environment lie, and which of them train, validate and test.

A data set is named by an id: ``packaged`` (weeks that ship with this package), ``shipped`` (what the environment
itself brings) or the absolute path of a folder of chronics. A split goes by chronic and is written in a `split.json`
beside the chronics (``{"train": [...], "validation": [...], "test": [...]}``); sets known by the names of their
chronics (`known_splits.json`) have the split of their documentation, others are sorted by name and cut 70/15/15. Two
chronics: train and validation share the first, test has the second; one chronic serves all three. What shares a
chronic with training is told apart by environment seed and start step only, and labelled in-sample.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ace_ray.config.errors import DataError
from ace_ray.grid.scenarios.chronic_files import check_rows, count_rows, reading

PACKAGED = Path(__file__).resolve().parents[2] / "data"
PACKAGED_ENVS = ("l2rpn_neurips_2020_track1", "l2rpn_icaps_2021")  # one grid, the same names and limits
SPLITS = ("train", "validation", "test")
_KNOWN = Path(__file__).parent / "known_splits.json"


@dataclass(frozen=True)
class DataSet:
    """Chronics of one environment.

    Attributes:
        id: `packaged`, `shipped` or the absolute folder; what a scenario names.
        path: Folder of chronics.
        chronics: Names of the chronics, sorted.
        split: Chronics per split; those of validation and test overlap training only where `in_sample` says so.
    """

    id: str
    path: str
    chronics: tuple[str, ...]
    split: dict[str, tuple[str, ...]]

    def in_sample(self, chronics: Iterable[str]) -> bool:
        """Whether training sees the injections of one of these chronics."""
        return not set(self.split["train"]).isdisjoint(chronics)

    def steps(self, chronic: str) -> int:
        """Environment steps of a whole chronic (its rows without the initial state)."""
        if chronic not in self.chronics:
            raise DataError(
                f"chronic '{chronic}' is not in data set '{self.id}' ({self.path})",
                f"choose one of: {', '.join(self.chronics[:8])}{' ...' if len(self.chronics) > 8 else ''}",
            )
        return _steps(os.path.join(self.path, chronic))


@lru_cache(maxsize=4096)
def _steps(folder: str) -> int:
    with reading(folder):
        return check_rows(folder, {"series": count_rows(folder)}) - 1


def data_id(env: str, data: str | None) -> str:
    """The id of the data set that a setting asks for (None: packaged weeks where they fit, else shipped ones)."""
    if data is None or data == "":
        return "packaged" if os.path.basename(env) in PACKAGED_ENVS else "shipped"
    if data in ("packaged", "shipped"):
        if data == "packaged" and os.path.basename(env) not in PACKAGED_ENVS:
            raise DataError(
                f"the packaged weeks are for {' and '.join(PACKAGED_ENVS)}, not for '{env}'",
                "set grid.data=shipped, or to a folder of chronics made for this environment",
            )
        return data
    return str(Path(data).expanduser().resolve())


def open_data(env_path: str, data: str) -> DataSet:
    """The data set `data` (an id of `data_id`) of the environment whose folder is `env_path`."""
    folder = {"packaged": PACKAGED, "shipped": Path(env_path) / "chronics"}.get(data, Path(data))
    if not folder.is_dir():
        raise DataError(f"no folder of chronics at {folder}", "set grid.data to a folder with one subfolder a chronic")
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))))
    if not names:
        raise DataError(f"{folder} has no chronics", "each chronic is a subfolder with load_p, load_q, prod_p files")
    return DataSet(id=data, path=str(folder), chronics=names, split=_split(folder, names))


def _split(folder: Path, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    written = folder / "split.json"
    if written.is_file():
        return _written_split(written, names)
    for known in json.loads(_KNOWN.read_text(encoding="utf-8")):
        listed = {name: key for key in SPLITS for name in known[key]}
        if set(names) <= set(listed):
            return {key: tuple(name for name in names if listed[name] == key) for key in SPLITS}
    if len(names) < 3:
        return {"train": names[:1], "validation": names[:1], "test": names[-1:]}
    held_out = max(1, round(0.15 * len(names)))
    cut = len(names) - 2 * held_out
    return {"train": names[:cut], "validation": names[cut : cut + held_out], "test": names[cut + held_out :]}


def _written_split(path: Path, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        split = {key: tuple(sorted(content[key])) for key in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a split: {error!r}", "it needs the lists train, validation and test") from error
    listed = [name for part in split.values() for name in part]
    if len(set(listed)) != len(listed) or not set(listed) <= set(names):
        raise DataError(f"{path} lists a chronic twice, or one that does not exist", "correct the split")
    return split
