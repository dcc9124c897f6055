"""The two baselines that choose nothing: do nothing at all, and reconnect lines."""

from __future__ import annotations

from typing import Any

from ace_ray.agents.base import RuleAgent
from ace_ray.grid.engine import Decision


class DoNothing(RuleAgent):
    """Never acts. It has no critical decisions."""

    def choose(self, decision: Decision, observation: Any) -> int:
        """Slot 0 is do-nothing."""
        return 0

    def act(self, observation: Any, reward: float, done: bool = False) -> Any:
        """Returns the empty action."""
        return self.action_space({})


class Reconnect(DoNothing):
    """Reconnects a line whenever the rule allows it (`simulate` says that it is safe) and does nothing else."""

    def act(self, observation: Any, reward: float, done: bool = False) -> Any:
        """Returns the reconnection that lowers max rho most, or the empty action."""
        line = self.engine.rules.reconnection(observation)
        self.last_ids = () if line is None else (int(line),)
        return self.engine.action(self.last_ids, observation)
