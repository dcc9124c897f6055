"""Who proposes the better action: search, chance, or the language model. All spend the same number of replays.

They implement `ace_ray.refine.case.Proposer`; the refiner replays and judges, whoever proposed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ace_ray.config.refine import LanguageSettings, RefineSettings
from ace_ray.domain import Decision
from ace_ray.language.ask import ask_model
from ace_ray.language.reply import Resolved
from ace_ray.refine.case import Attempt, Case, Proposal, Proposer, Words
from llm_service.adapters import AdapterRef
from llm_service.protocol import LLM, Priority


def _failed(case: Case, history: Sequence[Attempt]) -> set[int]:
    """What was played and what was tried since."""
    return {case.played, *(attempt.id for attempt in history if attempt.id is not None)}


def _open_slots(decision: Decision, failed: Collection[int]) -> NDArray[np.intp]:
    """Legal slots whose action has not failed yet."""
    return np.flatnonzero(decision.mask & (decision.ids >= 0) & ~np.isin(decision.ids, list(failed)))


def next_by_score(decision: Decision, failed: Collection[int]) -> int | None:
    """Catalogue id of the best slot score among actions unlike those that failed; None if all have.

    What is predicted to have the effect of one that failed comes when nothing else is left (docs/language-model.md).
    """
    slots = _open_slots(decision, failed)
    if not slots.size:
        return None
    effects = {decision.effect(slot) for slot in np.flatnonzero(np.isin(decision.ids, list(failed)))}
    unlike = [slot for slot in slots if decision.effect(slot) not in effects] or slots.tolist()
    return int(decision.ids[max(unlike, key=lambda slot: decision.score[slot])])


def _nothing_left(model: str) -> Proposal:
    return Proposal(None, error="repeats", model=model)


class SearchProposer:
    """The next best candidate by slot score that is unlike what was tried (`next_by_score`)."""

    name = "search"

    def propose(self, case: Case, history: Sequence[Attempt]) -> Proposal:
        """See Proposer."""
        best = next_by_score(case.decision, _failed(case, history))
        return _nothing_left(self.name) if best is None else Proposal(best, model=self.name)


class RandomProposer:
    """A random legal slot that was not tried yet: what the other two have to beat.

    Args:
        seed: of the draws.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def propose(self, case: Case, history: Sequence[Attempt]) -> Proposal:
        """See Proposer."""
        slots = _open_slots(case.decision, _failed(case, history))
        if not slots.size:
            return _nothing_left(self.name)
        return Proposal(int(case.decision.ids[self._rng.choice(slots)]), model=self.name)


class LanguageProposer:
    """The language model as policy actor (docs/method.md, eq. 4): bad-case reasoning, rounds with feedback.

    What the model says is data: it is parsed and looked up in the catalogue. Anything that cannot be played is an error
    of that round. A broken model or adapter raises (`llm_service.errors.ModelError`): nothing can be asked then.

    Args:
        client: an `llm_service` client (`ask`).
        words: makes the messages and reads the replies.
        settings: tokens, temperature, deadline.
        seed: of the sampling; each request has its own.
        adapter: exactly this version answers; None: the one that is published for the actor.
        priority: of the requests; None: seeded decisions after fresh ones.
        grammar: hold replies to the schema.
    """

    name = "llm"

    def __init__(
        self,
        client: LLM,
        words: Words,
        settings: LanguageSettings,
        seed: int = 0,
        *,
        adapter: AdapterRef | None = None,
        priority: Priority | None = None,
        grammar: bool = True,
    ) -> None:
        self._client = client
        self._words = words
        self._settings = settings
        self._adapter = adapter
        self._priority = priority
        self._schema = words.schema if grammar else None
        self._rng = np.random.default_rng(seed)

    def propose(self, case: Case, history: Sequence[Attempt]) -> Proposal:
        """See Proposer."""
        view = self._words.case(case.obs, case.decision, case.played, case.outcome)
        messages = self._words.messages(view, case.obs, case.decision, history)
        prompt = json.dumps(messages)
        seed = int(self._rng.integers(2**31))
        answer = ask_model(
            self._client,
            messages,
            self._settings,
            schema=self._schema,
            role="actor",
            adapter=self._adapter,
            priority=_urgency(case) if self._priority is None else self._priority,
            seed=seed,
        )
        reply = answer.reply
        if reply is None:
            return Proposal(None, prompt=prompt, error=answer.error, seconds=answer.seconds)
        resolved = Resolved(None, "unparsed")
        if answer.whole:
            resolved = self._words.read(reply.text, view, case.obs, history)
        return Proposal(
            resolved.playable,
            prompt=prompt,
            reply=reply.text,
            error=resolved.error,
            model=reply.model,
            adapter_version=reply.version,
            prompt_tokens=reply.prompt_tokens,
            reply_tokens=reply.reply_tokens,
            seconds=answer.seconds,
            case="" if history else view.to_json(),
        )


def _urgency(case: Case) -> Priority:
    return Priority.BACKFILL if case.reason == "seed" else Priority.FRESH


def replay_free_proposer(settings: RefineSettings, seed: int) -> Proposer:
    """The proposer of a refiner that needs no language model."""
    return SearchProposer() if settings.refiner == "search" else RandomProposer(seed)
