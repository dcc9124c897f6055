"""Which version of each role a run is served with: `adapters/LATEST.json`.

It is the one pointer of a run. A publisher replaces it atomically after a warm-up request to the new version succeeded;
every client looks at the file before a request and reads it again when it was replaced; a resumed run finds it where it
was. Nothing is broadcast, so there is nothing to restore when a replica or a refiner starts anew.

A model directory may hold an `adapters/` of the same layout: versions that ship with it. A run begins with a copy, so
that its folder has all that it was served with; a command without a run is served with them as they lie there.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from llm_service.adapters import AdapterRef, write_atomically
from llm_service.errors import AdapterError

LATEST = "LATEST.json"
SHIPPED = "adapters"


def shipped(model_dir: Path) -> Path | None:
    """The folder of the versions that ship with a model; None where there are none."""
    directory = model_dir / SHIPPED
    return directory if (directory / LATEST).is_file() else None


class PublishedVersions:
    """`LATEST.json` of a run: role -> published version. Safe across processes and threads.

    Args:
        adapters_dir: the run's `adapters/` folder; made when missing.
    """

    def __init__(self, adapters_dir: Path | str) -> None:
        self.directory = Path(adapters_dir).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._file = self.directory / LATEST
        self._stamp: tuple[int, int, int] | None = None
        self._refs: dict[str, AdapterRef] = {}

    def current(self, role: str) -> AdapterRef | None:
        return self.all().get(role)

    def all(self) -> dict[str, AdapterRef]:
        """Published version by role; reads the file only when it was replaced."""
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            return {}
        stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if stamp != self._stamp:
            # The file is only ever replaced whole, so a reader sees the old or the new one; the directories in it are
            # names beside it, so a run folder may move.
            rows = json.loads(self._file.read_text())
            self._refs = {
                role: AdapterRef(role, row["version"], str(self.directory / row["directory"]), row["sha256"])
                for role, row in rows.items()
            }
            self._stamp = stamp
        return dict(self._refs)

    def begin_with(self, source: Path | None) -> None:
        """Copy and publish what ships with a model (`shipped`), where nothing has been published here yet."""
        if source is None or self._file.exists():
            return
        for ref in PublishedVersions(source).all().values():
            target = self.directory / Path(ref.path).name
            if not target.exists():
                part = target.with_name(f".{target.name}.part")
                shutil.rmtree(part, ignore_errors=True)
                shutil.copytree(ref.path, part)
                part.rename(target)
        write_atomically(self._file, (source / LATEST).read_text())

    def flip(self, ref: AdapterRef) -> None:
        """Point the role at `ref`.

        Raises:
            AdapterError: the version does not lie in this run's folder.
        """
        directory = Path(ref.path).resolve()
        if directory.parent != self.directory:
            raise AdapterError(
                f"adapter {ref.name}: {directory} is not in {self.directory}", "publish versions of this run"
            )
        with self._locked():
            rows = json.loads(self._file.read_text()) if self._file.exists() else {}
            rows[ref.role] = {"version": ref.version, "directory": directory.name, "sha256": ref.sha256}
            write_atomically(self._file, json.dumps(rows, indent=1))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
