"""Whether the run that a deployment serves is still there, told by a file that its driver touches."""

import time
from collections.abc import Callable
from pathlib import Path


class Heartbeat:
    """Watches the time of change of one file.

    Only changes count, measured on the clock of this process: clocks of different nodes may disagree. A file that was
    never seen says nothing, and its run is taken for alive.

    Args:
        file: that the run's driver touches while it lives.
        limit_s: seconds without a change after which the run is gone.
        clock: monotonic seconds.
    """

    def __init__(self, file: Path, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._limit_s, self._clock = file, limit_s, clock
        self._seen: int | None = None
        self._since = clock()

    def gone(self) -> bool:
        """Look at the file; whether it has stood still for too long."""
        try:
            changed: int | None = self._file.stat().st_mtime_ns
        except OSError:
            changed = self._seen
        if changed != self._seen:
            self._seen, self._since = changed, self._clock()
        return self._seen is not None and self._clock() - self._since > self._limit_s
