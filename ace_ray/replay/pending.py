"""Pending refinements: decisions that wait to be thought over again, and the bounded queue that orders them.

Order of service: decisions before a blackout (reason 'lookback', or 'paper' for trigger=paper), the latest
blackout first and within it from the blackout backwards; then a share of lowest-advantage decisions ('advantage');
then shipped salvageable snapshots ('seed'). Pure: no Ray, no files; replay/actor.py writes every change to the shards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ace_ray.domain import Snapshot
from ace_ray.schema import States

Reason = Literal["lookback", "paper", "advantage", "seed"]
TIER: dict[str, int] = {"lookback": 0, "paper": 0, "advantage": 1, "seed": 2}


@dataclass(frozen=True)
class PendingRefinement:
    """One decision to think over.

    Attributes:
        id: of the refinement (shared with its records in the shards).
        parent_id: transition that was played, -1 for a seed snapshot.
        snapshot: rebuilds the state of the decision.
        played: catalogue id that was played (the decision's, without what accompanied it).
        reason: why it is asked about.
        distance: decisions between it and the blackout (0: the last one), -1 where there is none.
        priority: higher first within its reason (minus the advantage; for look-back the time of the blackout).
        chain: episode whose blackout made it, '' where there is none.
        reward: semi-MDP reward of the played transition, original; NaN for a seed.
    """

    id: int
    parent_id: int
    snapshot: Snapshot
    played: int
    reason: Reason
    distance: int = -1
    priority: float = 0.0
    chain: str = ""
    reward: float = float("nan")


@dataclass
class RefinementResult:
    """What a refiner found out about one pending refinement.

    Attributes:
        pending: what was asked.
        status: 'accepted' (a better action was confirmed), 'rejected' (rounds spent in vain), 'unsalvageable' (nothing
            in C survives), 'survived' (the played action does), 'skipped' (a later one of the chain survived),
            'no_gap' (no alternative is better), 'failed' (the state could not be rebuilt or replayed).
        salvageable: whether the played action dies and one of C survives.
        advantage: return of the played action minus that of the best replayed alternative; NaN when not known.
        rounds: one dict a round, columns of the refinement record (replay/records.py).
        states, transitions: states (in parts) and transition records; [] when nothing was played.
        refined: index into transitions of the row for D_LLM, -1 for none.
        error: of a failed one.
    """

    pending: PendingRefinement
    status: str
    salvageable: bool = False
    advantage: float = float("nan")
    rounds: list[dict[str, Any]] = field(default_factory=list)
    states: list[States] = field(default_factory=list)
    transitions: list[dict[str, Any]] = field(default_factory=list)
    refined: int = -1
    error: str = ""


class PendingQueue:
    """At most `capacity` pending refinements; when full, the oldest of the lowest value goes.

    Args:
        capacity: bound.
        advantage_share: share of requests spent on lowest-advantage decisions while seeds wait too and no
            blackout does.
        seed: of that choice.
    """

    def __init__(self, capacity: int, advantage_share: float, seed: int = 0) -> None:
        self.capacity = capacity
        self._share = advantage_share
        self._rng = np.random.default_rng(seed)
        self._items: dict[int, PendingRefinement] = {}

    def __len__(self) -> int:
        return len(self._items)

    def count(self) -> dict[str, int]:
        """Waiting, by reason."""
        counts = dict.fromkeys(TIER, 0)
        for item in self._items.values():
            counts[item.reason] += 1
        return counts

    def push(self, items: Iterable[PendingRefinement]) -> list[PendingRefinement]:
        """Adds items; returns those that had to go to keep the bound (new ones included)."""
        for item in items:
            self._items[item.id] = item
        dropped = []
        while len(self._items) > self.capacity:
            worst = min(self._items.values(), key=lambda p: (-TIER[p.reason], p.priority, -p.distance, p.id))
            dropped.append(self._items.pop(worst.id))
        return dropped

    def pop(self) -> list[PendingRefinement]:
        """Removes and returns what is asked about next: one decision, or all waiting decisions before one blackout,
        from the blackout backwards (they lie on one action log, so one replay reaches them all). [] when none waits.
        """
        if not self._items:
            return []
        tier = self._tier()
        best = min(
            (p for p in self._items.values() if TIER[p.reason] == tier),
            key=lambda p: (-p.priority, p.distance, p.id),
        )
        taken = [best]
        if best.reason == "lookback" and best.chain:
            taken = [p for p in self._items.values() if p.reason == "lookback" and p.chain == best.chain]
        for item in taken:
            del self._items[item.id]
        return sorted(taken, key=lambda p: (p.distance, p.id))

    def discard(self, id: int) -> None:
        """Removes one refinement if it waits here."""
        self._items.pop(id, None)

    def _tier(self) -> int:
        tiers = {TIER[p.reason] for p in self._items.values()}
        if tiers == {TIER["advantage"], TIER["seed"]}:
            return TIER["advantage"] if self._rng.random() < self._share else TIER["seed"]
        return min(tiers)
