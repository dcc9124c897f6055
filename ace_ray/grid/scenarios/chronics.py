"""Time series with fast resets.

Grid2Op's `Multifolder` parses the CSV files of a chronic at every reset (about 85 ms for a week on the 36-substation
grid), and its `MultifolderWithCache` holds whole data sets and copies them with every `env.copy()`. Rebuilding a
decision means thousands of resets and copies, so here a parsed chronic is kept once a process, in a cache bounded in
bytes, its arrays read-only and shared by every reset and every copy. A reset is otherwise Grid2Op's own, seeds
included: the same scenario gives the same episode as with `Multifolder`.

A chronic decides by its files how it is read, so one set may mix kinds: `maintenance_meta.json` means maintenance drawn
from the environment seed, `maintenance.csv` planned maintenance (where it has both, the environment's own class
decides), no `*_forecasted` files forecasts that repeat the present values. On top of that a scenario may ask for a
`Variation`: it changes the fork that one episode plays, never what is cached.
"""

import bz2
import copy
import gzip
import lzma
import os
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from grid2op.Chronics import (
    GridStateFromFile,
    GridStateFromFileWithForecasts,
    GridStateFromFileWithForecastsWithMaintenance,
    Multifolder,
)
from grid2op.Exceptions import Grid2OpException

from ace_ray.config.errors import DataError
from ace_ray.grid.scenarios.maintenance import draw, plan
from ace_ray.grid.scenarios.variation import Variation

MAINTENANCE_META = "maintenance_meta.json"
_ENDINGS = (".csv", ".csv.bz2", ".zip", ".csv.gzip", ".csv.xz")  # those that Grid2Op reads
_COUNTED = ("prod_p", "load_p", "prod_v", "load_q")  # the first one present tells the number of rows
_CHUNK = 1 << 20


def count_rows(folder: str) -> int:
    """Rows of a chronic (its initial state included), counted without parsing; 0 where it holds no series."""
    path = next(_files(folder, _COUNTED), None)
    return 0 if path is None else _count_lines(path) - 1


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


def _files(folder: str, names: Iterable[str]) -> Iterator[str]:
    candidates = (os.path.join(folder, name + ending) for name in names for ending in _ENDINGS)
    return (path for path in candidates if os.path.exists(path))


def _count_lines(path: str) -> int:
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0])
            return text.count(b"\n") + (not text.endswith(b"\n"))
    opener: Any = {".bz2": bz2.open, ".gzip": gzip.open, ".xz": lzma.open}.get(os.path.splitext(path)[1], open)
    lines, last = 0, b"\n"
    with opener(path, "rb") as stream:
        while block := stream.read(_CHUNK):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


class FileSeries(GridStateFromFileWithForecasts):
    """Injections, forecasts and planned maintenance from files; forks and deep copies share the parsed arrays."""

    @staticmethod
    def _file_len(path: str, ending: str) -> int:
        return _count_lines(path) - 1

    def check(self) -> None:
        """Raise ValueError where a series has too few rows, or a value that is no number."""
        for name in ("load_p", "load_q", "prod_p", "prod_v"):
            for series, rows in ((name, self.n_), (f"{name}_forecast", self.n_ * self._nb_forecast)):
                array = getattr(self, series)
                if array is None:
                    continue
                if len(array) < rows:
                    raise ValueError(f"{series} has {len(array)} rows, not {rows}")
                if not np.isfinite(array).all():
                    raise ValueError(f"{series} has values that are no numbers")

    def freeze(self) -> int:
        """Make every array read-only; returns their size in bytes."""
        size = 0
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
                size += value.nbytes
        return size

    def fork(self, max_iter: int, seed: int) -> Any:
        """The same series at its first row, for an episode of at most `max_iter` steps (-1: all of them)."""
        new = copy.copy(self)
        new.space_prng = np.random.RandomState()
        new.seed(seed)
        if max_iter > 0:
            new._max_iter = min(max_iter, self.n_ - 1)
        return new

    def fast_forward(self, nb_timestep: int) -> None:
        """Skip rows at once instead of one by one (nothing but counters changes)."""
        self.current_index += nb_timestep
        self.curr_iter += nb_timestep
        self.current_datetime += nb_timestep * self.time_interval
        if self.current_index >= self.tmp_max_index:
            raise StopIteration

    def __deepcopy__(self, memo: dict) -> Any:
        new = copy.copy(self)
        new.space_prng = copy.deepcopy(self.space_prng, memo)
        memo[id(self)] = new
        return new

    def check_validity(self, backend: Any) -> None:
        if self._has_forecasts():
            super().check_validity(backend)
        else:
            GridStateFromFile.check_validity(self, backend)

    def _has_forecasts(self) -> bool:
        return self.load_p_forecast is not None or self.prod_p_forecast is not None

    def forecasts(self) -> list:
        """Forecasts of the file; without one, the present values for every horizon (persistence)."""
        if self._has_forecasts():
            return super().forecasts()
        present = {
            name: 1.0 * series[self.current_index]
            for name in ("load_p", "load_q", "prod_p", "prod_v")
            if (series := getattr(self, name)) is not None
        }
        return [(self.current_datetime + timedelta(minutes=h), {"injection": dict(present)}) for h in self._h_forecast]


