"""Durable replay: an append-only log of Arrow IPC shards, each sealed by rename, with a manifest beside them.

Sealing writes what is buffered, one file a record kind, as  tmp -> fsync -> rename, and then the manifest the same way.
A crash therefore leaves one of three things, all handled when the folder is opened again: a `.tmp` file (removed), a
whole shard that the manifest does not name yet (adopted), or nothing. A shard whose bytes do not match its checksum, or
which Arrow cannot read, is torn: it is reported, renamed to `.torn` and loses only itself.

Decision: Arrow IPC with zstd buffers rather than Parquet. It reads back without decoding (features go to NumPy as they
lie), pyarrow alone opens it, and half-precision features compress about as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ace_ray.config.errors import GridMismatchError, ShardError
from ace_ray.config.files import UNFINISHED, disk, write, write_json
from ace_ray.replay import records
from ace_ray.replay.files import decode, encode, sha256
from ace_ray.schema import States, StateShape

MANIFEST = "manifest.json"
NAME = re.compile(r"^(\d{8})-(state|transition|refinement|edit)(-kept)?\.arrow$")


@dataclass(frozen=True)
class Shard:
    """One sealed file as the manifest knows it."""

    file: str
    kind: str
    rows: int
    bytes: int
    sha256: str


@dataclass
class ShardReport:
    """What opening a folder found: torn shards (name and why), adopted ones, and whether the manifest was rebuilt."""

    torn: list[tuple[str, str]] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    rebuilt: bool = False

    def problems(self) -> list[str]:
        """What was lost or damaged, one sentence each."""
        found = [f"torn shard {name}: {why}; its rows are lost, the rest is read" for name, why in self.torn]
        return found + (["the manifest was missing or unreadable: rebuilt from the shards"] if self.rebuilt else [])

    def lines(self) -> list[str]:
        """Every finding, one sentence each."""
        adopted = [f"shard {name} was sealed but not yet in the manifest: adopted" for name in self.adopted]
        return self.problems() + adopted


@dataclass(frozen=True)
class LogIdentity:
    """What the rows of one log have in common; a log is never continued with another."""

    env: str
    catalogue: str
    shape: StateShape

    def to_json(self) -> dict[str, Any]:
        """As in the manifest."""
        return {"env": self.env, "catalogue": self.catalogue, **asdict(self.shape)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LogIdentity:
        """The inverse of `to_json`."""
        shape = StateShape(int(data["slots"]), int(data["slot_features"]), int(data["context_features"]))
        return cls(str(data["env"]), str(data["catalogue"]), shape)


class ShardLog:
    """The log in one folder: open (or start) it, read it, append to it, seal.

    Args:
        folder: `<run>/replay`; nothing is ever read or written outside it.
        identity: of the rows; None to open an existing log as it is (reading).
        shard_rows, shard_seconds: seal when so many rows are buffered, or so much time went by with rows buffered.
        clock: seconds; injected by tests.

    Raises:
        ShardError: no log here and no identity given.
        GridMismatchError: the log belongs to another grid, catalogue or candidate setting.
    """

    def __init__(
        self,
        folder: Path,
        identity: LogIdentity | None = None,
        shard_rows: int = 512,
        shard_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = Path(folder)
        self.report = ShardReport()
        self.shards: list[Shard] = []
        self.dropped: dict[str, int] = {}
        self.next_id = 0
        self._rows_limit = shard_rows
        self._seconds = shard_seconds
        self._clock = clock
        self._writing = identity is not None
        self._buffer: dict[str, list[pa.RecordBatch]] = {kind: [] for kind in records.KINDS}
        self._buffered = 0
        self._since = clock()
        self._sequence = 0
        if identity is not None:
            with disk(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
        found = self._open()
        if identity is None and found is None:
            raise ShardError(f"no replay log in {self.folder}", "name a run folder that ace train wrote")
        if identity is not None and found is not None and found != identity:
            raise GridMismatchError(
                f"the replay in {self.folder} was written for {found.to_json()}, this run is {identity.to_json()}",
                "resume with the run's own configuration, or start a new run",
            )
        self.identity: LogIdentity = identity or found  # type: ignore[assignment]
        self.continued = found is not None  # there was a log before this object, be it empty
        if self._writing and (found is None or self.report.lines()):
            self._commit(self.shards, self.next_id, self.dropped)

    # --- reading --------------------------------------------------------------------------------------------------

    def read(self, kind: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All sealed records of a kind, one row a key (the latest wins), in order of writing.

        A shard that turns out to be torn is reported, set aside and left out.
        """
        needed = None if columns is None else list(dict.fromkeys([*records.KEYS[kind], *columns]))
        tables = []
        for shard in [s for s in self.shards if s.kind == kind]:
            try:
                tables.append(self.read_shard(shard, needed))
            except (OSError, pa.ArrowInvalid) as error:
                self._set_aside(shard.file, str(error).splitlines()[0])
        if not tables:
            empty = records.schema(kind, self.identity.shape).remove_metadata().empty_table()
            return empty if needed is None else empty.select(needed)
        return records.latest(kind, pa.concat_tables(tables))

    def read_shard(self, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
        """All records of one shard, or some of their columns.

        Raises:
            OSError, pa.ArrowInvalid: not readable.
        """
        return records.read(self.path(shard.file), shard.kind, self.identity.shape, columns)

    def path(self, file: str) -> Path:
        """The path of a shard; refuses names that would leave the folder.

        Raises:
            ShardError: not the name of a shard, or a link that leads outside.
        """
        path = self.folder / file
        if not NAME.match(file) or path.resolve().parent != self.folder.resolve():
            raise ShardError(
                f"{file!r} is not a shard of {self.folder}", "restore the manifest from a backup, or delete it"
            )
        return path

    @property
    def bytes(self) -> int:
        """Bytes of all sealed shards."""
        return sum(shard.bytes for shard in self.shards)

    # --- writing --------------------------------------------------------------------------------------------------

    def append_states(self, states: States) -> None:
        """Buffers states."""
        if len(states):
            self._put("state", records.state_batch(states, self.identity.shape))

    def append(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Buffers rows of a kind other than state."""
        if rows:
            self._put(kind, records.plain_batch(kind, rows, self.identity.shape))

    def due(self) -> bool:
        """Whether it is time to seal."""
        return self._buffered > 0 and (
            self._buffered >= self._rows_limit or self._clock() - self._since >= self._seconds
        )

    def seal(self, next_id: int) -> list[Shard]:
        """Writes all that is buffered as one shard a kind, then the manifest. What is buffered stays so until both
        succeeded, so a caller may seal again once the disk has room.

        Args:
            next_id: first id that is not given away; stored so that ids never repeat.

        Raises:
            RunFolderError: the disk is full or cannot be written.
        """
        if self._buffered == 0 and next_id == self.next_id:
            return []
        sealed = [self.write(kind, pa.Table.from_batches(batches)) for kind, batches in self._buffer.items() if batches]
        self._commit(self.shards + sealed, next_id, self.dropped)
        self._buffer = {kind: [] for kind in records.KINDS}
        self._buffered = 0
        self._since = self._clock()
        return sealed

    def write(self, kind: str, table: pa.Table, kept: bool = False) -> Shard:
        """Writes one shard file. It belongs to the log only once the manifest names it (`seal`, `replace`)."""
        self._sequence += 1
        file = f"{self._sequence:08d}-{kind}{'-kept' if kept else ''}.arrow"
        sizes = records.schema(kind, self.identity.shape).metadata or {}
        metadata = {**sizes, b"identity": json.dumps(self.identity.to_json()).encode()}
        data = encode(table.replace_schema_metadata(metadata))
        write(self.path(file), memoryview(data))
        return Shard(file, kind, table.num_rows, data.size, hashlib.sha256(data).hexdigest())

    def replace(self, old: Iterable[Shard], new: Iterable[Shard], dropped: Mapping[str, int]) -> None:
        """Swaps shards in one step (the manifest is the commit), then deletes the old files. Used by compaction."""
        gone = {shard.file for shard in old}
        kept = [shard for shard in self.shards if shard.file not in gone]
        total = {name: self.dropped.get(name, 0) + dropped.get(name, 0) for name in {*self.dropped, *dropped}}
        # The manifest's order is the order of the rows: what is moved into a new file stays the older part.
        self._commit([*new, *kept], self.next_id, total)
        for file in gone:
            self.path(file).unlink(missing_ok=True)

    def verify(self) -> list[tuple[str, str]]:
        """Checks size, checksum and rows of every shard: (file, what is wrong) of those that fail."""
        return [(shard.file, why) for shard in self.shards if (why := self._fault(shard))]

    # --- inside ---------------------------------------------------------------------------------------------------

    def _put(self, kind: str, batch: pa.RecordBatch) -> None:
        if self._buffered == 0:
            self._since = self._clock()
        self._buffer[kind].append(batch)
        self._buffered += batch.num_rows

    def _open(self) -> LogIdentity | None:
        names = sorted(path.name for path in self.folder.glob("*"))
        files = [name for name in names if NAME.match(name)]
        self._sequence = max((int(name[:8]) for name in names if name[:8].isdigit()), default=0)
        identity = self._read_manifest()
        if not self._writing and any(not self.path(shard.file).exists() for shard in self.shards):
            # The run goes on and has compacted its log since the manifest was read.
            identity = self._read_manifest()
            files = [shard.file for shard in self.shards]
        if identity is None and files:
            identity = self._identity_from_shards(files)
            self.report.rebuilt = True
        for shard in list(self.shards):
            why = self._fault(shard)
            if why:
                self._set_aside(shard.file, why)
        self._adopt([name for name in files if name not in {s.file for s in self.shards}])
        if self._writing:
            for leftover in self.folder.glob(f"*{UNFINISHED}"):
                leftover.unlink(missing_ok=True)
        return identity

    def _read_manifest(self) -> LogIdentity | None:
        """Takes over what the manifest says; None when there is none that can be read."""
        try:
            data = json.loads((self.folder / MANIFEST).read_text())
            written = int(data["format"])
            if written > records.FORMAT:
                raise ShardError(
                    f"the replay in {self.folder} has format {written}, this version reads up to {records.FORMAT}",
                    "use the version that wrote it",
                )
            identity = LogIdentity.from_json(data["identity"])
            shards = [Shard(**shard) for shard in data["shards"]]
            dropped = {str(k): int(v) for k, v in data["dropped"].items()}
            next_id = int(data["next_id"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
        for shard in shards:
            self.path(shard.file)
        self.shards, self.dropped, self.next_id = shards, dropped, next_id
        return identity

    def _fault(self, shard: Shard) -> str:
        path = self.path(shard.file)
        if not path.exists():
            return "missing"
        if path.stat().st_size != shard.bytes:
            return f"{path.stat().st_size} bytes instead of {shard.bytes}"
        return "" if sha256(path) == shard.sha256 else "checksum does not match"

    def _adopt(self, files: list[str]) -> None:
        aside = {name for name, _ in self.report.torn}
        for name in files:
            if name in aside:
                continue
            path = self.path(name)
            try:
                rows = decode(path).num_rows
            except (OSError, pa.ArrowInvalid) as error:
                self._set_aside(name, str(error).splitlines()[0])
                continue
            kind = NAME.match(name).group(2)  # type: ignore[union-attr]
            self.shards.append(Shard(name, kind, rows, path.stat().st_size, sha256(path)))
            self.report.adopted.append(name)
        if self.report.rebuilt:
            self.shards.sort(key=lambda shard: ("kept" not in shard.file, shard.file))

    def _identity_from_shards(self, files: list[str]) -> LogIdentity:
        for name in files:
            with contextlib.suppress(OSError, pa.ArrowInvalid, KeyError, ValueError):
                metadata = decode(self.path(name)).schema.metadata or {}
                return LogIdentity.from_json(json.loads(metadata[b"identity"]))
        raise ShardError(
            f"neither the manifest nor any shard in {self.folder} can be read", "restore the folder from a backup"
        )

    def _set_aside(self, file: str, why: str) -> None:
        self.report.torn.append((file, why))
        self.shards = [shard for shard in self.shards if shard.file != file]
        path = self.folder / file
        if self._writing and path.exists():
            path.rename(path.with_suffix(".torn"))

    def _commit(self, shards: list[Shard], next_id: int, dropped: dict[str, int]) -> None:
        """Writes the manifest, then takes the new state over: a failed write changes nothing here."""
        data = {
            "format": records.FORMAT,
            "identity": self.identity.to_json(),
            "next_id": next_id,
            "dropped": dropped,
            "shards": [asdict(shard) for shard in shards],
        }
        write_json(self.folder / MANIFEST, data)
        self.shards, self.next_id, self.dropped = shards, next_id, dropped
