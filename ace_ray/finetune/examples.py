"""Training examples of the actor: chat and reply, made from labelled decisions.

A labelled decision is a case with the outcomes of its compared set. From one decision come many examples: another bad
example (any action whose outcome is worse), fewer candidates, another order, earlier rounds with what happened. So the
model has to read the prompt: the number of the best candidate is worth nothing as a memory.

This module needs neither Grid2Op nor Ray.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ace_ray.domain import Outcome, best, verdict
from ace_ray.language.prompts import (
    LEAST,
    AttemptView,
    Message,
    actor_messages,
    loading,
    outcome_text,
    what_is_left,
)
from ace_ray.language.view import BadView, CandidateView, CaseView, date_text


@dataclass(frozen=True)
class LabelledCase:
    """A decision and the outcomes of its actions.

    Attributes:
        key: Snapshot key, unique.
        case: The case without a bad example; its candidates are do-nothing and the best by score.
        played: The action that was played there.
        outcomes: Outcome by catalogue id; empty for bootstrap labels, where the danger decides.
        tie: Share of the horizon's reward by which returns have to differ (`domain.verdict`).
    """

    key: str
    case: CaseView
    played: CandidateView
    outcomes: Mapping[int, Outcome]
    tie: float = 0.01


@dataclass(frozen=True)
class Example:
    """A chat, the reply that is to be learned, and one that is known to be worse ('': none is)."""

    messages: list[Message]
    reply: str
    worse: str = ""


@dataclass(frozen=True)
class Variation:
    """How examples differ from the deployed prompt.

    Attributes:
        shuffle: Share of examples whose candidates are in random order (do-nothing stays number 0).
        shorten: Share of examples with fewer candidates.
        later_rounds: Share of examples that are a later round with feedback.
        elsewhen: Share of examples at another date, step and demand, so that few labelled decisions are not known by
            heart.
        alone: Share of examples without a bad example, as the model is asked when it controls the grid alone.
    """

    shuffle: float = 0.5
    shorten: float = 0.3
    later_rounds: float = 0.25
    elsewhen: float = 0.7
    alone: float = 0.1


_STEP_RETURN = 0.085  # typical reward of one step, so that made-up returns have the size of real ones
_LEAST_IS_BAD = 0.35  # share of made-up outcomes in which the action of least danger has failed
DEPLOYED = Variation(shuffle=0.0, shorten=0.0, later_rounds=0.0, elsewhen=0.0, alone=0.0)


def _foreseen(candidate: CandidateView) -> float:
    """How good an action looks before any replay: minus its danger, or its score where that is unknown."""
    return float(-candidate.danger) if candidate.danger >= 0 else candidate.score


def right_answer(labelled: LabelledCase, options: Sequence[CandidateView]) -> CandidateView:
    """Of the best options, those within a tie being equally good, the one of least danger; the first of several.

    Where nothing was replayed, the best are those that look best. One answer where many are right: a model that is
    taught them all in turn learns which loadings are frequent.
    """
    if labelled.outcomes:
        top = best({c.id: labelled.outcomes[c.id] for c in options})
        equals = [c for c in options if not _worse(labelled, c.id, top)]
    else:
        highest = max(map(_foreseen, options))
        equals = [c for c in options if _foreseen(c) >= highest]
    return min(equals, key=lambda c: c.danger if c.danger >= 0 else math.inf)


def clearly_worse(labelled: LabelledCase, candidate: CandidateView, best: CandidateView) -> bool:
    """Whether an action is worse than `best` by more than a tie (`domain.verdict`); both have outcomes."""
    return _worse(labelled, candidate.id, best.id)


def _worse(labelled: LabelledCase, id: int, than: int) -> bool:
    return verdict(labelled.outcomes[id], labelled.outcomes[than], labelled.tie) == "worse"


def make_example(labelled: LabelledCase, rng: np.random.Generator, variation: Variation) -> Example:
    """One example; raises ValueError where the case lists fewer than two actions."""
    known = [c for c in labelled.case.candidates if not labelled.outcomes or c.id in labelled.outcomes]
    if len(known) < 2:
        raise ValueError(f"case {labelled.key} lists fewer than two actions")
    made_up = not labelled.outcomes
    if made_up:
        labelled = _with_outcomes(labelled, known, rng, variation)
    bad = labelled.played if made_up else _bad_example(labelled, known, rng, variation)
    listed = _listed(known, rng, variation, keep={bad.id})
    case = replace(labelled.case, candidates=tuple(listed), bad=BadView(bad, labelled.outcomes.get(bad.id)))
    if rng.random() < variation.elsewhen:
        case = _elsewhen(case, rng)
    if rng.random() < variation.alone:
        alone = replace(case, bad=None)
        answer = _least(alone) if made_up else None
        return Example(actor_messages(alone), actor_reply(alone, answer or right_answer(labelled, listed)))
    options = [c for c in listed if c.id != bad.id]
    losers = [c for c in options if not clearly_worse(labelled, bad, c)]
    losers = [losers[i] for i in rng.permutation(len(losers))][: min(3, len(options) - 1)]
    if not made_up:
        losers = losers[: int(rng.integers(1, 4))] if rng.random() < variation.later_rounds else []
    history = [_attempt(labelled, c, bad) for c in losers]
    tried = {attempt.action.id for attempt in history if attempt.action is not None}
    answer = _least(case, history) if made_up else None
    target = answer or right_answer(labelled, [c for c in options if c.id not in tried])
    return Example(actor_messages(case, history), actor_reply(case, target, history))


def _least(case: CaseView, history: Sequence[AttemptView] = ()) -> CandidateView | None:
    """What the prompt ends with; None where it shows no danger."""
    left = what_is_left(case, history)
    return case.candidates[left[0]] if left else None


def _with_outcomes(
    labelled: LabelledCase, known: Sequence[CandidateView], rng: np.random.Generator, variation: Variation
) -> LabelledCase:
    """The case with made-up outcomes: the played action and those that later rounds have tried die, the others tie.

    The answer is the least danger of what is left, whatever was least before, so feedback has to be read.
    """
    horizon = labelled.case.facts.horizon
    least = right_answer(labelled, known)
    played = least if rng.random() < _LEAST_IS_BAD else known[int(rng.integers(len(known)))]
    doomed = {played.id}
    if rng.random() < variation.later_rounds:
        others = sorted((c for c in known if c.id != played.id), key=_foreseen, reverse=True)
        count = min(int(rng.integers(1, 4)), len(others) - 1)
        chosen = range(count) if rng.random() < _LEAST_IS_BAD else rng.permutation(len(others))[:count]
        doomed |= {others[i].id for i in chosen}
    span = horizon * _STEP_RETURN
    survived = Outcome(True, horizon, round(span * rng.uniform(0.9, 1.1), 4), span)
    latest = int(rng.integers(2, horizon))
    outcomes = {}
    for candidate in known:
        steps = latest if candidate.id == played.id or rng.random() < 0.3 else int(rng.integers(1, latest))
        dead = Outcome(False, steps, round(steps * _STEP_RETURN - 1, 4), span)
        outcomes[candidate.id] = dead if candidate.id in doomed else survived
    return replace(labelled, played=played, outcomes=outcomes)


def actor_reply(case: CaseView, target: CandidateView, history: Sequence[AttemptView] = ()) -> str:
    """The reply that proposes a listed candidate, with the analysis that leads to it.

    It says in the prompt's own words whether that is the one of least danger.
    """
    number = case.number(target.id)
    if number is None:
        raise ValueError(f"action {target.id} is not listed")
    loaded = case.loaded[0]
    analysis = f"Line {loaded.line} is at {loaded.percent} %"
    if case.outages:
        analysis += f"; losing line {case.outages[0].line} would bring {loading(case.outages[0].percent)}"
    first = what_is_left(case, history)[:1] == [number]
    analysis += f". {LEAST if first else 'Better: candidate'} {number}, {_effect(target)}."
    reply = {"analysis": analysis, "why_bad": why_bad(case), "action": {"candidate": number}}
    return json.dumps(reply, separators=(",", ":"))  # the grammar that replies are held to allows no blanks


def why_bad(case: CaseView) -> str:
    """Why the bad example was bad: what it was predicted to leave, and how it ended."""
    if case.bad is None:
        return "There is no bad example."
    parts = []
    bad = case.bad.action
    if bad.percent >= 0:
        parts.append(f"It leaves {_effect(bad)}")
    if case.bad.outcome is not None:
        parts.append(outcome_text(case.bad.outcome, case.facts.horizon))
    text = "; ".join(parts) or "Its effect is unknown"
    return text[0].upper() + text[1:] + "."


def _effect(action: CandidateView) -> str:
    """'danger 12', or without it '93 % and 120 % after an outage'."""
    if action.danger >= 0:
        return f"danger {action.danger}"
    text = loading(action.percent)
    if not action.collapses and action.outage_percent >= 0:
        text += f" and {loading(action.outage_percent)} after an outage"
    if not action.collapses and action.else_percent >= 0:
        text += f", else {action.else_percent} %"
    return text


def random_date(rng: np.random.Generator) -> str:
    """A made-up date and time in the words of the prompts."""
    hour, minute = int(rng.integers(24)), 5 * int(rng.integers(12))
    weekday, day, month = int(rng.integers(7)), int(rng.integers(1, 31)), int(rng.integers(1, 13))
    return date_text(weekday, day, month, hour, minute)


def _elsewhen(case: CaseView, rng: np.random.Generator) -> CaseView:
    demand = round(case.demand_mw * float(rng.uniform(0.9, 1.1)))
    return replace(case, when=random_date(rng), step=int(rng.integers(2000)), demand_mw=demand)


def _bad_example(
    labelled: LabelledCase,
    known: Sequence[CandidateView],
    rng: np.random.Generator,
    variation: Variation,
) -> CandidateView:
    """The played action if it was clearly worse (always when deployed), else any clearly worse one, else any other."""
    best = right_answer(labelled, known)
    worse = labelled.played.id != best.id and labelled.played.id in labelled.outcomes
    worse = worse and clearly_worse(labelled, labelled.played, best)
    if (variation == DEPLOYED and labelled.played.id != best.id) or (worse and rng.random() < 0.5):
        return labelled.played
    others = [c for c in known if c.id != best.id]
    inferior = [c for c in others if clearly_worse(labelled, c, best)] or others
    return inferior[int(rng.integers(len(inferior)))]


def _listed(
    known: Sequence[CandidateView], rng: np.random.Generator, variation: Variation, keep: set[int]
) -> list[CandidateView]:
    """Do-nothing as number 0 where it is known, then the rest: all or some, by score or in random order."""
    first = [c for c in known if c.id == 0]
    rest = [c for c in known if c.id != 0]
    if len(rest) > 4 and rng.random() < variation.shorten:
        count = int(rng.integers(4, len(rest) + 1))
        chosen = set(rng.permutation(len(rest))[:count].tolist())
        rest = [c for i, c in enumerate(rest) if i in chosen or c.id in keep]
    if rng.random() < variation.shuffle:
        rest = [rest[i] for i in rng.permutation(len(rest))]
    return first + rest


def _attempt(labelled: LabelledCase, tried: CandidateView, bad: CandidateView) -> AttemptView:
    """An earlier round: an action that was no better than the bad example, with how it ended."""
    verdict = "worse" if clearly_worse(labelled, tried, bad) else "tie"
    return AttemptView(tried, labelled.outcomes[tried.id], verdict)
