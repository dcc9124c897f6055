"""The Grid2Op agent that every agent of ours is: rules while the grid is safe, one choice where it is critical."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any

from grid2op.Agent import BaseAgent

from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.observation import GridObservation


class OwnAgent(BaseAgent):
    """An agent of ours around a decision engine, with a record of its decisions.

    It needs observations only, never the environment, so it runs under Grid2Op's Runner and inside an export alike.

    Attributes:
        engine: the decision engine; several agents of one process may share it.
        decision_seconds: wall time of each decision since the start, candidates included.
        decisions: number of decisions of this episode.
        last_ids: catalogue ids of the last action, `()` for doing nothing.
    """

    def __init__(self, action_space: Any, engine: DecisionEngine) -> None:
        super().__init__(action_space)
        self.engine = engine
        self.decision_seconds: list[float] = []
        self._forget()

    def _forget(self) -> None:
        self.decisions = 0
        self.last_ids: tuple[int, ...] = ()

    def reset(self, obs: GridObservation) -> None:
        """Forgets the episode; Grid2Op calls it with the first observation."""
        self._forget()


class RuleAgent(OwnAgent):
    """Asks the engine whether the state is critical; there it plays the slot that `choose` names, else the rules.

    Attributes:
        last: the last decision of this episode, None before the first.
    """

    def _forget(self) -> None:
        super()._forget()
        self.last: Decision | None = None

    @abstractmethod
    def choose(self, decision: Decision, observation: GridObservation) -> int:
        """Returns the slot to play, a legal one (`decision.mask`)."""

    def decide(self, observation: GridObservation) -> tuple[Decision, int]:
        """The decision of a critical state, and the slot to play."""
        decision = self.engine.decide(observation)
        return decision, int(self.choose(decision, observation))

    def act(self, observation: GridObservation, reward: float, done: bool = False) -> Any:
        """Returns the Grid2Op action for this observation."""
        started = time.perf_counter()
        if self.engine.critical(observation) is None:
            self.last_ids = tuple(self.engine.rules.calm_action(observation))
            return self.engine.action(self.last_ids, observation)
        decision, slot = self.decide(observation)
        self.last_ids = tuple(self.engine.ids_for(decision, slot))
        action = self.engine.action(self.last_ids, observation)
        self.decision_seconds.append(time.perf_counter() - started)
        self.decisions += 1
        self.last = decision
        return action
