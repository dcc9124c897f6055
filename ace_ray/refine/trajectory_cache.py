"""Known futures of states: trajectories of the common continuation that meet go on together.

The continuation is a function of the observation, so two trajectories of one scenario that reach one state at one
step share their future. They do so often: a move and its revert, two actions with one effect, an action that the
continuation would have chosen itself one decision earlier. What a trajectory has recorded is not played again.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Trajectory:
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


class TrajectoryCache:
    """TrajectoryCache of one scenario by the states that they pass."""

    def __init__(self) -> None:
        self._scenario: str | None = None
        self._states: dict[tuple[int, bytes], Trajectory] = {}

    def enter(self, scenario: str) -> None:
        """Forgets everything when the scenario is another one."""
        if scenario != self._scenario:
            self._scenario = scenario
            self._states = {}

    def future(self, step: int, state: bytes, until: int) -> tuple[list[float], bool] | None:
        """Rewards of the steps from `step` to `until`, or to the blackout before it, and whether there is one.

        None where no trajectory passes this state, or none that goes on long enough.
        """
        trajectory = self._states.get((step, state))
        if trajectory is None or not (trajectory.dead or trajectory.end >= until):
            return None
        return trajectory.rewards[
            step - trajectory.start : until - trajectory.start
        ], trajectory.dead and trajectory.end <= until

    def passes(self, trajectory: Trajectory, step: int, state: bytes) -> None:
        """Notes that `trajectory` is in `state` after `step` steps; to be called where `future` knew nothing."""
        self._states[step, state] = trajectory
