"""What an observation predicts of the next step: its injections, and `obs.simulate` without its copies.

Better injections can be put in the place of those. A third of the time of `obs.simulate` goes into a deep copy of what
is read once and thrown away.
"""

from typing import Any, NamedTuple

import numpy as np

from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.grid2op_internals import NEXT
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.model import FloatArray


class Forecast(NamedTuple):
    """The next step, as the forecast has it.

    Attributes:
        obs: Observation after it; valid until anything else is simulated. Copy it to keep it.
        done: Whether the grid goes black.
        exceptions: What was reported, an action that is not legal included.
    """

    obs: GridObservation
    done: bool
    exceptions: list[Exception]


def simulate(obs: GridObservation, action: Any) -> Forecast:
    """What `obs.simulate(action)` says of the next step, number for number.

    The lines are those of Grid2Op's `BaseObservation.simulate` without the copy of the result, and without what lets
    that be simulated further.

    Raises:
        Grid2OpException: As `obs.simulate`, such as for an observation without forecast.
    """
    parts = internals.forecast_parts(obs)
    if parts is None:  # `simulate` says in words why there is nothing to foretell
        simulated, _, done, info = obs.simulate(action)
        return Forecast(simulated, done, info["exception"])
    known, env = parts
    if NEXT not in known:
        stamp, injection = internals.forecast_injections(obs)
        known[NEXT] = {"timestamp": stamp, "inj_action": obs.action_helper(injection)}
    env.init(known[NEXT]["inj_action"], time_stamp=known[NEXT]["timestamp"], obs=obs, time_step=NEXT)
    simulated, _, done, info = env.simulate(action)
    return Forecast(simulated, done, info["exception"])


class Injections(NamedTuple):
    """What is consumed and produced in a step."""

    load_p: FloatArray  # [N] MW
    load_q: FloatArray  # [N] MVAr
    gen_p: FloatArray  # [G] MW


def foretold(obs: GridObservation) -> Injections:
    """The forecast for the next step; what is there now where there is none."""
    if not internals.has_forecast(obs):
        return Injections(np.array(obs.load_p), np.array(obs.load_q), np.array(obs.gen_p))
    return Injections(*(np.asarray(values)[NEXT] for values in obs.get_forecast_arrays()[:3]))


def foretell(obs: GridObservation, injections: Injections) -> None:
    """From now on `simulate` of this observation takes these injections for those of the next step."""
    if not internals.has_forecast(obs):
        return
    stamp, known = internals.forecast_injections(obs)
    load_p, load_q, gen_p = (values.astype(np.float32) for values in injections)
    ours = {**known.get("injection", {}), "load_p": load_p, "load_q": load_q, "prod_p": gen_p}
    internals.replace_forecast(obs, stamp, {**known, "injection": ours})
