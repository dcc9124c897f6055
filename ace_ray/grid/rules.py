"""What is played while no decision is asked for (docs/design.md): reconnect, revert, else nothing.

The rules are a function of the observation alone, so that a replayed log, an export and an evaluation act alike. In
a calm reference topology with all lines in they cost microseconds: nothing is simulated.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ace_ray.config.grid import RuleSettings
from ace_ray.grid.forecast import simulate
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.catalogue import LINE, Catalogue

_OVERLOAD = 1.0  # rho from which a line is on its way to being tripped


class Rules:
    """Rules of one environment."""

    def __init__(
        self, catalogue: Catalogue, settings: RuleSettings, secure: Callable[[Any], bool] | None = None
    ) -> None:
        """
        Args:
            catalogue: Catalogue of the environment.
            settings: Which rules are on, and the rho under which a revert is allowed.
            secure: Says of a simulated observation whether it is secure enough to be moved to; None: always.
        """
        self.catalogue = catalogue
        self.settings = settings
        self.secure = secure
        self._switches = np.flatnonzero(catalogue.kind == LINE)  # [5 L], five a line
        self._references = {s: i for s in range(len(catalogue.positions)) if (i := catalogue.reference(s)) is not None}

    def calm_action(self, obs: GridObservation) -> tuple[int, ...]:
        """Catalogue ids to play now: a reconnection, else one move towards the reference topology, else none."""
        reconnection = self.reconnection(obs)
        if reconnection is not None:
            return (reconnection,)
        revert = self.revert(obs)
        return () if revert is None else (revert,)

    def reconnection(self, obs: GridObservation) -> int | None:
        """The reconnection that leaves the lowest max rho, if `simulate` says that it is safe.

        Safe: nothing above its limit after it, or no more than if nothing were done.
        """
        if not self.settings.reconnect or obs.line_status.all():
            return None
        dead = self._switches[~obs.line_status[self.catalogue.line[self._switches]]]
        options = dead[self.catalogue.legal(obs, dead)]
        outcomes = [(rho, int(i)) for i in options if (rho := self._simulated_rho(obs, int(i))) is not None]
        if not outcomes:
            return None
        rho, best = min(outcomes)
        if rho < _OVERLOAD:
            return best
        if_nothing = self._simulated_rho(obs, 0)
        return best if if_nothing is None or rho <= if_nothing else None

    def revert(self, obs: GridObservation) -> int | None:
        """One substation back to a single bus, if the grid is calm before and (simulated) after, and stays secure.

        One substation is tried at a time, in turn, every `revert_every` steps: a split that security keeps where it is
        would cost a simulation a step otherwise, more than all the rest of a calm step.
        """
        settings = self.settings
        turn, off_beat = divmod(int(obs.current_step), settings.revert_every)
        if not settings.revert or off_beat or obs.rho.max() >= settings.rho_revert or not (obs.topo_vect == 2).any():
            return None
        options = self.reversions(obs)
        if not options.size:
            return None
        chosen = int(options[turn % len(options)])
        simulated = self._simulate(obs, chosen)
        if simulated is None or simulated.rho.max() >= settings.rho_revert:
            return None
        return chosen if self.secure is None or self.secure(simulated) else None

    def reversions(self, obs: GridObservation) -> NDArray[np.int64]:
        """[n] legal ids that each put one split substation back on a single bus."""
        split = {s: i for s, i in self._references.items() if (obs.topo_vect[self.catalogue.positions[s]] == 2).any()}
        ids = np.fromiter(split.values(), dtype=np.int64, count=len(split))
        return ids[self.catalogue.legal(obs, ids)]

    def _simulated_rho(self, obs: GridObservation, action_id: int) -> float | None:
        simulated = self._simulate(obs, action_id)
        return None if simulated is None else float(simulated.rho.max())

    def _simulate(self, obs: GridObservation, action_id: int) -> Any | None:
        """The forecast observation after the action, valid until the next one; None if the grid would go black."""
        simulated = simulate(obs, self.catalogue.action((action_id,), obs))
        return None if simulated.done else simulated.obs
