"""What may be lost next, and under which rules: the environment's opponent, planned maintenance, protections and rests.

All of it is public: an environment's rules name the opponent's lines and how long it must rest, and an observation
tells how long a line that was attacked stays out and when maintenance begins.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.model import FloatArray, IntArray
from ace_ray.grid.physics.security import attackable_lines


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


@dataclass(frozen=True)
class Contingencies:
    """Lines that may be lost soon."""

    lines: IntArray  # [O]
    weights: FloatArray  # [O] chance that the line is the next to be attacked; 1 where its maintenance begins
    planned: int  # number of lines whose maintenance begins


@dataclass(frozen=True)
class Opponent:
    """What the rules say of the opponent; without one, `lines` is empty.

    Attributes:
        lines: [A] lines that it may attack.
        usual: [A] usual rho of each: `WeightedRandomOpponent` draws a line by its rho over this.
        rest: environment steps that Grid2Op's budget rule adds to the time until the next attack for each attack.
    """

    lines: IntArray
    usual: FloatArray
    rest: int

    @classmethod
    def from_env(cls, env: Any, among: IntArray) -> "Opponent":
        """Reads the rules of `env`; only the attackable lines `among` these are kept."""
        lines = np.intersect1d(np.array(attackable_lines(env), np.int64), among)
        order = internals.opponent_lines(internals.opponent(env))
        given = internals.opponent_settings(env).get("rho_normalization") or []
        usual = dict(zip(order, given, strict=False)) if len(order) == len(given) else {}
        return cls(lines, np.array([usual.get(int(line), 1.0) for line in lines]), internals.attack_rest(env))

    def contingencies(self, obs: GridObservation, lead: int) -> Contingencies:
        """The next attack, whenever it comes, and maintenance that begins within `lead` steps."""
        start = np.asarray(obs.time_next_maintenance)
        due = np.flatnonzero((start > 0) & (start <= lead) & obs.line_status)
        lines = np.union1d(self.lines, due).astype(np.int64)
        weights = np.zeros(lines.size)
        chance = np.where(obs.line_status[self.lines], obs.rho[self.lines] / self.usual, 0.0)
        if chance.sum() > 0:
            weights[np.isin(lines, self.lines)] = chance / chance.sum()
        weights[np.isin(lines, due)] = 1.0
        return Contingencies(lines, weights, due.size)


class AttackClock:
    """Counts the steps until the opponent may attack again, from what the observations of one episode show.

    Grid2Op's `OpponentSpace` attacks while a counter that falls by one a step is at most `rest`; each attack adds
    `rest` to it, and none begins while another lasts. The counter starts at `rest`.
    """

    def __init__(self, opponent: Opponent, game: GameRules) -> None:
        self._opponent, self._game = opponent, game
        self._counter, self._over = opponent.rest, 0
        self._service: NDArray[np.bool_] | None = None

    def steps_until_attack(self, obs: GridObservation) -> int:
        """Steps from this observation until an attack may begin; call it once with each observation of an episode."""
        self._over = max(0, self._over - 1)
        if self._service is not None:
            self._counter = max(0, self._counter - 1)
            lines = self._opponent.lines
            maintained = obs.time_next_maintenance[lines] == 0
            lost = lines[self._service[lines] & ~obs.line_status[lines] & ~maintained]
            # a line that the agent opened, or a protection, has a shorter cooldown than one that was attacked
            longest = int(obs.time_before_cooldown_line[lost].max(initial=0))
            if longest > self._game.tripped_rest:
                self._counter += self._opponent.rest
                self._over = longest
        self._service = np.array(obs.line_status, bool)
        return max(self._counter - self._opponent.rest, self._over)
