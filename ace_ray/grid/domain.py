"""The power grid as a domain (`ace_ray.domain.Domain`): its scenarios, its faults, and the age of its labels."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.fingerprint import behaviour, same
from ace_ray.grid.scenarios.episode import EPISODE_ERRORS
from ace_ray.grid.scenarios.scenario import Scenario


class GridDomain:
    """Topology control in Grid2Op."""

    scenario = Scenario
    faults: tuple[type[Exception], ...] = EPISODE_ERRORS

    def outdated(self, meta: Mapping[str, Any]) -> str | None:
        """See Domain; `meta` holds the `plan` with the grid's settings, and the engine's fingerprint (`behaviour`)."""
        if "behaviour" not in meta:
            return "do not say which decision engine they were replayed with"
        try:
            now = behaviour(GridSettings(**meta["plan"]["grid"]))
        except (ValidationError, DataError) as error:
            return f"were replayed under settings or data that are unknown here ({error})"
        if not same(meta["behaviour"], now):
            return "were replayed with a decision engine that acts differently from the present one"
        return None
