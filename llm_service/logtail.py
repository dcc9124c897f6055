"""Where the engine process writes, and its last lines: what an error about a dead engine shows."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

_STDERR = Path("/proc/self/fd/2")
_READ = 64 * 1024


def stderr_file() -> Path | None:
    """The file that this process's stderr goes to; None for a terminal or pipe."""
    try:
        return _STDERR.resolve() if stat.S_ISREG(_STDERR.stat().st_mode) else None
    except OSError:
        return None


def tail(log_file: str, lines: int = 15) -> str:
    """The last lines of the engine's output; empty where it went to a terminal or pipe.

    Args:
        log_file: `EngineSettings.log_file`; empty: this process's stderr, which the engine process inherits. In a Ray
            worker that is the worker's own log file.
    """
    path = Path(log_file) if log_file else _STDERR
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return ""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _READ))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


@contextlib.contextmanager
def output_to(log_file: str) -> Iterator[None]:
    """Let child processes that start inside write to `log_file`; no-op where it is empty."""
    if not log_file:
        yield
        return
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    target = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, target):
            os.close(descriptor)
