"""The acceptance gate: a new version must not choose worse than the present one on held-out pivotal decisions.

The decisions come from validation scenarios; do-nothing and the first candidates do not share one fate there, so the
choice matters. Their replays are cached and shipped with the embedded model. Both versions are asked the first-round
question of each decision at temperature 0; what they propose is looked up in the cache. The figure is the survival
regret (share of the horizon that the best known action survives, minus that of the proposal). A new version is
accepted iff the mean paired difference new - present is at most `gate_tolerance` standard errors.

What is not in the cache (an action outside the compared set) is replayed live when a judge is given, else it counts
as the worst known action, as does a reply that does not parse, is illegal or repeats the bad example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ace_ray.config.errors import ModelError
from ace_ray.config.refine import LanguageSettings
from ace_ray.finetune.embedded_eval import Replier, deployed_case, proposal, survival_regret
from ace_ray.finetune.examples import LabelledCase
from ace_ray.finetune.label_files import labelled_case, read_parquet
from ace_ray.language.prompts import Message, actor_messages
from ace_ray.language.reply import parse_actor
from ace_ray.language.schema import ACTOR_SCHEMA
from llm_service.adapters import AdapterRef
from llm_service.errors import LLMServiceError
from llm_service.protocol import LLM, Priority

GATE_FILE = "gate.parquet"


@dataclass(frozen=True)
class GateCase:
    """A held-out decision: its label, and the snapshot that rebuilds it."""

    labelled: LabelledCase
    snapshot: str


Judge = Callable[[GateCase, str], float | None]
"""Survival regret of a reply that names an action outside the cache, None if it is not playable."""


@dataclass(frozen=True)
class GateResult:
    """The decision and what it rests on.

    Attributes:
        accepted: whether the new version may be published.
        states: decisions asked about.
        present_regret, new_regret: mean survival regret, 0 to 1 (lower is better).
        difference, standard_error: of the paired differences new - present.
        present_unusable, new_unusable: replies that named no playable action.
    """

    accepted: bool
    states: int
    present_regret: float
    new_regret: float
    difference: float
    standard_error: float
    present_unusable: int
    new_unusable: int

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def load_gate(folder: Path, count: int, candidates: int | None = None) -> list[GateCase]:
    """The first `count` gate decisions of a model directory.

    Args:
        folder: where `gate.parquet` lies.
        count: `FinetuneSettings.gate_snapshots`.
        candidates: shows at most so many candidates besides do-nothing, as the run does.

    Raises:
        ModelError: the file is missing, or holds fewer decisions.
    """
    path = folder / GATE_FILE
    if not path.is_file():
        raise ModelError(
            f"{path} is missing: there are no held-out decisions to judge an adapter by",
            "build it with `ace llm build-embedded --stage files`",
        )
    rows = read_parquet(path)
    if len(rows) < count:
        raise ModelError(
            f"{path} holds {len(rows)} decisions, the gate asks for {count}",
            "lower finetune.gate_snapshots or label more validation scenarios",
        )
    return [GateCase(_shortened(labelled_case(row), candidates), row["snapshot"]) for row in rows[:count]]


def _shortened(labelled: LabelledCase, candidates: int | None) -> LabelledCase:
    if candidates is None or candidates + 1 >= len(labelled.case.candidates):
        return labelled
    from dataclasses import replace

    kept = labelled.case.candidates[: candidates + 1] if candidates else ()
    return replace(labelled, case=replace(labelled.case, candidates=kept))


def regrets(cases: Sequence[GateCase], replies: Sequence[str], judge: Judge | None = None) -> tuple[np.ndarray, int]:
    """Survival regret of each reply, and how many replies named no playable action."""
    values, unusable = [], 0
    for case, reply in zip(cases, replies, strict=True):
        chosen = proposal(case.labelled, reply)
        if chosen is not None and chosen in case.labelled.outcomes:
            values.append(survival_regret(case.labelled, chosen))
            continue
        live = judge(case, reply) if judge is not None and _names_other(reply) else None
        unusable += live is None
        values.append(survival_regret(case.labelled, None) if live is None else live)
    return np.array(values), unusable


def _names_other(reply: str) -> bool:
    """Whether a reply names an action in another form than a listed candidate."""
    parsed = parse_actor(reply)
    return parsed is not None and "candidate" not in parsed.action


def decide(present: np.ndarray, new: np.ndarray, tolerance: float) -> tuple[bool, float, float]:
    """Whether the new version is accepted, the mean paired difference, and its standard error."""
    difference = new - present
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0
    mean = float(difference.mean())
    return mean <= tolerance * error + 1e-12, mean, error


def run_gate(
    cases: Sequence[GateCase], present: Replier, new: Replier, tolerance: float, judge: Judge | None = None
) -> GateResult:
    """Ask both versions and decide."""
    chats = [actor_messages(deployed_case(case.labelled)) for case in cases]
    old, old_unusable = regrets(cases, present(chats), judge)
    fresh, fresh_unusable = regrets(cases, new(chats), judge)
    accepted, difference, error = decide(old, fresh, tolerance)
    return GateResult(
        accepted=accepted,
        states=len(cases),
        present_regret=round(float(old.mean()), 4),
        new_regret=round(float(fresh.mean()), 4),
        difference=round(difference, 4),
        standard_error=round(error, 4),
        present_unusable=old_unusable,
        new_unusable=fresh_unusable,
    )


def client_replier(client: LLM, adapter: AdapterRef | None, settings: LanguageSettings) -> Replier:
    """First-round replies of one version through the service, at temperature 0 and the lowest priority.

    A refused or late request is asked again up to three times; after that the error is the caller's.
    """

    def one(chat: list[Message]) -> str:
        for attempt in range(3):
            try:
                return client.ask(
                    chat,
                    max_tokens=settings.max_tokens,
                    deadline_s=settings.deadline_s,
                    schema=ACTOR_SCHEMA,
                    adapter=adapter,
                    priority=Priority.EVALUATION,
                    temperature=0.0,
                ).text
            except LLMServiceError:
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def reply(chats: Sequence[list[Message]]) -> list[str]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(one, chats))

    return reply
