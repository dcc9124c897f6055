"""Ctrl-C and SIGTERM: a flag while training (the loop ends in order), an exception elsewhere."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """A signal asked to stop; `code` is the exit code (130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.code = 128 + signum


class StopSignals:
    """Takes SIGINT and SIGTERM over; use as a context manager, from the main thread, after `ray.init`.

    Outside of `deferred` a signal raises `Stopped` at once. Inside, the first signal sets `signum`, and the second one
    raises, for a user who does not want to wait.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.deferred = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        # Where Ray's compiled code was running, what comes out of it is a SystemError and no longer `Stopped`.
        if self.signum is not None and error is not None and not isinstance(error, Stopped):
            raise Stopped(self.signum) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds a signal back until the block is left: raised inside Ray's start it can end the process by a fault."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.signum is not None:
            raise Stopped(self.signum)

    def _handle(self, signum: int, _: FrameType | None) -> None:
        again = self.signum is not None
        self.signum = signum
        if not self.deferred or again:
            raise Stopped(signum)
