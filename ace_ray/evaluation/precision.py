"""How long an evaluation goes on: until its interval is narrow enough, with further seeds of the same scenarios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ace_ray.config.errors import ConfigError
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.compare import compare
from ace_ray.evaluation.result import Evaluation
from ace_ray.grid.scenarios.environment import is_random
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.monitoring.statistics import Interval

SHARE = 4  # each round adds a seed a chronic for so many that it has, and one at least


@dataclass(frozen=True)
class Precision:
    """When an evaluation may end.

    Attributes:
        halfwidth: of the 95 % interval of survival, in percentage points; with several agents, of each one's
            difference from the first.
        most: scenarios at which it ends anyway.
    """

    halfwidth: float
    most: int

    def check(self, scenarios: Sequence[Scenario], settings: GridSettings) -> None:
        """Raises ConfigError where further seeds would play the same episodes again."""
        if not is_random(settings) and not any(one.varied for one in scenarios):
            raise ConfigError(
                f"nothing in {settings.env} is drawn from the environment seed, so further seeds show nothing",
                "leave --until-halfwidth out, or add ;perturbation=0.05 to the scenarios",
            )

    def further(self, found: Sequence[Evaluation], scenarios: Sequence[Scenario]) -> tuple[Scenario, ...]:
        """The scenarios to play next: () where the interval is narrow enough, or there may be no more."""
        width = halfwidth(found)
        if width is not None and width <= self.halfwidth:
            return ()
        seeds = Counter(replace(one, env_seed=0) for one in scenarios)
        rounds = max(1, min(seeds.values()) // SHARE)
        first = 1 + max(one.env_seed for one in scenarios)
        places = [(turn, i, one) for turn in range(rounds) for i, one in enumerate(seeds)]
        new = [replace(one, env_seed=first + turn * len(seeds) + i) for turn, i, one in places]
        return tuple(new[: max(0, self.most - len(scenarios))])


def halfwidth(found: Sequence[Evaluation]) -> float | None:
    """Half the widest interval, in percentage points; None where there is none yet.

    Args:
        found: one agent, whose survival counts, or several, whose differences from the first do.
    """
    intervals: list[Interval] = [compare(found[0], other).survival for other in found[1:]] or [found[0].survival]
    widths = [50 * (limits[1] - limits[0]) for one in intervals if (limits := one.ci95) is not None]
    return max(widths) if len(widths) == len(intervals) else None
