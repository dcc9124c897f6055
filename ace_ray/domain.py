"""What the method knows of the environment it is used on. Pure: no environment is imported here.

What a replay shows is an `Outcome`, and there is one definition of *better*: every verdict of a run, of a lesson and of
the acceptance gate is `verdict`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

ActionLog = tuple[tuple[int, tuple[int, ...]], ...]
"""Sparse: (environment step from the scenario's start, action ids played at that step); other steps do nothing."""

Verdict = Literal["better", "tie", "worse"]


@dataclass(frozen=True)
class Outcome:
    """How an action ended that was played in one state and followed over the horizon by the common continuation.

    Attributes:
        survived: alive after `horizon` environment steps, or at the end of the scenario where that comes first.
        steps: environment steps played, the action's own included; the step of the failure counts.
        ret: return over these steps: the *undiscounted* sum of step rewards.
        span: the horizon's reward, the measure of a tie: mean step reward while alive times the steps that the
            horizon holds. 0 where unknown: then the larger |ret| of the two compared outcomes is the measure.
    """

    survived: bool
    steps: int
    ret: float
    span: float = 0.0

    def to_json(self) -> list[float]:
        """`[survived, steps, ret, span]`, numbers only."""
        return [int(self.survived), self.steps, self.ret, self.span]

    @classmethod
    def from_json(cls, row: Iterable[float]) -> Outcome:
        """The inverse of `to_json`."""
        survived, steps, ret, span = row
        return cls(bool(survived), int(steps), float(ret), float(span))

    def rounded(self) -> Outcome:
        """As prompts and cases keep it: four decimals."""
        return replace(self, ret=round(self.ret, 4), span=round(self.span, 4))


def verdict(a: Outcome, b: Outcome, tie: float) -> Verdict:
    """Says whether `a` is better than `b`: survival first, then return.

    Two survivors are compared by return, and so are two failures: the later one has collected more reward. Steps alone
    decide nothing, or two blackouts a step apart would count as a difference.

    Args:
        a, b: outcomes of two actions from the same state over the same horizon.
        tie: returns closer than this share of the horizon's reward are a tie (`CompareSettings.tie`).
    """
    if a.survived != b.survived:
        return "better" if a.survived else "worse"
    measure = max(abs(a.span), abs(b.span)) or max(abs(a.ret), abs(b.ret))
    difference = a.ret - b.ret
    if abs(difference) <= tie * measure:
        return "tie"
    return "better" if difference > 0 else "worse"


def best(outcomes: Mapping[int, Outcome]) -> int:
    """Action id of the best outcome: survival, then return, then the smallest id."""
    return max(outcomes, key=lambda i: (outcomes[i].survived, outcomes[i].ret, -i))


def survived_share(outcome: Outcome, horizon: int) -> float:
    """Share of the horizon survived, 0 to 1; 1 for whoever is alive at its end (or at the scenario's)."""
    return 1.0 if outcome.survived else min(1.0, outcome.steps / horizon)


def survival_regret(known: Iterable[Outcome], proposed: Outcome | None, horizon: int) -> float:
    """Share of the horizon that the best of `known` survives, minus that of the proposal.

    None (a proposal that cannot be played) counts as the worst of `known`. Negative where a proposal outside `known`
    outlives all of it.
    """
    shares = [survived_share(outcome, horizon) for outcome in known]
    return max(shares) - (min(shares) if proposed is None else survived_share(proposed, horizon))


def salvageable(outcomes: Mapping[int, Outcome], played: int) -> bool:
    """True when the played action fails and another of the compared set survives."""
    return not outcomes[played].survived and any(o.survived for i, o in outcomes.items() if i != played)


def pivotal(outcomes: Mapping[int, Outcome]) -> bool:
    """True when some actions of `outcomes` (do-nothing and the first 12) survive and others do not."""
    return len({outcome.survived for outcome in outcomes.values()}) > 1
