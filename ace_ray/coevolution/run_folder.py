"""The folder of one run: where it lies, what it holds, and who may write to it.

    <runs_root>/<name>/  config.yaml  run.json  lock  replay/  adapters/  checkpoints/  metrics/  evaluation/

A run is one folder and one writer. The lock is an `flock`, so a driver that is killed leaves no stale lock behind and a
second driver on the same folder is refused while the first one lives. A new run refuses a folder that holds anything;
only `--resume` continues one.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from ace_ray.config.errors import ConfigError, RunFolderError
from ace_ray.config.load import load_settings, to_yaml
from ace_ray.config.run import RunSettings

CONFIG = "config.yaml"
ABOUT = "run.json"
LOCK = "lock"
PARTS = ("replay", "adapters", "checkpoints", "metrics", "evaluation")
RUNS_VARIABLE = "ACE_RUNS"

Status = Literal["running", "finished", "interrupted", "failed"]


def inside_job() -> bool:
    """Whether this process is the entry point of a submitted Ray job (its working folder is temporary)."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def runs_root(settings: RunSettings) -> Path:
    """The absolute folder of runs: $ACE_RUNS where it is set, else `runs_root`.

    Raises:
        ConfigError: A relative folder inside a submitted job, where it would vanish with the job.
    """
    root = Path(os.environ.get(RUNS_VARIABLE) or settings.runs_root).expanduser()
    if not root.is_absolute() and inside_job():
        raise ConfigError(
            f"runs_root={root} is relative, and the folder of a submitted job is temporary",
            f"set runs_root or ${RUNS_VARIABLE} to an absolute folder that every node sees",
        )
    return root.absolute()


def locate(run: str | Path, settings: RunSettings) -> Path:
    """The folder of an existing run, given as a path or as a name under the runs root.

    Raises:
        RunFolderError: Neither is a run.
    """
    path = Path(run).expanduser()
    if not (path / ABOUT).is_file() and not path.is_absolute():
        path = runs_root(settings) / run  # only now: inside a job an absolute path needs no absolute root
    if (path / ABOUT).is_file():
        return path.absolute()
    looked = "" if path == Path(run).expanduser() else f" (also not as {path})"
    raise RunFolderError(f"no run {run}{looked}", "`ace runs list` shows the runs")


def read_about(folder: Path) -> dict[str, Any]:
    """The run's own description (`run.json`).

    Raises:
        RunFolderError: Missing or torn.
    """
    try:
        return json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder / ABOUT} cannot be read: {error}", "restore it, or start a new run") from error


def saved_settings(folder: Path, overrides: list[str]) -> RunSettings:
    """The settings that a run was started with, and `dotted.key=value` on top."""
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder} has no {CONFIG}", "it is not a run of `ace train`")
    return load_settings([folder / CONFIG], overrides)


@dataclass
class RunFolder:
    """An open (locked) run folder. Use `open_new` or `reopen`; close it when the run ends.

    Attributes:
        path: Absolute folder of the run.
        about: Content of `run.json`: id, name, env, refiner, created, status, starts (processes so far), ...
    """

    path: Path
    about: dict[str, Any]
    _lock: IO[str]

    @property
    def replay(self) -> Path:
        return self.path / "replay"

    @property
    def adapters(self) -> Path:
        return self.path / "adapters"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    def set(self, **changes: Any) -> None:
        """Changes entries of `run.json`, atomically."""
        self.about |= changes
        write_json(self.path / ABOUT, self.about)

    def close(self, status: Status) -> None:
        """Notes how the run ended and gives the lock back; safe to call twice."""
        if self._lock.closed:
            return
        try:
            self.set(status=status, ended=_now())
        finally:
            self._lock.close()


def open_new(settings: RunSettings) -> RunFolder:
    """Creates the folder of a new run, writes its resolved configuration and locks it.

    Raises:
        RunFolderError: The folder holds something already, or cannot be written.
    """
    name = settings.name or f"{time.strftime('%Y%m%d-%H%M%S')}-{settings.refine.refiner}"
    path = runs_root(settings) / name
    with disk(path):
        if path.is_dir() and any(path.iterdir()):
            raise RunFolderError(
                f"{path} is not empty", f"resume it (--resume {path}), choose another name=..., or remove it"
            )
        path.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(path)
        for part in PARTS:
            (path / part).mkdir(exist_ok=True)
        (path / CONFIG).write_text(to_yaml(settings.model_copy(update={"name": name})))
        folder = RunFolder(path, {}, lock)
        folder.set(
            id=uuid.uuid4().hex,
            name=name,
            env=settings.grid.env,
            refiner=settings.refine.refiner,
            seed=settings.seed,
            created=_now(),
            starts=1,
            status="running",
            host=socket.gethostname(),
            pid=os.getpid(),
        )
    return folder


def reopen(path: Path, settings: RunSettings) -> RunFolder:
    """Locks an existing run to continue it; the settings of this start replace its `config.yaml`.

    Raises:
        RunFolderError: Another driver has it, or it cannot be read or written.
    """
    about = read_about(path)
    with disk(path):
        lock = _take_lock(path)
        folder = RunFolder(path, about, lock)
        (path / CONFIG).write_text(to_yaml(settings))
        folder.set(starts=int(about.get("starts", 1)) + 1, status="running", host=socket.gethostname(), pid=os.getpid())
    return folder


@contextlib.contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turns a full disk or a missing permission into an error that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFolderError(
                f"no space left for {path}", "free space, or set runs_root to another disk; the run can be resumed"
            ) from error
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}",
            f"check permissions, or set runs_root or ${RUNS_VARIABLE}",
        ) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON through a temporary file, fsync and a rename: a reader never sees half of it."""
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def _take_lock(path: Path) -> IO[str]:
    lock = open(path / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 - held for the life of the run
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
            raise
        raise RunFolderError(
            f"{path} is in use by another process ({owner or 'unknown'})", "wait for it, stop it, or start another run"
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
    lock.flush()
    return lock


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
