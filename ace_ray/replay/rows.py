"""Decisions and what followed them as rows of the replay (replay/records.py); the same for rollout and refiners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ace_ray.domain import Decision, Snapshot
from ace_ray.replay.episodes import log_to_json


class IdBlock:
    """Ids one at a time, fetched in blocks: `reserve(n)` returns the first of n ids that nobody else gets."""

    def __init__(self, reserve: Callable[[int], int], block: int = 256) -> None:
        self._reserve = reserve
        self._block = block
        self._next = self._end = 0

    def take(self) -> int:
        """The next id."""
        if self._next == self._end:
            self._next = self._reserve(self._block)
            self._end = self._next + self._block
        self._next += 1
        return self._next - 1


def transition_row(
    *,
    id: int,
    state_id: int,
    next_id: int,
    snapshot: Snapshot,
    decision: Decision,
    slot: int,
    reward: float,
    terminated: bool,
    truncated: bool,
    info: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """The record of one transition; `more` are further columns of replay/records.py.

    Args:
        id, state_id, next_id: its id, its state's and the next state's (-1 after a blackout).
        snapshot: of the decision.
        decision, slot: what was offered and what was played.
        reward, terminated, truncated, info: as DecisionEnv.step returned them.
    """
    rank, behind = decision.standing(slot)
    return {
        "id": id,
        "state_id": state_id,
        "next_id": next_id,
        "scenario": snapshot.scenario.to_json(),
        "step": snapshot.step,
        "steps": info["steps"],
        "segment": log_to_json(info["segment"]),
        "slot": slot,
        "catalogue_id": int(decision.ids[slot]),
        "reward": reward,
        "discount": info["discount"],
        "terminated": terminated,
        "truncated": truncated,
        "rho_max": max(info["rho_max"]),
        "rank": rank,
        "behind": behind,
        **more,
    }
