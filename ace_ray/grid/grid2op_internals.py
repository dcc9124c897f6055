"""Every attribute of Grid2Op that is not public and that this project reads, in one place.

Grid2Op may rename any of them in a release; tests/grid/test_grid2op_internals.py reads each from a real environment, so
that a rename fails there, by name. Written for Grid2Op 1.12.6 and lightsim2grid 1.2.0. Nothing else in this project
touches an attribute of Grid2Op that begins with an underscore.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEXT = 1  # the next step, as `simulate` has it by default


# --- the environment ------------------------------------------------------------------------------------------------


def power_grid(env: Any) -> Any:
    """The LightSim grid model behind the environment's backend."""
    return env.backend._grid


def substation_of_element(env: Any) -> NDArray[np.int32]:
    """[dim_topo] substation of each element of the topology vector."""
    return np.asarray(env._topo_vect_to_sub, np.int32)


def protection_counter(env: Any) -> NDArray[Any]:
    """[L] steps in a row that each line has been above its limit, as the protections count them."""
    return np.asarray(env._protection_counter)


def environment_action(env: Any) -> Any:
    """What the environment itself changed in the last step: injections, maintenance."""
    return env._env_modification


def environment_action_space(env: Any) -> Any:
    """The space of `environment_action`."""
    return env._helper_action_env


# --- the opponent ---------------------------------------------------------------------------------------------------


def opponent(env: Any) -> Any:
    """The opponent as a whole; without one, one that never attacks."""
    return env._opponent


def opponents(env: Any) -> list[Any]:
    """The opponents that attack: those of each area, else the only one. Without an opponent, one that never attacks."""
    return list(opponent_areas(env)) or [opponent(env)]


def opponent_areas(env: Any) -> tuple[Any, ...]:
    """The opponents of several areas, () where there is one opponent or none."""
    return tuple(getattr(env._opponent, "list_opponents", ()))


def opponent_states(env: Any) -> Iterator[Any]:
    """The objects that hold what future attacks depend on: budget and rest, the opponent, its areas."""
    yield env._oppSpace
    yield env._opponent
    yield from opponent_areas(env)


def opponent_lines(opponent: Any) -> list[int]:
    """Lines that one opponent may attack, in its own order; [] if it has no such list."""
    return [int(line) for line in getattr(opponent, "_lines_ids", None) or []]


def opponent_settings(env: Any) -> dict[str, Any]:
    """The keyword arguments that the opponent was made with; {} without."""
    return getattr(env, "_kwargs_opponent", None) or {}


def opponent_action_space(env: Any) -> Any:
    """The space of attacks."""
    return env._opponent_action_space


def attack_duration(env: Any) -> int:
    """Environment steps that an attack lasts."""
    return int(env._opponent_attack_duration)


def least_attack_duration(opponent: Any) -> int:
    """Environment steps that an attack of one area's opponent lasts at least."""
    return int(opponent._recovery_minimum_duration)


def attack_rest(env: Any) -> int:
    """Environment steps that the budget rule adds to the time until the next attack, for each attack."""
    return int(getattr(env._oppSpace, "attack_cooldown", None) or 0)


def last_attack(env: Any) -> Any:
    """The attack of the last step, None without."""
    return env._oppSpace.last_attack


def forget_attacks(env: Any, length: int) -> None:
    """Resets budget and opponents for an episode of `length` environment steps."""
    env._oppSpace.reset()
    for one in opponents(env):
        if hasattr(one, "_episode_max_time"):  # the reset set it to the length of the last episode
            one._episode_max_time = length


@contextmanager
def attacked_by(env: Any, opponent: Any) -> Iterator[None]:
    """Within the block `opponent` attacks in place of the environment's own, and can pay for whatever it does."""
    space = env._oppSpace
    own = space.opponent, space.init_budget
    space.opponent, space.init_budget = opponent, np.inf
    try:
        yield
    finally:
        space.opponent, space.init_budget = own
        space.reset()  # an attack that still lasts is not the own opponent's


# --- an observation -------------------------------------------------------------------------------------------------


def shunts(obs: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]] | None:
    """[S] bus (-1: out), active power in MW, reactive power in MVAr and voltage in kV of each shunt; None without."""
    if not hasattr(obs, "_shunt_bus"):
        return None
    return obs._shunt_bus, obs._shunt_p, obs._shunt_q, obs._shunt_v


def forecast_parts(obs: Any) -> tuple[dict[int, Any], Any] | None:
    """The prepared injections by horizon, and the environment that `simulate` steps.

    None where nothing is predicted, or the observation is not Grid2Op's own.
    """
    known, env = getattr(obs, "_forecasted_grid_act", None), getattr(obs, "_obs_env", None)
    return None if known is None or env is None or not has_forecast(obs) else (known, env)


def has_forecast(obs: Any) -> bool:
    """Whether the observation predicts the next step."""
    return len(getattr(obs, "_forecasted_inj", ())) > NEXT


def forecast_injections(obs: Any) -> tuple[Any, dict[str, Any]]:
    """Time stamp and injections of the next step."""
    return obs._forecasted_inj[NEXT]


def replace_forecast(obs: Any, stamp: Any, injections: dict[str, Any]) -> None:
    """From now on `simulate` of this observation takes these injections for those of the next step."""
    obs._forecasted_inj[NEXT] = (stamp, injections)
    obs._forecasted_grid_act.pop(NEXT, None)


# --- time series ----------------------------------------------------------------------------------------------------


def forecast_horizons(series: Any) -> list[Any]:
    """Minutes ahead of each forecast that a time series holds."""
    return series._h_forecast
