"""The folder of one run: where it lies, what it holds, and who may write to it.

    <runs_root>/<name>/  config.yaml  run.json  lock  heartbeat
                         replay/  adapters/  checkpoints/  metrics/  evaluation/

A run is one folder and one writer. The lock is an `flock`, so a driver that is killed leaves no stale lock behind and a
second driver on the same folder is refused while the first one lives. While it lives it also touches `heartbeat`, for
processes that cannot see the lock. A new run refuses a folder that holds anything; only `--resume` continues one.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from ace_ray.config import files
from ace_ray.config.errors import RunFolderError
from ace_ray.config.load import load_settings, to_yaml
from ace_ray.config.paths import ABOUT, CONFIG, HEARTBEAT, HEARTBEAT_SECONDS, runs_root
from ace_ray.config.run import RunSettings

LOCK = "lock"
PARTS = ("replay", "adapters", "checkpoints", "metrics", "evaluation")

SILENT_SECONDS = 120.0  # without a heartbeat

Status = Literal["running", "finished", "interrupted", "failed"]


def read_about(folder: Path) -> dict[str, Any]:
    """The run's own description (`run.json`); the status of a run whose driver is gone is `died`.

    Raises:
        RunFolderError: Missing, torn, or something else.
    """
    try:
        about = json.loads((folder / ABOUT).read_text())
        if not isinstance(about, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder / ABOUT} cannot be read: {error}", "restore it, or start a new run") from error
    if about.get("status") == "running" and not is_alive(folder):
        about["status"] = "died"
    return about


def is_alive(folder: Path) -> bool:
    """Whether a driver holds the run; where locks cannot be asked, whether its heartbeat is young."""
    locked = files.is_locked(folder / LOCK)
    if locked is not None:
        return locked
    try:
        return time.time() - (folder / HEARTBEAT).stat().st_mtime < SILENT_SECONDS
    except OSError:
        return False


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
    _closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        (self.path / HEARTBEAT).touch()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while not self._closing.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # a disk that fails is told by whoever writes something that matters
                os.utime(self.path / HEARTBEAT)

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
        files.write_json(self.path / ABOUT, self.about)

    def close(self, status: Status) -> None:
        """Notes how the run ended and gives the lock back; safe to call twice."""
        if self._lock.closed:
            return
        self._closing.set()
        try:
            self.set(status=status, ended=_now())
        finally:
            self._lock.close()


def new_name(settings: RunSettings) -> str:
    """The name of a run that the settings do not name: date, time and refiner."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{settings.refine.refiner}"


def open_new(settings: RunSettings) -> RunFolder:
    """Creates the folder of a new run, writes its resolved configuration and locks it.

    Raises:
        RunFolderError: The folder holds something already, or cannot be written.
    """
    name = settings.name or new_name(settings)
    path = runs_root(settings) / name
    with files.disk(path):
        if path.is_dir() and not _only_begun(path):
            raise RunFolderError(
                f"{path} is not empty", f"resume it (--resume {path}), choose another name=..., or remove it"
            )
        path.mkdir(parents=True, exist_ok=True)
        lock = files.lock(path / LOCK, patient=False)
        for part in PARTS:
            (path / part).mkdir(exist_ok=True)
        files.write(path / CONFIG, to_yaml(settings.model_copy(update={"name": name})))
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


def _only_begun(path: Path) -> bool:
    """Whether a folder is empty, or holds only what a start makes that was killed before `run.json`."""
    return all(
        (each.name in (LOCK, CONFIG, HEARTBEAT) and each.is_file())
        or (each.name in PARTS and each.is_dir() and not any(each.iterdir()))
        for each in path.iterdir()
    )


def reopen(path: Path, settings: RunSettings) -> RunFolder:
    """Locks an existing run to continue it; the settings of this start replace its `config.yaml`.

    Raises:
        RunFolderError: Another driver has it, or it cannot be read or written.
    """
    about = read_about(path)
    with files.disk(path):
        lock = files.lock(path / LOCK, patient=False)
        folder = RunFolder(path, about, lock)
        files.write(path / CONFIG, to_yaml(settings))
        folder.set(starts=int(about.get("starts", 1)) + 1, status="running", host=socket.gethostname(), pid=os.getpid())
    return folder


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
