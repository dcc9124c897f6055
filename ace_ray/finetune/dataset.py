"""The fine-tuning data set: first-round prompt -> the reply to learn, drawn from a run's refinements.

The replay shards are the data set builder: lessons are drawn from the D_LLM branch of eq. (9),
p(tau) = I_v(tau) w_r(tau) / sum I_v w_r, over the latest `window` refinements that hold one. What is learned
(`finetune.labels`):

    reply   the reply that a replay confirmed, as the model said it
    best    the best action known from the replays of the refinement, in our words; also where every round of the model
            lost, since the look-back's search had found an action that survives. The list is in random order every
            other time, so that it has to be read. Where nothing listed is better: as `reply`

Beside it stand replies that lost: what the model said in losing rounds (reply), or listed actions that the replays
showed to be worse, in our words (best); the bad example's own reply where there is no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ace_ray.config.errors import DataError
from ace_ray.domain import Outcome
from ace_ray.finetune.examples import Example, LabelledCase, Variation, actor_reply, clearly_worse, right_answer
from ace_ray.language.prompts import actor_messages
from ace_ray.language.view import CandidateView, CaseView
from ace_ray.replay.shards import ShardLog

_COLUMNS = (
    *("status", "verdict", "error", "prompt", "reply", "result_id", "rounds", "case", "compared"),
    *("catalogue_id", "survived", "steps", "ret"),
)

Rows = Mapping[int, Mapping[str, Any]]
"""The records of one refinement by round; 0 is the refinement itself."""


@dataclass(frozen=True)
class Said:
    """A confirmed refinement as it was said: the first round's chat, the accepted reply, and replies that lost."""

    id: int
    weight: float
    messages: tuple[dict[str, str], ...]
    reply: str
    worse: tuple[str, ...] = ()

    def example(self, rng: np.random.Generator) -> Example:
        """The chat with the accepted reply and one that lost."""
        return Example(list(self.messages), self.reply, _one(self.worse, rng))


@dataclass(frozen=True)
class Known:
    """A decision of which a better listed action is known: the case as it was asked, and who is better than whom."""

    id: int
    weight: float
    case: CaseView
    best: CandidateView
    worse: tuple[CandidateView, ...]

    def example(self, rng: np.random.Generator) -> Example:
        """The chat, in another order every other time, with the best action and a worse one in our words."""
        case = self.case
        if rng.random() < Variation.shuffle:
            rest = [c for c in case.candidates if c.id != 0]
            order = [c for c in case.candidates if c.id == 0] + [rest[i] for i in rng.permutation(len(rest))]
            case = replace(case, candidates=tuple(order))
        lost = actor_reply(case, self.worse[int(rng.integers(len(self.worse)))]) if self.worse else ""
        return Example(actor_messages(case), actor_reply(case, self.best), lost)


Lesson = Said | Known


def read_lessons(
    replay: Path, window: int, labels: Literal["reply", "best"] = "reply", tie: float = 0.01
) -> list[Lesson]:
    """The latest `window` refinements that something can be learned from, oldest first.

    Args:
        replay: folder of the replay log.
        labels: what is learned, see the module.
        tie: returns closer than this share of the horizon's reward are equal (`CompareSettings.tie`).

    Raises:
        ShardError: there is no replay log in the folder.
    """
    log = ShardLog(replay)
    refinements: dict[int, dict[int, dict]] = {}
    for row in log.read("refinement", _COLUMNS).to_pylist():
        refinements.setdefault(row["id"], {})[row["round"]] = row
    weights = {row["id"]: row for row in log.read("transition", ("valid", "w_r")).to_pylist() if row["valid"]}
    found: list[Lesson] = []
    for id, rows in sorted(refinements.items()):
        if 0 not in rows or 1 not in rows or not rows[1]["prompt"]:
            continue
        # I_v is 1 for what was confirmed; w_r stands with the refined transition (1 where there is none on disk).
        weight = float(weights.get(rows[0]["result_id"], {}).get("w_r", 1.0))
        lesson: Lesson | None = _known(id, weight, rows, tie) if labels == "best" else None
        lesson = lesson or _said(id, weight, rows)
        if lesson is not None:
            found.append(lesson)
    return found[-window:]


def draw(lessons: Sequence[Lesson], count: int, rng: np.random.Generator) -> list[Example]:
    """`count` examples by eq. (9), with replacement."""
    weights = np.array([lesson.weight for lesson in lessons], dtype=float)
    if not len(lessons) or weights.sum() <= 0:
        raise DataError("there are no confirmed refinements to draw from", "let the run refine for longer")
    chosen = rng.choice(len(lessons), size=count, p=weights / weights.sum())
    return [lessons[i].example(rng) for i in chosen]


def _said(id: int, weight: float, rows: Rows) -> Said | None:
    tried = [row for number, row in sorted(rows.items()) if number > 0 and row["reply"]]
    won = [row["reply"] for row in tried if row["verdict"] == "better"]
    if rows[0]["status"] != "accepted" or not won:
        return None
    worse = tuple(row["reply"] for row in tried if row["verdict"] != "better")
    if not worse and rows[1]["case"]:
        case = CaseView.from_json(rows[1]["case"])
        if case.bad is not None and case.number(case.bad.action.id) is not None:
            worse = (actor_reply(case, case.bad.action),)
    return Said(id, weight, tuple(json.loads(rows[1]["prompt"])), won[-1], worse)


def _known(id: int, weight: float, rows: Rows, tie: float) -> Known | None:
    if not rows[1]["case"]:  # written before cases were kept
        return None
    case = CaseView.from_json(rows[1]["case"])
    if case.bad is None or case.bad.outcome is None:
        return None
    outcomes = {int(i): Outcome.from_json(ended) for i, ended in json.loads(rows[1]["compared"]).items()}
    span = max((abs(outcome.span) for outcome in outcomes.values()), default=0.0)
    for number, row in rows.items():
        if number > 0 and row["verdict"]:
            outcomes.setdefault(row["catalogue_id"], Outcome(row["survived"], row["steps"], row["ret"], span))
    bad = case.bad.action
    outcomes.setdefault(bad.id, case.bad.outcome)
    labelled = LabelledCase(str(id), case, bad, outcomes, tie)
    listed = [c for c in case.candidates if c.id in outcomes]
    better = [c for c in listed if clearly_worse(labelled, bad, c)]
    if not better:
        return None
    best = right_answer(labelled, better)
    if not outcomes[best.id].survived and any(one.survived for one in outcomes.values()):
        return None  # what survives is not listed: only the model's own reply can name it
    return Known(id, weight, case, best, tuple(c for c in listed if clearly_worse(labelled, c, best)))


def _one(replies: Sequence[str], rng: np.random.Generator) -> str:
    return replies[int(rng.integers(len(replies)))] if replies else ""
