"""What refinement did, counted from its own records: the same counts come out live and after a resume."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

RESULTS = ("accepted", "rejected", "unsalvageable", "survived", "skipped", "no_gap", "failed", "dropped")


class RefinementCounters:
    """Asked, salvageable and accepted by look-back distance; results by status and reason; rounds and their errors."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.by_reason: dict[str, Counter[str]] = defaultdict(Counter)
        self.by_distance: dict[int, Counter[str]] = defaultdict(Counter)
        self.verdicts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.rounds = 0
        self.later_rounds = 0
        self.accepted_by_round: Counter[int] = Counter()

    def add(self, record: Mapping[str, Any]) -> None:
        """Counts one refinement record; 'pending' ones count for nothing yet."""
        if record["status"] == "round":
            self.rounds += 1
            self.later_rounds += record["round"] > 1
            self.verdicts[record["verdict"] or "none"] += 1
            if record["error"]:
                self.errors[record["error"]] += 1
            return
        if record["status"] not in RESULTS:
            return
        facts = {
            record["status"]: 1,
            "asked": int(record["rounds"] > 0),
            "salvageable": int(record["salvageable"]),
        }
        self.results.update(facts)
        self.by_reason[record["reason"]].update(facts)
        if record["distance"] >= 0:
            self.by_distance[record["distance"]].update(facts)
        if record["status"] == "accepted":
            self.accepted_by_round[record["rounds"]] += 1

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, keys as text."""
        return {
            **{name: self.results[name] for name in ("asked", "salvageable", *RESULTS)},
            "rounds": self.rounds,
            "later_rounds": self.later_rounds,
            "verdicts": dict(self.verdicts),
            "errors": dict(self.errors),
            "by_reason": {reason: dict(counts) for reason, counts in sorted(self.by_reason.items())},
            "by_distance": {str(d): dict(counts) for d, counts in sorted(self.by_distance.items())},
            "accepted_by_round": {str(r): n for r, n in sorted(self.accepted_by_round.items())},
        }
