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

import copy
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from grid2op.Chronics import (
    GridStateFromFile,
    GridStateFromFileWithForecasts,
    GridStateFromFileWithForecastsWithMaintenance,
    Multifolder,
)

from ace_ray.config.errors import DataError
from ace_ray.grid.scenarios.chronic_files import (
    check_columns,
    check_maintenance_meta,
    check_rows,
    draws_maintenance,
    reading,
    unreadable,
)
from ace_ray.grid.scenarios.maintenance import PlannedOutage, draw, plan
from ace_ray.grid.scenarios.variation import Variation

_ELEMENTS = {  # by the first word of a table: Grid2Op's key of its elements, and what they are
    "load": ("loads", "load"),
    "prod": ("prods", "generator"),
    "hazards": ("lines", "line"),
    "maintenance": ("lines", "line"),
}


class FileSeries(GridStateFromFileWithForecasts):
    """Injections, forecasts and planned maintenance from files; forks and deep copies share the parsed arrays."""

    _rows: int  # of every table of the series

    def _init_date_time(self, path: str) -> None:
        super()._init_date_time(path)
        if self.time_interval <= timedelta(0):
            raise unreadable(path, f"time_interval.info tells an interval of {self.time_interval}")

    def _get_data(self, data_name: str, chunksize: int | None = -1, nrows: int | None = None) -> Any:
        """Grid2Op's own, which cuts forecasts to the length of the series: one row more, so that a rest is seen."""
        return super()._get_data(data_name, chunksize, None if nrows is None else nrows + 1)

    def _get_orders(self, load_p: Any, load_q: Any, prod_p: Any, prod_v: Any, *rest: Any) -> tuple:
        """Grid2Op's own, after a check of the tables: first those of the series, then those of the forecasts."""
        ahead = self.n_ is not None
        series = {"load_p": load_p, "load_q": load_q, "prod_p": prod_p, "prod_v": prod_v}
        hazards, maintenance = rest[:2]
        tables = {name + "_forecasted" * ahead: table for name, table in series.items()}
        tables |= {"hazards": hazards, "maintenance": maintenance}
        rows = {}
        for name, table in tables.items():
            if table is not None:
                key, kind = _ELEMENTS[name.partition("_")[0]]
                check_columns(self.path, name, table, self.names_chronics_to_backend[key], kind)
                rows[name] = len(table)
        if not ahead:
            self._rows = check_rows(self.path, rows)
        elif wrong := [f"{name} has {n} rows" for name, n in rows.items() if n != self._rows * self._nb_forecast]:
            raise unreadable(
                self.path,
                f"{', '.join(wrong)}, and {self._rows} rows with {self._nb_forecast} forecasts each need "
                f"{self._rows * self._nb_forecast}",
            )
        return super()._get_orders(load_p, load_q, prod_p, prod_v, *rest)

    def _file_len(self, path: str, ending: str) -> int:
        return self._rows

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

    def initialize(self, loads: Any, prods: Any, lines: Any, subs: Any, names_chronics_to_backend: Any = None) -> None:
        super().initialize(loads, prods, lines, subs, names_chronics_to_backend)
        check_maintenance_meta(self.path, self, lines)

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
        self.outage: PlannedOutage | None = None  # in the episodes that start from now on
        self._named = False  # whether the next chronic was asked for by its name

    def tell_id(self, id_num: int | str, previous: bool = False) -> None:
        super().tell_id(id_num, previous)
        self._named = isinstance(id_num, str)

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
        seed = self.space_prng.randint(np.iinfo(np.int32).max)
        series = self._chosen(orders, names_chronics_to_backend)
        self.data = series.fork(self._max_iter, seed)
        self.start_datetime = self.data.start_datetime
        self.current_datetime = self.data.current_datetime
        if self.action_space is not None:
            self.data.action_space = self.action_space
        self._max_iter = self.data.max_iter
        if self.variation is not None:
            self.variation.apply(self.data)
        if self.outage is not None:
            self.outage.apply(self.data)

    def _chosen(self, orders: tuple, names: dict | None) -> Any:
        """The series of the chronic at hand; where nobody named it, the first one from there on that can be read."""
        named, self._named = self._named, False
        first: DataError | None = None
        for _ in range(1 if named else len(self._order)):
            try:
                return self._parsed(self.get_id(), orders, names)
            except DataError as error:
                first = first or error
                if not named:
                    self.next_chronics()
        assert first is not None
        raise first

    def _parsed(self, path: str, orders: tuple, names: dict | None) -> Any:
        drawn = draws_maintenance(path, self.gridvalueClass)
        key = (path, drawn, tuple(tuple(map(str, order)) for order in orders))
        series = _CACHE.get(key)
        if series is None:
            series_class = FileSeriesDrawnMaintenance if drawn else FileSeries
            with reading(path):
                series = series_class(
                    path=path, time_interval=self.time_interval, sep=self.sep, max_iter=-1, **self._kwargs
                )
                series.seed(0)
                series.initialize(*orders, names_chronics_to_backend=names)
            _CACHE.put(key, series)
        return series
