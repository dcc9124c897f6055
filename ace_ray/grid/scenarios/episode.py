"""Reward and fate of one environment step, the same everywhere: decision env, comparator, evaluation."""

from typing import Any

import numpy as np
from grid2op.Exceptions import AmbiguousAction, Grid2OpException, IllegalAction

from ace_ray.config.errors import AceError
from ace_ray.config.grid import RewardSettings

# What a broken episode raises: Grid2Op itself, lightsim2grid's C++ (RuntimeError), NumPy on a singular matrix, or a
# snapshot that cannot be rebuilt. Anything else is a bug and has to end the worker.
EPISODE_ERRORS = (Grid2OpException, RuntimeError, ArithmeticError, np.linalg.LinAlgError, AceError)


def is_blackout(done: bool, info: dict, step: int, length: int) -> bool:
    """Whether the step that returned `done` and `info` ended in a blackout.

    A blackout is an exception in `info`, cross-checked with the count: an episode that ends before its length went
    black whatever `info` says. Exceptions about an illegal or ambiguous action are no blackout.

    Args:
        done: As returned by `env.step`.
        info: As returned by `env.step`.
        step: Steps played since the scenario's start, this one included.
        length: `episode_length` of the scenario.
    """
    if not done:
        return False
    errors = [e for e in info["exception"] if not isinstance(e, IllegalAction | AmbiguousAction)]
    return bool(errors) or step < length


def is_refused(info: dict) -> bool:
    """Whether the environment replaced the action of this step by do-nothing (illegal or ambiguous)."""
    return bool(info["is_illegal"] or info["is_ambiguous"])


def step_reward(obs: Any, blackout: bool, settings: RewardSettings) -> float:
    """load/production - offset after a step, or the blackout's reward (docs/method.md, eq. 13)."""
    if blackout:
        return settings.blackout
    return float(obs.load_p.sum() / obs.gen_p.sum()) - settings.offset
