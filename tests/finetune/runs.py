"""Made-up refinement records, as a run's shards hold them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ace_ray.language.view import CaseView
from ace_ray.replay.shards import ShardLog
from tests.replay.rows import IDENTITY, chain


def refinement(
    number: int,
    *,
    prompts: Sequence[str] = ("prompt",),
    replies: Sequence[str] = ("reply",),
    verdicts: Sequence[str] = ("better",),
    status: str = "accepted",
    result: int = -1,
    messages: list[dict[str, str]] | None = None,
    case: CaseView | None = None,
    compared: Mapping[int, Sequence[float]] | None = None,
) -> list[dict[str, Any]]:
    """The records of one refinement: the head, and one a round; the first says what was shown, if `case` is given."""
    rows: list[dict[str, Any]] = [
        {"id": number, "round": 0, "status": status, "result_id": result, "rounds": len(replies)}
    ]
    for i, (prompt, reply, verdict) in enumerate(zip(prompts, replies, verdicts, strict=True), start=1):
        chat = messages or [{"role": "user", "content": prompt}]
        text = json.dumps(chat) if prompt else ""
        rows.append({"id": number, "round": i, "status": "round", "prompt": text, "reply": reply, "verdict": verdict})
        if i == 1 and case is not None:
            rows[-1] |= {"case": case.to_json(), "compared": json.dumps(compared or {})}
    return rows


def write_log(
    folder: Path, refinements: Sequence[list[dict[str, Any]]], weights: Mapping[int, float] | None = None
) -> None:
    """Write refinements, and refined transitions with their weights, into a sealed log."""
    log = ShardLog(folder, IDENTITY)
    log.append("refinement", [row for rows in refinements for row in rows])
    for number, weight in (weights or {}).items():
        (row,) = chain(number, 1)
        log.append("transition", [{**row, "valid": True, "w_r": weight}])
    log.seal(next_id=1000)
