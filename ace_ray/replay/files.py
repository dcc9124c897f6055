"""Files of the replay log: tables in Arrow's IPC format, and their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa


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
    """The table of an Arrow IPC file, or those of `columns` that it has; only these are read and decompressed.

    Raises:
        OSError, pa.ArrowInvalid: not readable.
    """
    with pa.memory_map(str(path)) as source:
        if columns is None:
            return pa.ipc.open_file(source).read_all()
        schema = pa.ipc.open_file(source).schema
        options = pa.ipc.IpcReadOptions(included_fields=[i for i, name in enumerate(schema.names) if name in columns])
        return pa.ipc.open_file(source, options=options).read_all()
