"""What a scenario may add to its chronic: drawn maintenance, and a smooth change of loads, wind and sun.

Both are drawn from (chronic, environment seed) by a generator of their own, so a scenario is the same in any process
and the opponent's attacks stay what they are without. Both are off unless a scenario asks for them.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ace_ray.config.errors import DataError
from ace_ray.grid.grid2op_internals import forecast_horizons
from ace_ray.grid.scenarios.maintenance import plan

FloatArray = NDArray[np.float64]

_KNOT_HOURS = 3.0  # time between two independent values of the smooth change
_LARGEST = 2.0  # standard deviations
_COMMON = 0.5  # share of the variance that all loads, or all wind and solar plants, have in common
_FORGET = 0.98  # of the last step's offset of a generator, so that offsets that cancel out fade
_FIRST_HOUR, _LAST_HOUR, _WORKING_DAYS = 9, 17, 5  # of maintenance, as in the maintenance files of the L2RPN sets


@dataclass(frozen=True)
class Variation:
    """What is added to the chronic of one episode.

    Attributes:
        chronic: Name of the chronic, and with the seed what everything is drawn from.
        seed: Environment seed.
        maintenance: Chance that a working day has a line in maintenance (9 to 17 h), where the chronic plans none.
        perturbation: Standard deviation of the relative change of loads, wind and sun.
        renewable: [G] wind and solar plants.
        adjustable: [G] generators that follow demand.
        limits: [4, G] least and largest power in MW, largest ramp down and up in MW a step.
        lines: Lines that maintenance may take: the grid stays in one piece without them.
    """

    chronic: str
    seed: int
    maintenance: float
    perturbation: float
    renewable: NDArray[np.bool_]
    adjustable: NDArray[np.bool_]
    limits: FloatArray
    lines: tuple[int, ...]

    @classmethod
    def from_env(cls, env: Any, chronic: str, seed: int, maintenance: float, perturbation: float) -> "Variation":
        """Read what has to be known of the grid from a Grid2Op environment."""
        if not env.redispatching_unit_commitment_availble:
            raise DataError(
                f"environment '{env.ace_name}' does not give limits and types of its generators",
                "leave perturbation and maintenance at 0",
            )
        return cls(
            chronic=chronic,
            seed=seed,
            maintenance=maintenance,
            perturbation=perturbation,
            renewable=np.isin(env.gen_type, ("wind", "solar")),
            adjustable=np.asarray(env.gen_redispatchable, bool),
            limits=np.stack([env.gen_pmin, env.gen_pmax, env.gen_max_ramp_down, env.gen_max_ramp_up]).astype(float),
            lines=spare_lines(env),
        )

    def apply(self, series: Any) -> None:
        """Change the series of an episode (a fork of `FileSeries`); the arrays that it shares stay untouched."""
        if self.perturbation > 0:
            self._perturb(series)
        if self.maintenance > 0 and series.maintenance is None:
            self._maintain(series)

    def _draw(self, what: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{what}|{self.chronic}|{self.seed}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    # -- loads, wind and sun ----------------------------------------------------------------------------------------

    def _perturb(self, series: Any) -> None:
        """Forecasts change as much as the values that they predict, so their errors stay those of the chronic."""
        if series.load_p is None or series.prod_p is None:
            raise DataError(f"chronic '{self.chronic}' has no load_p or no prod_p to perturb", "set perturbation to 0")
        load, prod = series.load_p.astype(float), series.prod_p.astype(float)
        rng, rows = self._draw("perturbation"), len(load)
        knot = _KNOT_HOURS * 3600 / series.time_interval.total_seconds()
        load_change = self.perturbation * smooth_noise(rng, rows, load.shape[1], knot)
        wind_change = self.perturbation * smooth_noise(rng, rows, int(self.renewable.sum()), knot)
        prod_new = prod.copy()
        largest = np.maximum(self.limits[1, self.renewable], prod[:, self.renewable])  # a chronic may exceed pmax
        prod_new[:, self.renewable] = np.clip(prod[:, self.renewable] * (1 + wind_change), 0.0, largest)
        load_new = load * np.maximum(1 + load_change, 0.0)
        wanted = (load_new - load).sum(axis=1) - (prod_new - prod).sum(axis=1)
        followed = follow(prod[:, self.adjustable], wanted, self.limits[:, self.adjustable])
        prod_new[:, self.adjustable] = followed
        missing = wanted - (followed - prod[:, self.adjustable]).sum(axis=1)
        size = np.abs(load_new)
        load_new -= size * (missing / np.maximum(size.sum(axis=1), 1e-9))[:, None]
        ratio = np.divide(load_new, load, out=np.ones_like(load), where=load != 0)
        moved = {"load_p": load_new - load, "prod_p": prod_new - prod}
        if series.load_q is not None:
            moved["load_q"] = series.load_q * (ratio - 1)
        horizons = len(forecast_horizons(series))
        told = np.minimum(np.arange(rows)[:, None] + 1 + np.arange(horizons), rows - 1).ravel()
        for name, change in moved.items():
            _replace(series, name, getattr(series, name) + change)
            forecast = getattr(series, f"{name}_forecast")
            if forecast is None:
                continue
            new = forecast.astype(float)
            new[: len(told)] += change[told[: len(new)]]
            _replace(series, f"{name}_forecast", np.maximum(new, 0.0) if name == "prod_p" else new)

    # -- maintenance ------------------------------------------------------------------------------------------------

    def _maintain(self, series: Any) -> None:
        """At most one line a day, all of them lines that the grid can spare."""
        rng = self._draw("maintenance")
        planned = np.zeros((series.n_, series.n_line), dtype=bool)
        hour = 3600 / series.time_interval.total_seconds()
        first_day = series.start_datetime.replace(hour=0, minute=0)
        before = (series.start_datetime - first_day) / series.time_interval  # rows between midnight and the first row
        days = int((before + series.n_) / (24 * hour)) + 1
        for day in range(days):
            drawn, line = rng.random() < self.maintenance, int(rng.choice(self.lines))
            if drawn and (first_day.weekday() + day) % 7 < _WORKING_DAYS:
                begin, end = (max(0, round((24 * day + h) * hour - before)) for h in (_FIRST_HOUR, _LAST_HOUR))
                planned[begin:end, line] = True
        plan(series, planned)


def smooth_noise(rng: np.random.Generator, rows: int, columns: int, knot: float) -> FloatArray:
    """[rows, columns] of unit scale, smooth in time: independent knots every `knot` rows, smoothstep between them.

    Half of the variance is common to all columns.
    """
    count = int(rows / knot) + 2
    own, common = rng.standard_normal((count, columns)), rng.standard_normal((count, 1))
    knots = np.clip(np.sqrt(1 - _COMMON) * own + np.sqrt(_COMMON) * common, -_LARGEST, _LARGEST)
    at = np.arange(rows) / knot
    left = at.astype(int)
    share = at - left
    weight = (share * share * (3 - 2 * share))[:, None]
    return knots[left] * (1 - weight) + knots[left + 1] * weight


@njit(cache=True)
def follow(base: FloatArray, wanted: FloatArray, limits: FloatArray) -> FloatArray:
    """Generation that follows a changed demand, within limits and ramps.

    Args:
        base: [T, G] MW before the change, itself within the limits.
        wanted: [T] change of the total in MW.
        limits: [4, G] least and largest power, largest ramp down and up a step.

    Returns:
        [T, G] MW; the change of the total is `wanted` where the generators can follow it, else as near as they get.
    """
    steps, count = base.shape
    new = base.copy()
    low, high = np.empty(count), np.empty(count)
    for t in range(steps):
        total = 0.0
        for g in range(count):
            low[g], high[g] = min(limits[0, g], base[t, g]), max(limits[1, g], base[t, g])
            kept = base[t, g]
            if t > 0:
                low[g] = min(max(low[g], new[t - 1, g] - limits[2, g]), high[g])
                high[g] = max(min(high[g], new[t - 1, g] + limits[3, g]), low[g])
                kept += _FORGET * (new[t - 1, g] - base[t - 1, g])
            new[t, g] = min(max(kept, low[g]), high[g])
            total += new[t, g] - base[t, g]
        rest = wanted[t] - total
        room = 0.0
        for g in range(count):
            room += high[g] - new[t, g] if rest > 0 else new[t, g] - low[g]
        if room <= 0.0:
            continue
        share = min(1.0, abs(rest) / room)
        for g in range(count):
            new[t, g] += share * ((high[g] if rest > 0 else low[g]) - new[t, g])
    return new


def _replace(series: Any, name: str, value: NDArray) -> None:
    array = value.astype(getattr(series, name).dtype)
    array.flags.writeable = False
    setattr(series, name, array)


def spare_lines(env: Any) -> tuple[int, ...]:
    """Lines without any one of which the substations of an environment stay connected."""
    return _spare_lines(env.n_sub, tuple(env.line_or_to_subid), tuple(env.line_ex_to_subid))


@lru_cache(maxsize=8)
def _spare_lines(n_sub: int, origins: tuple[int, ...], extremities: tuple[int, ...]) -> tuple[int, ...]:
    def connected(lines: Iterable[int]) -> bool:
        kept = list(lines)
        ends = (np.take(origins, kept), np.take(extremities, kept))
        return connected_components(coo_matrix((np.ones(len(kept)), ends), shape=(n_sub, n_sub)))[0] == 1

    everything = range(len(origins))
    return tuple(out for out in everything if connected(line for line in everything if line != out))
