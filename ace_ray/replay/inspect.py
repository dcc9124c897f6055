"""What `ace replay show` and `ace replay verify` say about the log of a run; both only read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ace_ray.replay import records
from ace_ray.replay.core import mb_per_1000
from ace_ray.replay.counters import RESULTS, RefinementCounters
from ace_ray.replay.shards import ShardLog

_SHOWN = 400  # characters of a prompt's last message
_COUNTED = ["status", "round", "reason", "distance", "salvageable", "rounds", "verdict", "error", "catalogue_id"]
_TEXT = ["prompt", "reply", "ret", "played_ret", "survived", "played_survived", "model", "adapter_version", "refiner"]


def summary(folder: Path) -> dict[str, Any]:
    """Counts of a log: rows by kind, transitions by source, refinements, edits, size.

    Raises:
        ShardError: no log in the folder.
    """
    log = ShardLog(folder)
    transitions = log.read("transition", ["source", "refined", "valid", "policy_version"])
    counters = RefinementCounters()
    pending = 0
    for row in log.read("refinement", _COUNTED).to_pylist():
        counters.add(row)
        pending += row["status"] == "pending"
    sources = Counter(transitions["source"].to_pylist()) + Counter(log.dropped)
    return {
        "identity": log.identity.to_json(),
        "shards": len(log.shards),
        "mb": log.bytes / 1e6,
        "mb_by_kind": {kind: sum(s.bytes for s in log.shards if s.kind == kind) / 1e6 for kind in records.KINDS},
        "mb_per_1000_decisions": mb_per_1000(log.bytes, sum(sources.values())),
        "rows": {kind: sum(s.rows for s in log.shards if s.kind == kind) for kind in records.KINDS},
        "sources": dict(sources),
        "compacted_away": dict(log.dropped),
        "refined": int(np.sum(transitions["refined"].to_numpy(zero_copy_only=False))),
        "valid": int(np.sum(transitions["valid"].to_numpy(zero_copy_only=False))),
        "pending": pending,
        "refinement": counters.to_json(),
        "edits": log.read("edit", ["delta"]).num_rows,
        "problems": log.report.lines(),
    }


def show(folder: Path, last: int = 0) -> Iterator[str]:
    """Lines for a terminal: the summary, and the text of the last `last` refinements that were asked about.

    Raises:
        ShardError: no log in the folder.
    """
    found = summary(folder)
    identity, refinement = found["identity"], found["refinement"]
    yield (
        f"{found['shards']} shards, {found['mb']:.1f} MB ({found['mb_per_1000_decisions']:.1f} MB per 1,000 "
        f"transitions) of {identity['env']}, catalogue {identity['catalogue'][:12]}"
    )
    for kind in records.KINDS:
        yield f"  {kind:<11} {found['rows'][kind]:>8} records {found['mb_by_kind'][kind]:>9.2f} MB"
    yield "transitions by source: " + _pairs(found["sources"])
    if found["compacted_away"]:
        yield "  of these no longer on disk: " + _pairs(found["compacted_away"])
    yield f"  refined {found['refined']}, of these valid {found['valid']}; edits by the critic {found['edits']}"
    yield (
        f"refinements: pending {found['pending']}, asked {refinement['asked']}, "
        f"salvageable {refinement['salvageable']}, " + _pairs({name: refinement[name] for name in RESULTS})
    )
    yield f"  rounds {refinement['rounds']} (later ones {refinement['later_rounds']}): {_pairs(refinement['verdicts'])}"
    if refinement["errors"]:
        yield f"  rounds that could not be replayed: {_pairs(refinement['errors'])}"
    yield from _table("reason", refinement["by_reason"])
    yield from _table("decisions before the blackout", refinement["by_distance"])
    yield from found["problems"]
    if last:
        yield from _texts(folder, last)


def verify(folder: Path) -> tuple[bool, list[str]]:
    """Checks checksums, row counts and references of a log.

    Returns:
        Whether it is whole, and what was found: one line a problem, and a closing one.

    Raises:
        ShardError: no log in the folder.
    """
    log = ShardLog(folder)
    problems = log.report.problems()
    for shard in log.shards:
        rows = log.read_shard(shard, records.KEYS[shard.kind]).num_rows
        if rows != shard.rows:
            problems.append(f"{shard.file}: {rows} rows, the manifest says {shard.rows}")
    problems += _references(log)
    rows = {kind: sum(s.rows for s in log.shards if s.kind == kind) for kind in records.KINDS}
    state = "whole" if not problems else f"{len(problems)} problem(s)"
    return not problems, [*problems, f"{len(log.shards)} shards, {_pairs(rows)}: {state}"]


def _references(log: ShardLog) -> list[str]:
    """Every id that a record names has to be there; what compaction dropped is never named by what it kept."""
    states = log.read("state", ["id"])["id"].to_numpy()
    rows = log.read("transition", ["state_id", "next_id", "parent_id", "refined"])
    ids = rows["id"].to_numpy()
    refined = rows["refined"].to_numpy(zero_copy_only=False).astype(bool)
    next_ids, parents = rows["next_id"].to_numpy(), rows["parent_id"].to_numpy()
    refinements = log.read("refinement", ["status", "round", "result_id"])
    results = refinements["result_id"].to_numpy()
    named = {
        "transitions without their state": (rows["state_id"].to_numpy(), states),
        "transitions without their next state": (next_ids[next_ids >= 0], states),
        "refined transitions without their original": (parents[refined & (parents >= 0)], ids),
        "accepted refinements without their transition": (results[results >= 0], ids),
        "edits of transitions that are not there": (log.read("edit", [])["transition_id"].to_numpy(), ids),
    }
    found = []
    for what, (wanted, there) in named.items():
        missing = wanted[~np.isin(wanted, there)]
        if missing.size:
            found.append(f"{missing.size} {what}, the first: {int(missing[0])}")
    return found


def _texts(folder: Path, last: int) -> Iterator[str]:
    rounds = ShardLog(folder).read("refinement", [*_COUNTED, *_TEXT]).to_pylist()
    asked = list(dict.fromkeys(row["id"] for row in rounds if row["status"] == "round"))[-last:]
    for refinement in asked:
        mine = sorted((row for row in rounds if row["id"] == refinement), key=lambda row: row["round"])
        result = next((row for row in mine if row["round"] == 0), None)
        status = result["status"] if result else "unfinished"
        yield f"--- refinement {refinement}: {mine[-1]['reason']}, distance {mine[-1]['distance']}, {status}"
        for row in [row for row in mine if row["round"] > 0]:
            outcome = row["error"] or f"{row['verdict']}: return {row['ret']:.2f} against {row['played_ret']:.2f}"
            who = f"{row['refiner']} {row['model']} v{row['adapter_version']}"
            yield f"round {row['round']} ({who}): action {row['catalogue_id']}, {outcome}"
            if row["prompt"]:
                yield f"  asked: ...{json.loads(row['prompt'])[-1]['content'][-_SHOWN:]}"
                yield f"  reply: {row['reply']}"


def _pairs(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _table(title: str, counts: dict[str, dict[str, int]]) -> Iterator[str]:
    if not counts:
        return
    columns = ["asked", "salvageable", *RESULTS]
    columns = [name for name in columns if any(row.get(name) for row in counts.values())]
    yield f"  {title:<30}" + "".join(f"{name:>15}" for name in columns)
    for key in sorted(counts, key=lambda key: (len(key), key)):
        yield f"  {key:<30}" + "".join(f"{counts[key].get(name, 0):>15}" for name in columns)
