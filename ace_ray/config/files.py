"""Files that are written whole or not at all, files that one process holds, and what a disk's errors mean."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ace_ray.config.errors import RunFolderError

log = logging.getLogger(__name__)

UNFINISHED = ".tmp"
# An NFS server keeps the locks of a dead node for its lease, 90 seconds by default.
LEASE_SECONDS = 100.0
TELL_SECONDS = 10.0

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turns what the operating system says about a disk into an error that names the path and the remedy.

    Raises:
        RunFolderError: The disk is full, or `path` cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunFolderError(
                f"no space left for {path}",
                "free space, or write to another disk (runs: runs_root or $ACE_RUNS); a run can be resumed",
            ) from error
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}",
            "check the folder and its permissions, or name another one (runs: runs_root or $ACE_RUNS)",
        ) from error


@contextlib.contextmanager
def replacing(path: Path, parents: bool = False) -> Iterator[Path]:
    """Yields a path beside `path`; the file or folder that the block writes there takes the place of `path`, synced.

    A reader sees the old content or the new one. When the block fails, `path` stays as it was and nothing is left over.

    Args:
        path: What is written.
        parents: Make the folders above it.

    Raises:
        RunFolderError: The disk is full, or `path` cannot be written.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    with disk(path):
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        _remove(unfinished)
        try:
            yield unfinished
            for file in unfinished.rglob("*") if unfinished.is_dir() else (unfinished,):
                _sync(file)
            if unfinished.is_dir():
                _sync(unfinished)
                _remove(path)
            os.replace(unfinished, path)
        except BaseException:
            _remove(unfinished)
            raise
        _sync(path.parent)


def write(path: Path, content: str | bytes | memoryview, parents: bool = False) -> None:
    """Writes a file whole or not at all; text as UTF-8. See `replacing`."""
    with replacing(path, parents) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any, parents: bool = False) -> None:
    """Writes JSON whole or not at all. See `replacing`."""
    write(path, json.dumps(content, indent=1) + "\n", parents)


def lock(path: Path, patient: bool = True) -> IO[str]:
    """Locks a file for as long as the result is open. A process that is killed leaves no lock behind.

    A lock may outlive its holder: by seconds where a process follows its killed parent, by the server's lease where the
    node of an NFS client died. So a taken lock is waited for (`LEASE_SECONDS`), and the log says so.

    Args:
        path: Of the file, made where missing; its text names the holder.
        patient: Wait even for a holder that is seen to live on this machine. False: refuse at once then.

    Raises:
        RunFolderError: Another process holds it, or the file system knows no locks.
    """
    with disk(path):
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - open for as long as the lock is held
    try:
        _wait_for(file, path, patient)
        with disk(path):
            file.seek(0)
            file.truncate()
            file.write(f"pid {os.getpid()} on {socket.gethostname()}")
            file.flush()
    except BaseException:
        file.close()
        raise
    return file


def is_locked(path: Path) -> bool | None:
    """Whether a process holds the lock of a file; None where that cannot be told (no such file, no locks here)."""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask do not see each other
    except OSError as error:
        return True if error.errno in _TAKEN and os.path.isfile(path) and os.access(path, os.R_OK) else None
    return False


def _wait_for(file: IO[str], path: Path, patient: bool) -> None:
    began = told = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise RunFolderError(
                    f"the file system of {path.parent} does not support file locks ({error.strerror})",
                    "mount it with locks (Lustre: -o flock), or set runs_root or $ACE_RUNS to one that supports them",
                ) from error
            if error.errno not in _TAKEN:
                raise
        now = time.monotonic()
        file.seek(0)
        holder = file.read().strip() or "unknown"
        if now - began >= LEASE_SECONDS or (not patient and _lives_here(holder)):
            raise RunFolderError(
                f"{path.parent} is in use by another process ({holder})",
                "wait for it, stop it, or start another run",
            )
        if now - told >= TELL_SECONDS:
            told = now
            left = LEASE_SECONDS - (now - began)
            log.info("waiting for the lock of %s (%s), at most %.0f s", path.parent, holder, left)
        time.sleep(0.2)


def _lives_here(holder: str) -> bool:
    """Whether `pid N on HOST` is a living process of this machine."""
    words = holder.split()
    if len(words) != 4 or words[3] != socket.gethostname() or not words[1].isdigit():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
