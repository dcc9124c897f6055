"""What became of an action, and the one definition of *better* (docs/design.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Fate:
    """An action played from one state and followed over the horizon H by the common continuation.

    Attributes:
        survived: alive after H environment steps, or at the end of the scenario where that comes first.
        steps: environment steps played, the action's own included; the step of the blackout counts.
        ret: return over these steps: the *undiscounted* sum of step rewards (load/production - 0.9 each, -1 at a
            blackout, by default).
        span: the horizon's reward, the measure of a tie: mean step reward while alive times the steps that the
            horizon holds. 0 where unknown: then the larger |ret| of the two compared fates is the measure.
    """

    survived: bool
    steps: int
    ret: float
    span: float = 0.0

    def to_json(self) -> list[float]:
        """`[survived, steps, ret, span]`, numbers only."""
        return [int(self.survived), self.steps, self.ret, self.span]

    @classmethod
    def from_json(cls, row: Iterable[float]) -> Fate:
        """The inverse of `to_json`."""
        survived, steps, ret, span = row
        return cls(bool(survived), int(steps), float(ret), float(span))


class Ended(Protocol):
    """How a replay ended: a `Fate`, or the part of one that labels and prompts keep."""

    @property
    def survived(self) -> bool: ...

    @property
    def steps(self) -> int: ...


def survived_share(ended: Ended, horizon: int) -> float:
    """Share of the horizon survived, 0 to 1; 1 for whoever is alive at its end (or at the scenario's)."""
    return 1.0 if ended.survived else min(1.0, ended.steps / horizon)


def survival_regret(known: Iterable[Ended], proposed: Ended | None, horizon: int) -> float:
    """Share of the horizon that the best of `known` survives, minus that of the proposal.

    None (a proposal that cannot be played) counts as the worst of `known`. Negative where a proposal outside `known`
    outlives all of it.
    """
    shares = [survived_share(ended, horizon) for ended in known]
    return max(shares) - (min(shares) if proposed is None else survived_share(proposed, horizon))


def verdict(a: Fate, b: Fate, tie: float) -> Literal["better", "tie", "worse"]:
    """Says whether `a` is better than `b`: survival first, then return.

    Args:
        a, b: fates of two actions from the same state over the same horizon.
        tie: returns closer than this share of the horizon's reward are a tie (`CompareSettings.tie`). Of two deaths
            the later one has the higher return, and the same measure holds.
    """
    if a.survived != b.survived:
        return "better" if a.survived else "worse"
    measure = max(abs(a.span), abs(b.span)) or max(abs(a.ret), abs(b.ret))
    difference = a.ret - b.ret
    if abs(difference) <= tie * measure:
        return "tie"
    return "better" if difference > 0 else "worse"


def best(fates: Mapping[int, Fate]) -> int:
    """Catalogue id of the best fate: survival, then return, then the smallest id."""
    return max(fates, key=lambda i: (fates[i].survived, fates[i].ret, -i))


def salvageable(fates: Mapping[int, Fate], played: int) -> bool:
    """True when the played action dies and another of the compared set survives."""
    return not fates[played].survived and any(fate.survived for i, fate in fates.items() if i != played)


def pivotal(fates: Mapping[int, Fate]) -> bool:
    """True when the actions of `fates` (do-nothing and the first 12) do not share one fate: some die, some survive."""
    return len({fate.survived for fate in fates.values()}) > 1
