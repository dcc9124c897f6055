"""The rules of the game that a plan has to know: rests and protections, as the environment's parameters set them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ace_ray.grid.physics.model import FloatArray, IntArray


@dataclass(frozen=True)
class GameRules:
    """Times in environment steps.

    Attributes:
        substation_rest: a substation that was moved cannot be moved again for so long.
        line_rest: the same for a line that was switched.
        tripped_rest: the same for a line that a protection opened.
        tolerated: a line above its limit for more than so many steps in a row is opened.
        hard_rho: a line at this rho is opened at once.
    """

    substation_rest: int
    line_rest: int
    tripped_rest: int
    tolerated: int
    hard_rho: float

    @classmethod
    def from_env(cls, env: Any) -> "GameRules":
        """Reads the parameters of a Grid2Op environment."""
        parameters = env.parameters
        return cls(
            substation_rest=int(parameters.NB_TIMESTEP_COOLDOWN_SUB),
            line_rest=int(parameters.NB_TIMESTEP_COOLDOWN_LINE),
            tripped_rest=int(parameters.NB_TIMESTEP_RECONNECTION),
            tolerated=int(parameters.NB_TIMESTEP_OVERFLOW_ALLOWED),
            hard_rho=float(parameters.HARD_OVERFLOW_THRESHOLD),
        )

    def tripped(self, overflow: IntArray, rho: FloatArray) -> NDArray[np.bool_]:
        """[..., L] lines that a protection opens in a step that leads to `rho` [..., L].

        Args:
            overflow: [L] steps in a row that a line has been above its limit before.
        """
        return ((overflow >= self.tolerated) & (rho > 1.0)) | (rho >= self.hard_rho)
