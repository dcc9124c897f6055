"""What an observation foretells of the next step: its injections, and `obs.simulate` without its copies.

A third of the time of `obs.simulate` goes into a deep copy of what is read once and thrown away.
"""

from typing import Any, NamedTuple

import numpy as np

from ace_ray.grid.model import FloatArray

_NEXT = 1  # the next step, as `simulate` has it by default


class Forecast(NamedTuple):
    """The next step, as the forecast has it.

    Attributes:
        obs: Observation after it; valid until anything else is simulated. Copy it to keep it.
        done: Whether the grid goes black.
        exceptions: What was reported, an action that is not legal included.
    """

    obs: Any
    done: bool
    exceptions: list[Exception]


def simulate(obs: Any, action: Any) -> Forecast:
    """What `obs.simulate(action)` says of the next step, number for number.

    The lines are those of Grid2Op's `BaseObservation.simulate` without the copy of the result, and without what lets
    that be simulated further.

    Raises:
        Grid2OpException: As `obs.simulate`, such as for an observation without forecast.
    """
    known, env = getattr(obs, "_forecasted_grid_act", None), getattr(obs, "_obs_env", None)
    if known is None or env is None or len(obs._forecasted_inj) <= _NEXT:
        # nothing to foretell, which `simulate` says in words, or not Grid2Op's own observation
        simulated, _, done, info = obs.simulate(action)
        return Forecast(simulated, done, info["exception"])
    if _NEXT not in known:
        timestamp, injection = obs._forecasted_inj[_NEXT]
        known[_NEXT] = {"timestamp": timestamp, "inj_action": obs.action_helper(injection)}
    env.init(known[_NEXT]["inj_action"], time_stamp=known[_NEXT]["timestamp"], obs=obs, time_step=_NEXT)
    simulated, _, done, info = env.simulate(action)
    return Forecast(simulated, done, info["exception"])


def next_injections(obs: Any) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Generation (MW), active and reactive loads (MW, MVAr) forecast for the next step; None without a forecast."""
    load_p, load_q, gen_p = (np.asarray(values) for values in obs.get_forecast_arrays()[:3])
    if min(len(load_p), len(load_q), len(gen_p)) <= _NEXT:
        return None
    return gen_p[_NEXT], load_p[_NEXT], load_q[_NEXT]
