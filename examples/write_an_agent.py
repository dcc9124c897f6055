"""Write an agent: rules play in safe states, `choose` decides in critical ones. It plays wherever Grid2Op agents do.

ace evaluate --agent examples/write_an_agent.py:make_agent --scenarios test:2
"""

from typing import Any

import numpy as np

import ace_ray
from ace_ray.agents.base import RuleAgent
from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import Decision, DecisionEngine


class FewestMoves(RuleAgent):
    """Plays the best candidate by score, but does nothing where it gains less than `least`."""

    least = 0.05

    def choose(self, decision: Decision, observation: Any) -> int:
        """The slot to play; slot 0 does nothing."""
        best = int(np.argmax(np.where(decision.mask, decision.score, -np.inf)))
        return best if decision.score[best] - decision.score[0] >= self.least else 0


def make_agent(env: Any, path: str) -> FewestMoves:
    """What Grid2Op's competitions and `ace evaluate --agent FILE:make_agent` call."""
    return FewestMoves(env.action_space, DecisionEngine(env, GridSettings()))


if __name__ == "__main__":
    for played in ace_ray.evaluate(["greedy", f"{__file__}:make_agent"], "validation:1;steps=288"):
        print(f"{played.agent}: {100 * played.survival.mean:.1f} % of the steps survived")
