"""Episodes as their records come in: what a blackout leaves to start from, and whole episodes for the critic."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ace_ray.grid.scenarios.snapshot import Snapshot
from ace_ray.replay.episodes import snapshots_of

HARD_STARTS = 256  # blackouts remembered
CRITIC_WAITING = 8  # episodes; the critic is slow, and older ones say little about the present policy
OPEN_EPISODES = 256


class FollowedEpisodes:
    """Puts the transition records of the policy together to episodes. Nothing here is durable but what `blackouts` is
    filled with again on resume.

    Args:
        lookback: decisions before a blackout that a hard start is drawn from.
        every: each so-manieth finished episode is kept for the critic; 0 for none.
        seed: of the draws.
    """

    def __init__(self, lookback: int, every: int, seed: int) -> None:
        self.blackouts: deque[list[Snapshot]] = deque(maxlen=HARD_STARTS)  # decisions before each, the latest first
        self._lookback = lookback
        self._every = every
        self._rng = np.random.default_rng(seed)
        self._open: dict[str, list[dict[str, Any]]] = {}
        self._waiting: deque[list[dict[str, Any]]] = deque(maxlen=CRITIC_WAITING)
        self._finished = 0

    def follow(self, row: dict[str, Any], critic_works: bool) -> None:
        """Takes the next transition record of an episode.

        Args:
            row: of any source; only the policy's count.
            critic_works: whether an episode that ends now is wanted by the critic.
        """
        if row.get("source", "rl") != "rl":
            return
        episode = self._open.setdefault(row["episode"], [])
        episode.append(row)
        while len(self._open) > OPEN_EPISODES:  # of workers that died: their episodes never end
            self._open.pop(next(iter(self._open)))
        if not (row.get("terminated") or row.get("truncated")):
            return
        self._open.pop(row["episode"], None)
        self._finished += 1
        snapshots = snapshots_of(episode, self._lookback) if row.get("terminated") else []
        if snapshots:
            self.blackouts.append(snapshots)
        if critic_works and self._every and self._finished % self._every == 0:
            self._waiting.append(episode)

    def hard_start(self) -> Snapshot | None:
        """One of the last decisions before a blackout, drawn evenly over blackouts; None before the first."""
        if not self.blackouts:
            return None
        chain = self.blackouts[int(self._rng.integers(len(self.blackouts)))]
        return chain[int(self._rng.integers(len(chain)))]

    def take(self) -> list[dict[str, Any]]:
        """The records of the episode that has waited longest for the critic, in order of time; [] when none waits."""
        return self._waiting.popleft() if self._waiting else []
