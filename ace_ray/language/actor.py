"""The actor (docs/method.md, eq. 4): thinks twice about one decision that went badly.

Bad-case reasoning: the bad example and how it ended are part of the first question. Multi-round reasoning: a proposal
that the replay shows to be no better goes back with what happened. Asking, replaying and counting rounds is the
refiner's part; here are the question and the reading of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ace_ray.config.refine import LanguageSettings
from ace_ray.domain import Outcome
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.catalogue import Catalogue
from ace_ray.grid.risk import Risk
from ace_ray.language.describe import action_text, candidate_view, describe_case, facts_of, unlisted_view, when_text
from ace_ray.language.paper import paper_messages, resolve_changes
from ace_ray.language.prompts import AttemptView, Message, actor_messages
from ace_ray.language.reply import Resolved, resolve
from ace_ray.language.schema import ACTOR_SCHEMA, PAPER_SCHEMA
from ace_ray.language.view import CandidateView, CaseView, GridFacts


class Tried(Protocol):
    """An earlier round as the refiner keeps it."""

    @property
    def id(self) -> int | None: ...

    @property
    def outcome(self) -> Outcome | None: ...

    @property
    def verdict(self) -> str | None: ...

    @property
    def error(self) -> str | None: ...


@dataclass(frozen=True)
class Dialect:
    """How a case is written, how the answer is read, and the schema that holds the answer to that."""

    messages: Callable[[CaseView, Sequence[AttemptView]], list[Message]]
    resolve: Callable[[str, CaseView, Catalogue, np.ndarray, Collection[int]], Resolved]
    schema: dict[str, Any]


DIALECTS: dict[Literal["ace", "paper"], Dialect] = {
    "ace": Dialect(actor_messages, resolve, ACTOR_SCHEMA),
    "paper": Dialect(paper_messages, resolve_changes, PAPER_SCHEMA),
}


class Actor:
    """Questions and answers about decisions on one grid.

    Args:
        engine: decision engine of the grid, for its catalogue and the danger of candidates.
        facts: the grid's facts (`describe.facts_of`).
        settings: which prompt, and how much of the state it shows.

    Attributes:
        schema: constant JSON schema of the replies.
    """

    def __init__(self, engine: DecisionEngine, facts: GridFacts, settings: LanguageSettings) -> None:
        self.catalogue = engine.catalogue
        self.facts = facts
        self.settings = settings
        self._dialect = DIALECTS[settings.prompt]
        self._danger = Risk(engine)
        self.schema = self._dialect.schema

    @classmethod
    def of(cls, env: Any, engine: DecisionEngine, settings: LanguageSettings) -> Actor:
        """The actor of a grid; the environment is read for its facts."""
        return cls(engine, facts_of(env, engine.security.lines, engine.settings), settings)

    def case(
        self, obs: GridObservation, decision: Decision, played: int | None = None, outcome: Outcome | None = None
    ) -> CaseView:
        """Describes a decision; `played` is the bad example and `outcome` how it ended."""
        paper = self.settings.prompt == "paper"
        dangers = (lambda ids: self._danger.of(obs, ids, decision.accompany)) if self.settings.danger else None
        return describe_case(
            obs,
            decision,
            self.catalogue,
            self.facts,
            candidates=0 if paper else self.settings.candidates,
            substations=self.settings.substations,
            flows=paper or self.settings.flows,
            played=played,
            outcome=None if outcome is None else outcome.rounded(),
            dangers=None if paper else dangers,
        )

    def messages(
        self, case: CaseView, obs: GridObservation, decision: Decision, history: Sequence[Tried] = ()
    ) -> list[Message]:
        """The chat of the next round."""
        return self._dialect.messages(case, [self._attempt(tried, obs, decision) for tried in history])

    def read(self, text: str, case: CaseView, obs: GridObservation, history: Sequence[Tried] = ()) -> Resolved:
        """The catalogue id that a reply proposes, or what is wrong with it."""
        taken = {tried.id for tried in history if tried.id is not None}
        return self._dialect.resolve(text, case, self.catalogue, self.catalogue.legal(obs), taken)

    def action_text(self, id: int, obs: GridObservation) -> str:
        """What a catalogue action changes, relative to the present topology."""
        return action_text(self.catalogue, id, obs)

    def when_text(self, obs: GridObservation) -> str:
        """Weekday, date and time of an observation."""
        return when_text(obs)

    def _attempt(self, tried: Tried, obs: GridObservation, decision: Decision) -> AttemptView:
        action = None if tried.id is None else self.view(tried.id, obs, decision)
        ended = None if tried.outcome is None else tried.outcome.rounded()
        return AttemptView(action, ended, tried.verdict, tried.error)

    def view(self, action_id: int, obs: GridObservation, decision: Decision) -> CandidateView:
        """An action with its predicted effect where the decision has a slot for it."""
        slots = [k for k, i in enumerate(decision.ids) if int(i) == action_id and decision.mask[k]]
        if slots:
            return candidate_view(self.catalogue, self.facts, decision, slots[0], obs)
        return unlisted_view(self.catalogue, action_id, obs)
