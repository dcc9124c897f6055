"""The agents that choose slots without learning: greedy, greedy checked by `simulate`, and two baselines."""

from __future__ import annotations

from typing import Any

import numpy as np

from ace_ray import domain
from ace_ray.agents.base import RuleAgent
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.forecast import simulate
from ace_ray.grid.observation import GridObservation

CHECKED = 20  # slots that are simulated


def greedy_slot(decision: domain.Decision) -> int:
    """The legal slot of highest score; the first of equals, so do-nothing (slot 0) before the others."""
    return int(np.argmax(np.where(decision.mask, decision.score, -np.inf)))


def recheck(engine: DecisionEngine, decision: Decision, observation: GridObservation, preference: np.ndarray) -> int:
    """Returns the slot that stands the check best.

    `simulate` plays the action against the forecast of the next step, which the AC check of the slots (made for the
    injections of this step) does not know. What it shows is the next max rho and whether the grid goes black; of
    security it says nothing. So in an *overloaded* state the slots are ordered by simulated max rho, and in an
    *insecure* one it may only strike out slots that lead into an overload, the preferred of the others stands.

    Args:
        engine: turns a slot into an action.
        decision: slots of this state.
        observation: the state; must carry a forecast.
        preference: `[K]`, higher is better; the best 20 legal slots by it are simulated.
    """
    legal = np.flatnonzero(decision.mask)
    order = legal[np.argsort(-preference[legal], kind="stable")][:CHECKED]
    limit = engine.settings.critical.rho_overloaded
    ranked: list[tuple[float, float, int]] = []
    for place, slot in enumerate(order):
        action = engine.action(engine.ids_for(decision, int(slot)), observation)
        simulated = simulate(observation, action)
        rho = float("inf") if simulated.done or simulated.exceptions else float(simulated.obs.rho.max())
        measure = rho if decision.kind == "overloaded" else max(rho, limit)
        ranked.append((measure, float(place), int(slot)))
    return min(ranked)[2]


class Greedy(RuleAgent):
    """Plays the legal slot of highest score."""

    def choose(self, decision: Decision, observation: GridObservation) -> int:
        """See `greedy_slot`."""
        return greedy_slot(decision)


class GreedyChecked(RuleAgent):
    """Plays the best of the 20 slots of highest score after one `simulate` of each."""

    def choose(self, decision: Decision, observation: GridObservation) -> int:
        """See `recheck`."""
        return recheck(self.engine, decision, observation, decision.score)


class DoNothing(RuleAgent):
    """Never acts. It has no critical decisions."""

    def choose(self, decision: Decision, observation: GridObservation) -> int:
        """Slot 0 is do-nothing."""
        return 0

    def act(self, observation: GridObservation, reward: float, done: bool = False) -> Any:
        """Returns the empty action."""
        return self.action_space({})


class Reconnect(DoNothing):
    """Reconnects a line whenever the rule allows it (`simulate` says that it is safe) and does nothing else."""

    def act(self, observation: GridObservation, reward: float, done: bool = False) -> Any:
        """Returns the reconnection that lowers max rho most, or the empty action."""
        line = self.engine.rules.reconnection(observation)
        self.last_ids = () if line is None else (int(line),)
        return self.engine.action(self.last_ids, observation)
