"""Reward and outcome of one environment step, the same everywhere: decision env, comparator, evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from grid2op.Exceptions import AmbiguousAction, Grid2OpException, IllegalAction

from ace_ray.config.errors import AceError, DataError
from ace_ray.config.grid import RewardSettings
from ace_ray.grid.observation import GridObservation

# What a broken episode raises: Grid2Op itself, lightsim2grid's C++ (RuntimeError), NumPy on a singular matrix, or a
# snapshot that cannot be rebuilt. What else Grid2Op raises over a broken chronic, `playing` turns into one of these;
# anything outside of it is a bug and has to end the worker.
EPISODE_ERRORS = (Grid2OpException, RuntimeError, ArithmeticError, np.linalg.LinAlgError, AceError)


@contextmanager
def playing(chronic: str) -> Iterator[None]:
    """Around whatever Grid2Op plays of a chronic: a broken one makes it raise anything, such as IndexError.

    Raises:
        DataError: The chronic cannot be played. `EPISODE_ERRORS` pass as they are.
    """
    try:
        yield
    except EPISODE_ERRORS:
        raise
    except Exception as error:
        raise DataError(
            f"chronic '{chronic}' cannot be played: {type(error).__name__}: {error}", "mend or remove it"
        ) from error


def is_blackout(done: bool, info: dict, step: int, length: int, chronic: str) -> bool:
    """Whether the step that returned `done` and `info` ended in a blackout.

    A blackout is an exception in `info`; at the very end of an episode, one that is not about an illegal or ambiguous
    action.

    Args:
        done: As returned by `env.step`.
        info: As returned by `env.step`.
        step: Steps played since the scenario's start, this one included.
        length: `episode_length` of the scenario.
        chronic: Of the scenario.

    Raises:
        DataError: The episode is over before its time though nothing went wrong: its chronic has fewer rows than it
            says. Counted as a blackout it would teach that a sound state is a deadly one.
    """
    if not done:
        return False
    errors = info["exception"]
    if step < length and not errors:
        raise DataError(
            f"chronic '{chronic}' is over at step {step} of {length}, and the grid is not black",
            "fix or remove it: its files must have the same number of rows",
        )
    return step < length or any(not isinstance(error, IllegalAction | AmbiguousAction) for error in errors)


def is_refused(info: dict) -> bool:
    """Whether the environment replaced the action of this step by do-nothing (illegal or ambiguous)."""
    return bool(info["is_illegal"] or info["is_ambiguous"])


def step_reward(obs: GridObservation, blackout: bool, settings: RewardSettings) -> float:
    """load/production - offset after a step, or the blackout's reward (docs/method.md, eq. 13)."""
    if blackout:
        return settings.blackout
    return float(obs.load_p.sum() / obs.gen_p.sum()) - settings.offset
