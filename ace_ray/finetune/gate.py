"""The acceptance gate: a new version must not choose worse than the present one on held-out pivotal decisions.

The decisions come from validation scenarios. Some of do-nothing and the first candidates survive there and some do not,
so the choice matters. Their replays are cached and shipped with the embedded model. Both versions are asked the
first-round question of each decision at temperature 0; what they propose is looked up in the cache. The figure is
the survival regret (share of the horizon that the best known action survives, minus that of the proposal). A new
version is accepted iff the mean paired difference new - present is at most `gate_tolerance` standard errors. The model
without any adapter is asked as well: the record says what all tuning so far has changed, beside what this one has.

What is not in the cache (an action outside the compared set) is replayed live when a judge is given, else it counts
as the worst known action, as does a reply that does not parse, is illegal or repeats the bad example.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ace_ray.config.refine import LanguageSettings
from ace_ray.config.run import RunSettings
from ace_ray.domain import Outcome, survival_regret, verdict
from ace_ray.finetune.held_out import GateCase, Replier, deployed_case, proposal
from ace_ray.language.ask import ask_model
from ace_ray.language.prompts import Message, actor_messages
from ace_ray.language.reply import parse_actor
from ace_ray.language.schema import ACTOR_SCHEMA
from ace_ray.monitoring.statistics import interval
from ace_ray.refine.builder import Workbench
from llm_service.adapters import AdapterRef
from llm_service.protocol import LLM, Priority

Judge = Callable[[GateCase, str], Outcome | None]
"""How the action of a reply ends that names one outside the cache, None if it is not playable."""


@dataclass(frozen=True)
class Answers:
    """What one version's replies are worth.

    Attributes:
        regret: [n] survival regret, 0 to 1; negative where an action outside the cache outlives all of it.
        better: [n] 1 where the proposal is better than the played action by more than a tie, else 0.
        unusable: replies that named no playable action.
    """

    regret: np.ndarray
    better: np.ndarray
    unusable: int


@dataclass(frozen=True)
class GateResult:
    """The decision and what it rests on.

    Attributes:
        accepted: whether the new version may be published.
        states: decisions asked about.
        present_regret, new_regret: mean survival regret, 0 to 1 (lower is better).
        difference, standard_error: of the paired differences new - present.
        present_unusable, new_unusable: replies that named no playable action.
        present_better, new_better: share of proposals that are better than the played action.
        untuned: `regret` and `better` of the model without any adapter.
        against: `present` and `untuned` -> `regret`, `better` -> paired difference of the new version to it, and
            `ci95`, its interval: chronics are resampled, then decisions (None where nothing can be).
    """

    accepted: bool
    states: int
    present_regret: float
    new_regret: float
    difference: float
    standard_error: float
    present_unusable: int
    new_unusable: int
    present_better: float
    new_better: float
    untuned: dict[str, float]
    against: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def answers(cases: Sequence[GateCase], replies: Sequence[str], judge: Judge | None = None) -> Answers:
    """What the reply to each decision is worth."""
    regret, better, unusable = [], [], 0
    for case, reply in zip(cases, replies, strict=True):
        known = case.labelled
        chosen = proposal(known, reply)
        ended = None if chosen is None else known.outcomes.get(chosen)
        if ended is None and judge is not None and _names_other(reply):
            ended = judge(case, reply)
        unusable += ended is None
        regret.append(survival_regret(known.outcomes.values(), ended, known.case.facts.horizon))
        better.append(ended is not None and verdict(ended, known.outcomes[known.played.id], known.tie) == "better")
    return Answers(np.array(regret), np.array(better, float), unusable)


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
    cases: Sequence[GateCase],
    present: Replier,
    new: Replier,
    tolerance: float,
    judge: Judge | None = None,
    untuned: Replier | None = None,
) -> GateResult:
    """Ask the versions and decide; `untuned` is None where the present version is the model without an adapter."""
    chats = [actor_messages(deployed_case(case.labelled)) for case in cases]
    old = answers(cases, present(chats), judge)
    fresh = answers(cases, new(chats), judge)
    plain = old if untuned is None else answers(cases, untuned(chats), judge)
    accepted, difference, error = decide(old.regret, fresh.regret, tolerance)
    groups = [case.snapshot.scenario.group for case in cases]
    return GateResult(
        accepted=accepted,
        states=len(cases),
        present_regret=_mean(old.regret),
        new_regret=_mean(fresh.regret),
        difference=round(difference, 4),
        standard_error=round(error, 4),
        present_unusable=old.unusable,
        new_unusable=fresh.unusable,
        present_better=_mean(old.better),
        new_better=_mean(fresh.better),
        untuned={"regret": _mean(plain.regret), "better": _mean(plain.better)},
        against={
            name: {
                "regret": _paired(fresh.regret - other.regret, groups),
                "better": _paired(fresh.better - other.better, groups),
            }
            for name, other in (("present", old), ("untuned", plain))
        },
    )


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 4)


def _paired(differences: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    found = interval(differences.tolist(), groups)
    return {"difference": round(found.mean, 4), "ci95": found.ci95 and [round(end, 4) for end in found.ci95]}


TRIES = 3


def client_replier(client: LLM, adapter: AdapterRef | None, settings: LanguageSettings) -> Replier:
    """First-round replies of one version through the service, at temperature 0 and the lowest priority.

    A refused or late request is sent up to `TRIES` times; after that the error is the caller's.
    """

    def one(chat: list[Message]) -> str:
        for _ in range(TRIES):
            answer = ask_model(
                client,
                chat,
                settings,
                schema=ACTOR_SCHEMA,
                role=None,
                adapter=adapter,
                priority=Priority.EVALUATION,
                temperature=0.0,
            )
            if answer.reply is not None:
                return answer.reply.text
        assert answer.failure is not None
        raise answer.failure

    def reply(chats: Sequence[list[Message]]) -> list[str]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(one, chats))

    return reply


@contextlib.contextmanager
def live_judge(settings: RunSettings) -> Iterator[Judge]:
    """A judge whose environment is made when the first reply needs it (some seconds, about 400 MB)."""
    made: list[Workbench] = []
    language = settings.language.model_copy(update={"prompt": "ace"})  # as the gate asks

    def bench() -> Workbench:
        if not made:
            made.append(Workbench(settings.grid, language))
        return made[0]

    def judge(case: GateCase, reply: str) -> Outcome | None:
        comparator, actor = bench().comparator, bench().actor
        obs = comparator.observation(case.snapshot)
        action = actor.read(reply, deployed_case(case.labelled), obs).playable
        return None if action is None else comparator.outcome(case.snapshot, action)

    try:
        yield judge
    finally:
        for one in made:
            one.comparator.simulator.close()
