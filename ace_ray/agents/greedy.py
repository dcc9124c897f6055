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


def standing(decision: Decision, slot: int) -> tuple[int, float]:
    """How a slot stands beside greedy's: 1 + the legal slots of higher score, and the score by which the best leads."""
    legal = decision.score[decision.mask]
    return 1 + int((legal > decision.score[slot]).sum()), max(0.0, float(legal.max() - decision.score[slot]))


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
