"""Label files: what `labels` writes and the training of the embedded model reads.

A folder holds `meta.json` (settings, seeds, constant prompt parts), `labels-*.parquet` (one decision a row) and
`planted-*.parquet` (one episode with a planted decision a row). Where pyarrow is missing (a bare GPU machine), the same
rows are read from `labels.jsonl.gz` and `planted.jsonl.gz`, which `pack` writes. Needs neither Grid2Op nor Ray.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ace_ray.config.files import replacing
from ace_ray.finetune.examples import LabelledCase
from ace_ray.finetune.held_out import labelled_case, read_parquet
from ace_ray.lab.embedded.critic_examples import LabelledEpisode

META = "meta.json"


def read_meta(folder: Path) -> dict[str, Any]:
    """The folder's meta data; without the expert's settings, which old folders name and which have no part in labels.

    Raises:
        FileNotFoundError: it is no label folder.
    """
    path = folder / META
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: make labels with `ace llm build-embedded --stage labels`")
    meta = json.loads(path.read_text())
    meta.get("plan", {}).get("grid", {}).pop("expert", None)
    return meta


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as Parquet, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as unfinished:
        pq.write_table(pa.Table.from_pylist(list(rows)), unfinished, compression="zstd")


def read_rows(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Rows of kind 'labels' or 'planted', files in order of their names; a torn Parquet file raises."""
    packed = folder / f"{kind}.jsonl.gz"
    files = sorted(folder.glob(f"{kind}-*.parquet"))
    if files:
        for file in files:
            yield from read_parquet(file)
    elif packed.is_file():
        with gzip.open(packed, "rt") as lines:
            yield from (json.loads(line) for line in lines)


def pack(folder: Path) -> list[Path]:
    """Write the rows of a label folder as gzipped JSON lines beside the Parquet files; returns the files."""
    written = []
    for kind in ("labels", "planted"):
        rows = list(read_rows(folder, kind))
        if rows:
            path = folder / f"{kind}.jsonl.gz"
            with gzip.open(path, "wt") as out:
                out.writelines(json.dumps(row) + "\n" for row in rows)
            written.append(path)
    return written


def read_cases(folder: Path, split: str) -> list[LabelledCase]:
    """All labelled decisions of a split ('train' or 'validation') that list at least two known actions."""
    cases = (labelled_case(row) for row in read_rows(folder, "labels") if row["split"] == split)
    return [c for c in cases if sum(not c.outcomes or v.id in c.outcomes for v in c.case.candidates) > 1]


def read_episodes(folder: Path, split: str) -> list[LabelledEpisode]:
    """All planted episodes of a split."""
    return [LabelledEpisode.from_json(r["episode"]) for r in read_rows(folder, "planted") if r["split"] == split]
