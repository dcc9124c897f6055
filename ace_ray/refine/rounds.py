"""Rounds of thinking twice: a proposal is checked, replayed and judged, and what happened is the next round's feedback.

Refiners, `ace llm eval` and `ace llm ask` all judge here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ace_ray.domain import Outcome, Snapshot
from ace_ray.refine.case import Attempt, Case, Proposal, ProposalError, Proposer
from ace_ray.refine.comparator import Comparator


def make_case(
    comparator: Comparator,
    snapshot: Snapshot,
    played: int,
    outcomes: Mapping[int, Outcome],
    reason: str = "lookback",
    distance: int = -1,
) -> Case:
    """The case of a decision whose played action's outcome is known (`outcomes[played]`)."""
    obs = comparator.observation(snapshot)
    decision = comparator.simulator.decide(obs, proposals=[played])
    return Case(snapshot, obs, decision, played, outcomes[played], outcomes, reason, distance)


def judge(comparator: Comparator, case: Case, proposal: Proposal, history: Sequence[Attempt] = ()) -> Attempt:
    """Checks a proposal and replays it; what cannot be played costs the round, nothing more."""
    error = fault(comparator, case, proposal, history)
    if error is not None or proposal.id is None:
        return Attempt(proposal.id, None, None, error, proposal)
    outcome = comparator.outcome(case.snapshot, proposal.id)
    verdict = comparator.verdict(outcome, case.outcome)
    return Attempt(proposal.id, outcome, verdict, None, proposal)


def fault(
    comparator: Comparator, case: Case, proposal: Proposal, history: Sequence[Attempt] = ()
) -> ProposalError | None:
    """Why a proposal cannot be played now; None where it can."""
    id = proposal.id
    if proposal.error is not None or id is None:
        return proposal.error or "unparsed"
    if id == case.played or id in {attempt.id for attempt in history}:
        return "repeats"
    return None if playable(comparator, case, id) else "illegal"


def think(
    comparator: Comparator,
    proposer: Proposer,
    case: Case,
    rounds: int,
    tell: Callable[[Attempt], None] = lambda attempt: None,
) -> list[Attempt]:
    """Asks and replays until a proposal is better than the played action, at most `rounds` times.

    Args:
        tell: hears of each round as it ends.
    """
    history: list[Attempt] = []
    while len(history) < rounds and not (history and history[-1].verdict == "better"):
        history.append(judge(comparator, case, proposer.propose(case, history), history))
        tell(history[-1])
    return history


def playable(comparator: Comparator, case: Case, id: int) -> bool:
    """Whether an id has a legal slot, or would have one if it were proposed."""
    decision = case.decision
    if id not in decision.ids:
        decision = comparator.simulator.decide(case.obs, proposals=[case.played, id])
    return decision.legal_slot(id) is not None
