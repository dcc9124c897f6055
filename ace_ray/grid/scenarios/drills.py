"""Drills: a line is lost at a known step of a short episode, and what matters is whether the grid survives it.

Two families. In an *attack* the line goes out without notice, as the environment's opponent would take it: through
Grid2Op's own opponent space, with its cooldown and its duration. In a *load rise* the line is in planned maintenance,
which observations announce, while demand climbs in the morning. In both the environment's own opponent rests.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from grid2op.Opponent import BaseOpponent

from ace_ray.config.errors import DataError
from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.scenarios.chronics import CachedMultifolder
from ace_ray.grid.scenarios.maintenance import PlannedOutage
from ace_ray.grid.scenarios.scenario import Scenario

Family = Literal["attack", "load-rise"]


@dataclass(frozen=True)
class Drill:
    """One drill: a scenario, and the line that is lost in it.

    Attributes:
        family: how the line is lost.
        scenario: its start is the drill's, and `max_steps` its length: warm-up, outage, and the steps afterwards.
        warm_up: environment steps that the agent plays before; the line goes out in the next one.
        line: which.
        outage: environment steps that it cannot be brought back.
    """

    family: Family
    scenario: Scenario
    warm_up: int
    line: int
    outage: int


class ScheduledAttack(BaseOpponent):
    """An opponent that attacks once: in the step after `warm_up` steps; None never attacks.

    Grid2Op's opponent space asks it in every step in which no attack lasts, and does all the rest as it does for any
    opponent: budget, duration, cooldown, and what `simulate` knows of an attack that goes on.
    """

    def __init__(self, action_space: Any, drill: Drill | None) -> None:
        super().__init__(action_space)
        self._drill = drill
        self._asked = 0

    def reset(self, initial_budget: float) -> None:
        self._asked = 0

    def attack(
        self, observation: Any, agent_action: Any, env_action: Any, budget: float, previous_fails: bool
    ) -> tuple[Any, int | None]:
        if observation is None or self._drill is None:
            return None, 0
        self._asked += 1
        if self._asked != self._drill.warm_up + 1:
            return None, 0
        return self.action_space({"set_line_status": [(self._drill.line, -1)]}), self._drill.outage


@contextmanager
def undisturbed(env: Any) -> Iterator[None]:
    """Within the block the environment's own opponent rests."""
    with internals.attacked_by(env, ScheduledAttack(internals.opponent_action_space(env), None)):
        yield


@contextmanager
def drilled(env: Any, drill: Drill) -> Iterator[None]:
    """Within the block, an episode of the drill's scenario in `env` (from `make_env`) is the drill.

    Raises:
        DataError: the grid has no such line, or the environment no opponent that could attack for so long; or it does
            not read its series from files, so that nothing can be planned in them.
    """
    if not 0 <= drill.line < env.n_line:
        raise DataError(
            f"a drill takes line {drill.line}, and {drill.scenario.env} has {env.n_line} lines",
            "name another line, or a bank of drills that was made for this environment",
        )
    with _attack(env, drill) if drill.family == "attack" else _maintenance(env, drill):
        yield


@contextmanager
def _attack(env: Any, drill: Drill) -> Iterator[None]:
    longest = internals.attack_duration(env)
    if drill.outage > longest:
        raise DataError(
            f"a drill attacks for {drill.outage} steps, and an attack on {drill.scenario.env} lasts {longest} at most",
            "make a bank of drills for this environment: ace bench drills --make-bank",
        )
    with internals.attacked_by(env, ScheduledAttack(internals.opponent_action_space(env), drill)):
        yield


@contextmanager
def _maintenance(env: Any, drill: Drill) -> Iterator[None]:
    chronics = env.chronics_handler.real_data
    if not isinstance(chronics, CachedMultifolder):
        raise DataError(
            f"environment '{drill.scenario.env}' does not read its series from files, so no maintenance can be planned",
            "play drills of the family attack",
        )
    begin = drill.scenario.start_step + drill.warm_up + 1
    chronics.outage = PlannedOutage(drill.line, begin, begin + drill.outage)
    try:
        with undisturbed(env):
            yield
    finally:
        chronics.outage = None
