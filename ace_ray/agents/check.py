"""A second look at the best slots by Grid2Op's own one-step `simulate`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.forecast import simulate

CHECKED = 20  # slots that are simulated


def recheck(engine: DecisionEngine, decision: Decision, observation: Any, preference: np.ndarray) -> int:
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
