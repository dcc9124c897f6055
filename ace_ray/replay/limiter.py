"""Holds learner updates per stored decision within a band (the idea of Reverb's SampleToInsertRatio limiter).

With w decisions of warm-up the target is  T = ratio * (decisions - w)  updates.

    learner is due         updates < T
    collector may collect  decisions < w  or  T - updates <= band

A collector that has to wait leaves more than `band` updates due, so the two never wait for each other. Pure: the
counters are injected, and whoever owns them (replay/actor.py) survives a resume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class UpdateLimiter:
    """See the module; `ratio` updates a decision, `band` updates behind at most, `warmup` decisions first."""

    ratio: float
    band: float
    warmup: int

    def __post_init__(self) -> None:
        if self.ratio <= 0 or self.band <= 0 or self.warmup < 0:
            raise ValueError("limiter: ratio and band must be positive, warmup not negative")

    def target(self, decisions: int) -> float:
        """Updates that so many stored decisions call for."""
        return self.ratio * max(0, decisions - self.warmup)

    def updates_due(self, decisions: int, updates: int) -> int:
        """Updates that bring the learner to the target; 0 during warm-up or when it is ahead."""
        return max(0, math.ceil(self.target(decisions) - updates))

    def may_collect(self, decisions: int, updates: int) -> bool:
        """Whether rollout may go on storing decisions."""
        return decisions < self.warmup or self.target(decisions) - updates <= self.band
