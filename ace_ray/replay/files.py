"""Files of the replay log: written whole or not at all, and a clear error when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ace_ray.config.errors import RunFolderError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Turns what the operating system says about a disk into an error that names the folder and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunFolderError(
                f"no space left for the replay in {folder}", "free space, or set runs_root to another disk and resume"
            ) from error
        raise RunFolderError(
            f"cannot write the replay in {folder}: {error.strerror or error}", "check the folder and its permissions"
        ) from error


def write_atomically(path: Path, data: bytes | memoryview | pa.Buffer) -> None:
    """Writes `path` by tmp + fsync + rename + fsync of the folder; on failure nothing is left behind.

    Raises:
        RunFolderError: the disk is full or cannot be written.
    """
    tmp = path.with_name(path.name + ".tmp")
    with disk(path.parent):
        try:
            with open(tmp, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(tmp, path)
        except OSError:
            tmp.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode(table: pa.Table) -> pa.Buffer:
    """A table as the bytes of an Arrow IPC file with zstd-compressed buffers."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 3))
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def decode(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of an Arrow IPC file, or some of its columns; only those are read and decompressed.

    Raises:
        OSError, pa.ArrowInvalid: not readable.
    """
    with pa.memory_map(str(path)) as source:
        if columns is None:
            return pa.ipc.open_file(source).read_all()
        schema = pa.ipc.open_file(source).schema
        options = pa.ipc.IpcReadOptions(included_fields=sorted(schema.get_field_index(name) for name in columns))
        return pa.ipc.open_file(source, options=options).read_all()
