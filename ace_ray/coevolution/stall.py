"""Notices that nothing is collected any more, and remembers why.

RLlib restarts a failed runner silently and goes on reporting success with empty results, so somebody has to look at the
clock. Pure: the clock is injected and Ray is outside.
"""

import time
from collections.abc import Callable

from ace_ray.config.errors import WorkerError


class StallWatch:
    """Fails when no decision came for `limit_s` seconds.

    Args:
        limit_s: `rollout.stalled_s`.
        clock: Seconds; injected by tests.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit_s
        self._clock = clock
        self._since = clock()
        self._error = ""
        self.errors = 0

    def decisions(self, n: int) -> None:
        """Decisions came, or collection is held back on purpose (n > 0 either way)."""
        if n > 0:
            self._since = self._clock()

    def error(self, role: str, text: str) -> bool:
        """A remote error; returns whether it differs from the last one (and so deserves a line in the log)."""
        self.errors += 1
        told = f"{role}: {text.strip()}"
        new = told != self._error
        self._error = told
        return new

    def check(self) -> None:
        """Raises when the limit has passed.

        Raises:
            WorkerError: Naming the last remote error.
        """
        silent = self._clock() - self._since
        if silent > self._limit:
            cause = f"last remote error ({self.errors} in all):\n{self._error}" if self._error else "no remote error"
            raise WorkerError(
                f"no rollout worker delivered a decision for {silent:.0f} s; {cause}",
                "fix the cause and resume the run; rollout.stalled_s sets how long to wait",
            )
