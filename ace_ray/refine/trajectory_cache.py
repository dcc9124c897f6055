"""Known futures of states: trajectories of the common continuation that meet go on together.

The continuation is a function of the observation, so two trajectories of one scenario that reach one state at one
step share their future. They do so often: a move and its revert, two actions with one effect, an action that the
continuation would have chosen itself one decision earlier. What a trail has recorded is not played again.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Trail:
    """One followed trajectory.

    Attributes:
        start: environment step of the scenario before its first recorded step.
        rewards: reward of each step from there on.
        dead: the last step was a blackout.
    """

    start: int
    rewards: list[float] = field(default_factory=list)
    dead: bool = False

    @property
    def end(self) -> int:
        """Environment step after the last recorded one."""
        return self.start + len(self.rewards)


class Trails:
    """Trails of one scenario by the states that they pass."""

    def __init__(self) -> None:
        self._scenario: str | None = None
        self._states: dict[tuple[int, bytes], Trail] = {}

    def enter(self, scenario: str) -> None:
        """Forgets everything when the scenario is another one."""
        if scenario != self._scenario:
            self._scenario = scenario
            self._states = {}

    def future(self, step: int, state: bytes, until: int) -> tuple[list[float], bool] | None:
        """Rewards of the steps from `step` to `until`, or to the blackout before it, and whether there is one.

        None where no trail passes this state, or none that goes on long enough.
        """
        trail = self._states.get((step, state))
        if trail is None or not (trail.dead or trail.end >= until):
            return None
        return trail.rewards[step - trail.start : until - trail.start], trail.dead and trail.end <= until

    def passes(self, trail: Trail, step: int, state: bytes) -> None:
        """Notes that `trail` is in `state` after `step` steps; to be called where `future` knew nothing."""
        self._states[step, state] = trail
