"""Episodes that were given up because their chronic could not be read or played: told once a chronic, and counted."""

import logging
from collections import Counter
from collections.abc import Sequence

from ace_ray.config.errors import DataError

log = logging.getLogger(__name__)

LIMIT = 20  # given up with nothing played in between


class Unplayable:
    """Counts of one start of a run.

    Attributes:
        counts: Episodes given up, by chronic.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._in_a_row = 0

    def add(self, given_up: Sequence[tuple[str, str]], played: bool) -> None:
        """Takes the report of a rollout worker.

        Args:
            given_up: (chronic, error) of each episode.
            played: Whether the worker played anything else.

        Raises:
            DataError: Nothing can be played; names the chronics and the last error.
        """
        for chronic, error in given_up:
            if chronic not in self.counts:
                log.warning("chronic %s: an episode was given up: %s", chronic, error)
            self.counts[chronic] += 1
        self._in_a_row = 0 if played else self._in_a_row + len(given_up)
        if self._in_a_row >= LIMIT:
            chronic, error = given_up[-1]
            raise DataError(
                f"no episode can be played: {self._in_a_row} in a row were given up, in {len(self.counts)} chronic(s); "
                f"the last one, {chronic}: {error}",
                "fix or remove these chronics; check grid.data and the versions of grid2op and lightsim2grid",
            )

    def summary(self) -> str:
        """One sentence; '' where nothing was given up."""
        if not self.counts:
            return ""
        chronics = ", ".join(f"{name} ({count})" for name, count in self.counts.most_common(10))
        return f"{self.counts.total()} episodes were given up because their chronic cannot be played: {chronics}"
