"""A scenario: what rebuilds one and the same episode in any process."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from grid2op.Exceptions import Grid2OpException
from numpy.linalg import LinAlgError

from ace_ray.config.errors import DataError
from ace_ray.grid.grid2op_internals import forget_attacks
from ace_ray.grid.scenarios.chronic_files import shortened
from ace_ray.grid.scenarios.chronics import CachedMultifolder
from ace_ray.grid.scenarios.variation import Variation


@dataclass(frozen=True, order=True)
class Scenario:
    """One episode, as small as it can be written down.

    Attributes:
        env: Environment name of the settings (`grid.env`).
        data: Data set id: `packaged`, `shipped` or an absolute folder.
        chronic: Folder name of the chronic.
        env_seed: Seed of the environment: opponent, drawn maintenance.
        start_step: Row of the chronic that the episode starts from.
        max_steps: Cap of the length in environment steps; None plays to the end of the chronic.
        maintenance: Chance that a working day has a line in maintenance, where the chronic plans none (`Variation`).
        perturbation: Standard deviation of the relative, smooth change of loads, wind and sun (`Variation`).
    """

    env: str
    data: str
    chronic: str
    env_seed: int
    start_step: int = 0
    max_steps: int | None = None
    maintenance: float = 0.0
    perturbation: float = 0.0

    def key(self) -> str:
        """Stable id, e.g. ``l2rpn_neurips_2020_track1|packaged|jan_1036|7|0|-``; a variation is appended."""
        cap = "-" if self.max_steps is None else str(self.max_steps)
        parts = [self.env, self.data, self.chronic, str(self.env_seed), str(self.start_step), cap]
        if self.varied:
            parts.append(f"maintenance={self.maintenance}|perturbation={self.perturbation}")
        return "|".join(parts)

    @property
    def group(self) -> str:
        """The chronic: episodes that share one are not independent draws."""
        return self.chronic

    @property
    def varied(self) -> bool:
        """Whether something is added to the chronic."""
        return self.maintenance > 0 or self.perturbation > 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Scenario":
        return cls(**json.loads(text))


def episode_length(env: Any, scenario: Scenario) -> int:
    """Environment steps of the scenario, played to its end.

    It is `duration - start_step`: with `init ts` Grid2Op's own `max_step` and `max_episode_duration()` go on naming
    the length of the whole chronic.
    """
    steps = env.ace_data.steps(scenario.chronic) - scenario.start_step
    if steps < 1:
        raise DataError(
            f"scenario {scenario.key()} starts at or after the end of its chronic",
            f"choose a start step below {env.ace_data.steps(scenario.chronic)}",
        )
    return steps if scenario.max_steps is None else min(steps, scenario.max_steps)


def reset_to(env: Any, scenario: Scenario) -> Any:
    """Reset `env` (from `make_env`) to the first observation of the scenario.

    Raises:
        DataError: The environment or its data set is not the scenario's, it has no such chronic, the chronic cannot be
            read, or the grid goes black at its first row or in the step that Grid2Op plays before `start_step`.
    """
    if (env.ace_name, env.ace_data.id) != (scenario.env, scenario.data):
        raise DataError(
            f"scenario {scenario.key()} is not of environment '{env.ace_name}' on '{env.ace_data.id}'",
            "set grid.env and grid.data to those of the scenario",
        )
    length = episode_length(env, scenario)
    options: dict[str, Any] = {"time serie id": scenario.chronic}
    if scenario.start_step > 0:  # 0 is where a chronic starts anyway, and Grid2Op refuses it
        options["init ts"] = scenario.start_step
    if scenario.max_steps is not None:
        options["max step"] = length
    _forget_episode(env, scenario)
    with warnings.catch_warnings(), _varied(env, scenario):
        warnings.simplefilter("ignore")
        try:
            return env.reset(seed=scenario.env_seed, options=options)
        except (Grid2OpException, RuntimeError, ArithmeticError, LinAlgError) as error:
            raise DataError(
                f"scenario {scenario.key()} is over before it begins, at row {scenario.start_step} of its chronic: "
                f"{shortened(error)}",
                "choose another start step or environment seed, or remove the chronic from the set",
            ) from error


@contextmanager
def _varied(env: Any, scenario: Scenario) -> Iterator[None]:
    """The chronics with the variation of the scenario, for one reset."""
    if not scenario.varied:
        yield
        return
    chronics = env.chronics_handler.real_data
    if not isinstance(chronics, CachedMultifolder):
        raise DataError(
            f"environment '{scenario.env}' does not read its series from files, so they cannot be varied",
            "leave perturbation and maintenance at 0",
        )
    chronics.variation = Variation.from_env(
        env, scenario.chronic, scenario.env_seed, scenario.maintenance, scenario.perturbation
    )
    try:
        yield
    finally:
        chronics.variation = None


def _forget_episode(env: Any, scenario: Scenario) -> None:
    """Clear what Grid2Op carries from one episode into the next, so that a scenario is the same in any process.

    With `init ts` the environment plays a step *before* it resets the opponent: an attack that was going on in the
    episode before would go on in this one. And `GeometricOpponent` draws its attacks at reset over the length of the
    episode *before*.
    """
    forget_attacks(env, env.ace_data.steps(scenario.chronic))
