"""Maintenance of an episode: what is drawn as Grid2Op draws it, and the arrays that its series tell it by."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DAY_S = 86_400


@dataclass(frozen=True)
class PlannedOutage:
    """Maintenance of one line, besides whatever its chronic plans.

    Attributes:
        line: which.
        begin, end: first row of the chronic that it covers, and the first one after it.
    """

    line: int
    begin: int
    end: int

    def apply(self, series: Any) -> None:
        """Adds it to the series of an episode; the arrays that it shares with others stay untouched."""
        shape = (series.n_, series.n_line)
        planned = np.zeros(shape, bool) if series.maintenance is None else np.array(series.maintenance, bool)
        planned[self.begin : self.end, self.line] = True
        plan(series, planned)


def draw(series: Any) -> NDArray[np.bool_]:
    """Maintenance by the parameters of a `maintenance_meta.json`, drawn from `series.space_prng`.

    Draw for draw what `GridStateFromFileWithForecastsWithMaintenance` does, which spends most of a reset on finding
    out which days a chronic has. Like there, days begin at the first row, and the last one has none.

    Args:
        series: Initialised series of that class.

    Returns:
        [T, L] whether a line is in maintenance.
    """
    planned = np.zeros((series.n_, series.n_line), dtype=bool)
    chosen = np.flatnonzero([name in series.line_to_maintenance for name in series.name_line])
    if not len(chosen):
        return planned
    step = series.time_interval.total_seconds()
    rows_a_day = int(_DAY_S / step)
    begin, end = (int(h * 3600 / step) for h in (series.maintenance_starting_hour, series.maintenance_ending_hour))
    first = series.start_datetime.date()
    last = (series.start_datetime + (series.n_ - 1) * series.time_interval).date()
    for day in range((last - first).days):
        date = first + timedelta(days=day)
        if date.weekday() not in series.maintenance_day_of_week:
            continue
        chance = series.daily_proba_per_month_maintenance[date.month - 1]
        most = series.max_daily_number_per_month_maintenance[date.month - 1]
        drawn = series.space_prng.choice([False, True], p=[1.0 - chance, chance], size=len(chosen))
        if drawn.sum() > most:
            dropped = series.space_prng.choice(drawn.sum(), replace=False, size=drawn.sum() - most)
            drawn[np.flatnonzero(drawn)[dropped]] = False
        planned[day * rows_a_day + begin : day * rows_a_day + min(end, rows_a_day), chosen[drawn]] = True
    return planned


def plan(series: Any, planned: NDArray[np.bool_]) -> None:
    """Give a series its maintenance [T, L], with the time to the next one and its duration, as Grid2Op tells them."""
    time = np.full(planned.shape, -1, dtype=np.int32)
    duration = np.zeros(planned.shape, dtype=np.int32)
    for line in np.flatnonzero(planned.any(axis=0)):
        column = planned[:, line].astype(np.int32)
        time[:, line] = series.get_maintenance_time_1d(column)
        duration[:, line] = series.get_maintenance_duration_1d(column)
    series.maintenance, series.maintenance_time, series.maintenance_duration = planned, time, duration
