"""Means and their intervals over episodes that share chronics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
FEWEST_CHRONICS = 3  # with fewer, chronics cannot be resampled: intervals are over seeds only
OVER_CHRONICS = "chronics, then seeds within a chronic"
OVER_SEEDS = "seeds only (fewer than 3 chronics: says nothing about other chronics)"
NO_INTERVAL = "none (one episode a chronic on fewer than 3 chronics)"


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval; `low` and `high` are None where nothing can be resampled."""

    mean: float
    low: float | None
    high: float | None
    over: str

    @property
    def ci95(self) -> list[float] | None:
        """`[low, high]`, or None."""
        return None if self.low is None or self.high is None else [self.low, self.high]

    @property
    def contains_zero(self) -> bool | None:
        """Whether 0 lies in the interval; None without one."""
        return None if self.low is None or self.high is None else self.low <= 0.0 <= self.high


def interval(values: Sequence[float], chronics: Sequence[str], seed: int = 0) -> Interval:
    """Mean of `values` with a two-stage bootstrap: chronics are resampled, then the episodes within each of them.

    Episodes on one chronic share its injections and are no independent draws; to resample them alone would make the
    interval too narrow. With fewer than three chronics only the episodes within each chronic (the environment seeds)
    are resampled, and `over` says so. The mean is that of all episodes, whatever their number a chronic.

    Args:
        values: one number an episode, `[n]`, n >= 1.
        chronics: the chronic of each episode, `[n]`.
        seed: of the resampling; the same input gives the same interval on every machine.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0 or data.size != len(chronics):
        raise ValueError(f"{data.size} values for {len(chronics)} chronics")
    groups = [np.flatnonzero(np.asarray(chronics) == name) for name in sorted(set(chronics))]
    mean = float(data.mean())
    resample_chronics = len(groups) >= FEWEST_CHRONICS
    if not resample_chronics and all(len(group) == 1 for group in groups):
        return Interval(mean, None, None, NO_INTERVAL)
    generator = np.random.default_rng(seed)
    shape = (RESAMPLES, len(groups))
    every_chronic = np.tile(np.arange(len(groups)), (RESAMPLES, 1))
    drawn = generator.integers(len(groups), size=shape) if resample_chronics else every_chronic
    total, count = np.zeros(shape), np.zeros(shape)
    for g, group in enumerate(groups):
        taken = drawn == g
        rows = generator.integers(len(group), size=(int(taken.sum()), len(group)))
        total[taken] = data[group][rows].sum(axis=1)
        count[taken] = len(group)
    means = total.sum(axis=1) / count.sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean, float(low), float(high), OVER_CHRONICS if resample_chronics else OVER_SEEDS)