class FileSeriesDrawnMaintenance(FileSeries, GridStateFromFileWithForecastsWithMaintenance):
    """The same with maintenance drawn from the environment seed, as `maintenance_meta.json` says."""

    def fork(self, max_iter: int, seed: int) -> Any:
        new = super().fork(max_iter, seed)
        new._sample_maintenance()
        return new

    def _sample_maintenance(self) -> None:
        plan(self, draw(self))


class SeriesCache:
    """Parsed chronics of this process, least recently used first out, bounded in bytes.

    One instance serves all environments of the process; copying an environment copies no series.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._items: OrderedDict[tuple, tuple[FileSeries, int]] = OrderedDict()
        self.held_bytes = 0

    def get(self, key: tuple) -> Any | None:
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: tuple, series: FileSeries) -> None:
        size = series.freeze()
        self._items[key] = (series, size)
        self.held_bytes += size
        while self.held_bytes > self.capacity_bytes and len(self._items) > 1:
            _, (_, freed) = self._items.popitem(last=False)
            self.held_bytes -= freed

    def __deepcopy__(self, memo: dict) -> "SeriesCache":
        return self


_CACHE = SeriesCache(capacity_bytes=0)


def reserve_cache(megabytes: int) -> None:
    """Allow the cache of this process at least this much memory."""
    _CACHE.capacity_bytes = max(_CACHE.capacity_bytes, megabytes << 20)


def cached_bytes() -> int:
    """Memory of the parsed chronics that this process holds."""
    return _CACHE.held_bytes


class CachedMultifolder(Multifolder):
    """Grid2Op's `Multifolder` with parsed chronics kept in memory (see the module docstring)."""

    _max_iter: int

    def __init__(self, path: str, gridvalueClass: type = GridStateFromFile, **kwargs: Any) -> None:
        super().__init__(path=path, gridvalueClass=gridvalueClass, **kwargs)
        self.variation: Variation | None = None  # of the episodes that start from now on

    def initialize(
        self,
        order_backend_loads: Sequence[str],
        order_backend_prods: Sequence[str],
        order_backend_lines: Sequence[str],
        order_backend_subs: Sequence[str],
        names_chronics_to_backend: dict | None = None,
    ) -> None:
        """Start the chronic chosen last; same order of random draws as `Multifolder.initialize`."""
        orders = (order_backend_loads, order_backend_prods, order_backend_lines, order_backend_subs)
        self._order_backend_loads, self._order_backend_prods = order_backend_loads, order_backend_prods
        self._order_backend_lines, self._order_backend_subs = order_backend_lines, order_backend_subs
        self._names_chronics_to_backend = names_chronics_to_backend
        self.n_gen, self.n_load, self.n_line = len(orders[1]), len(orders[0]), len(orders[2])
        if self._order is None:
            self.reset()
        path = str(self.subpaths[self._order[self._prev_cache_id]])
        seed = self.space_prng.randint(np.iinfo(np.int32).max)
        series = self._parsed(path, orders, names_chronics_to_backend)
        self.data = series.fork(self._max_iter, seed)
        self.start_datetime = self.data.start_datetime
        self.current_datetime = self.data.current_datetime
        if self.action_space is not None:
            self.data.action_space = self.action_space
        self._max_iter = self.data.max_iter
        if self.variation is not None:
            self.variation.apply(self.data)

    def _parsed(self, path: str, orders: tuple, names: dict | None) -> Any:
        drawn = draws_maintenance(path, self.gridvalueClass)
        key = (path, drawn, tuple(tuple(map(str, order)) for order in orders))
        series = _CACHE.get(key)
        if series is None:
            series_class = FileSeriesDrawnMaintenance if drawn else FileSeries
            series = series_class(
                path=path, time_interval=self.time_interval, sep=self.sep, max_iter=-1, **self._kwargs
            )
            series.seed(0)
            try:
                series.initialize(*orders, names_chronics_to_backend=names)
                series.check()
            except (Grid2OpException, OSError, EOFError, ValueError, KeyError, lzma.LZMAError) as error:
                raise DataError(
                    f"chronic {path} cannot be read: {type(error).__name__}: {error}",
                    "mend or remove its folder; its series must name the loads and generators of this environment",
                ) from error
            _CACHE.put(key, series)
        return series
