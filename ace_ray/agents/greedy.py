"""Greedy: the argmax of the slot score, and the same with a check by `simulate`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ace_ray.agents.base import RuleAgent
from ace_ray.agents.check import recheck
from ace_ray.grid.engine import Decision


def greedy_slot(decision: Decision) -> int:
    """The legal slot of highest score; the first of equals, so do-nothing (slot 0) before the others."""
    return int(np.argmax(np.where(decision.mask, decision.score, -np.inf)))


class Greedy(RuleAgent):
    """Plays the legal slot of highest score."""

    def choose(self, decision: Decision, observation: Any) -> int:
        """See `greedy_slot`."""
        return greedy_slot(decision)


class GreedyChecked(RuleAgent):
    """Plays the best of the 20 slots of highest score after one `simulate` of each."""

    def choose(self, decision: Decision, observation: Any) -> int:
        """See `ace_ray.agents.check.recheck`."""
        return recheck(self.engine, decision, observation, decision.score)
