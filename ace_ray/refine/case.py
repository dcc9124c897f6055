"""What a refinement is made of: the case, the proposals, and what the replay said of them.

Plain data shared by refiners and proposers. Nothing here decides: `ace_ray.refine.comparator` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ace_ray.domain import Decision, Outcome, Snapshot, Verdict
from ace_ray.language.prompts import Message
from ace_ray.language.reply import Resolved

ProposalError = Literal["unparsed", "illegal", "repeats", "deadline", "refused"]


@dataclass(frozen=True)
class Case:
    """One decision that is thought over again.

    Attributes:
        snapshot: rebuilds the state before the decision.
        obs: the observation of that state.
        decision: the slots offered there, the played action among them.
        played: catalogue id of the bad example.
        outcome: how the bad example ended.
        compared: outcomes of the compared set C (docs/design.md) by catalogue id; may be empty.
        reason: why this decision is refined: 'lookback' | 'advantage' | 'seed' | 'paper'.
        distance: decisions before the blackout (0: the last one); -1 where there was none.
    """

    snapshot: Snapshot
    obs: Any
    decision: Decision
    played: int
    outcome: Outcome
    compared: Mapping[int, Outcome] = field(default_factory=dict)
    reason: str = "lookback"
    distance: int = -1


@dataclass(frozen=True)
class Proposal:
    """An answer to a case.

    Attributes:
        id: catalogue id, or None when the answer names no legal action (then `error` says why).
        prompt, reply: the text of the exchange; empty where no language model answered.
        error: None, or why the answer cannot be replayed.
        model: who answered: the model's name, 'search' or 'random'.
        adapter_version: version of the adapter that answered; 0 is the base model.
        prompt_tokens, reply_tokens: sizes of the exchange, 0 where unknown.
        seconds: wall time of the answer.
        case: what the model was shown in the first round, as JSON (`CaseView.to_json`); empty in later ones.
    """

    id: int | None
    prompt: str = ""
    reply: str = ""
    error: ProposalError | None = None
    model: str = ""
    adapter_version: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0
    case: str = ""


@dataclass(frozen=True)
class Attempt:
    """A proposal together with what its replay showed: the feedback of the next round.

    Attributes:
        id: proposed catalogue id, or None.
        outcome: outcome of the proposal; None when it could not be replayed.
        verdict: of the proposal against the played action; None when it could not be replayed.
        error: as in `Proposal`.
        proposal: the answer itself, for the record.
    """

    id: int | None
    outcome: Outcome | None
    verdict: Verdict | None
    error: ProposalError | None = None
    proposal: Proposal | None = None


class Proposer(Protocol):
    """Proposes a better action than the bad example; asked again with what happened, at most `rounds` times."""

    def propose(self, case: Case, history: Sequence[Attempt]) -> Proposal:
        """Returns one proposal; it raises only when nothing at all can be asked any more."""
        ...


class Words(Protocol):
    """Puts decisions of a domain into words and reads replies; `ace_ray.language.actor.Actor` is the grid's."""

    @property
    def schema(self) -> dict[str, Any]:
        """Constant JSON schema of the replies."""
        ...

    def case(self, obs: Any, decision: Any, played: int | None = None, outcome: Outcome | None = None) -> Any:
        """Describes a decision (`to_json` writes the description down) and how the action played there ended."""
        ...

    def messages(self, case: Any, obs: Any, decision: Any, history: Sequence[Attempt] = ()) -> list[Message]:
        """The chat of the next round."""
        ...

    def read(self, text: str, case: Any, obs: Any, history: Sequence[Attempt] = ()) -> Resolved:
        """The action that a reply proposes, or what is wrong with it."""
        ...

    def action_text(self, id: int, obs: Any) -> str:
        """What an action changes."""
        ...

    def when_text(self, obs: Any) -> str:
        """The time of an observation."""
        ...
