"""The fine-tuning data set: first-round prompt -> finally accepted reply, drawn from a run's refinements.

The replay shards are the data set builder: a refinement that the replay confirmed is a row of D_LLM, and examples are
drawn from the D_LLM branch of eq. (9), p(tau) = I_v(tau) w_r(tau) / sum I_v w_r, over the latest `window` of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ace_ray.config.errors import DataError
from ace_ray.finetune.examples import Example
from ace_ray.replay.shards import ShardLog

_COLUMNS = ("status", "verdict", "prompt", "reply", "result_id", "rounds")


@dataclass(frozen=True)
class Refined:
    """One confirmed refinement: the first round's chat, the accepted reply, and its weight I_v w_r."""

    id: int
    messages: tuple[dict[str, str], ...]
    reply: str
    weight: float


def read_refined(replay: Path, window: int) -> list[Refined]:
    """The latest `window` refinements that a language model proposed and the replay confirmed, oldest first.

    Raises:
        ShardError: there is no replay log in the folder.
    """
    log = ShardLog(replay)
    rounds: dict[int, dict[int, dict]] = {}
    for row in log.read("refinement", _COLUMNS).to_pylist():
        rounds.setdefault(row["id"], {})[row["round"]] = row
    weights = {row["id"]: row for row in log.read("transition", ("valid", "w_r")).to_pylist() if row["valid"]}
    found = []
    for refinement, by_round in sorted(rounds.items()):
        head = by_round.get(0)
        first = by_round.get(1)
        won = [row for n, row in sorted(by_round.items()) if n > 0 and row["verdict"] == "better" and row["reply"]]
        if head is None or head["status"] != "accepted" or first is None or not won or not first["prompt"]:
            continue
        # I_v is 1 for what was confirmed; w_r stands with the refined transition (1 where it is not on disk yet).
        weight = float(weights.get(head["result_id"], {}).get("w_r", 1.0))
        messages = tuple(json.loads(first["prompt"]))
        found.append(Refined(refinement, messages, won[-1]["reply"], weight))
    return found[-window:]


def draw(refined: Sequence[Refined], count: int, rng: np.random.Generator) -> list[Example]:
    """`count` examples by eq. (9), with replacement."""
    weights = np.array([r.weight for r in refined], dtype=float)
    if not len(refined) or weights.sum() <= 0:
        raise DataError("there are no confirmed refinements to draw from", "let the run refine for longer")
    chosen = rng.choice(len(refined), size=count, p=weights / weights.sum())
    return [Example(list(refined[i].messages), refined[i].reply) for i in chosen]
