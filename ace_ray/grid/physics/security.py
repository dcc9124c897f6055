"""Security: the worst rho after the loss of any one credible line.

Linear outage factors from the measured flows: the loss of line k adds H[:, k] * f_k / (1 - H_kk) to the flows. For an
action the factors are those of the topology that it leaves behind (`Screen.rows`), the flows those of its AC check, so
that only the step from before to after the outage is linear.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ace_ray.config.grid import CriticalSettings
from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.physics import kernels, outage_kernels
from ace_ray.grid.physics.ac_check import AcCheck
from ace_ray.grid.physics.linear import Factors, Linearisation
from ace_ray.grid.physics.model import FloatArray, GridModel, IntArray
from ace_ray.grid.physics.screen import Outages, Rows


def attackable_lines(env: Any) -> list[int]:
    """Lines that the environment's opponent may disconnect; empty without one."""
    lines = {line for opponent in internals.opponents(env) for line in internals.opponent_lines(opponent)}
    if not lines:
        names = {str(name): line for line, name in enumerate(env.name_line)}
        attacked = internals.opponent_settings(env).get("lines_attacked", [])
        lines = {names[name] for name in _flat(attacked) if name in names}
    return sorted(lines)


def _flat(names: Any) -> list[str]:
    """Names out of nested lists: opponents of several areas name theirs by area."""
    if isinstance(names, str):
        return [names]
    return [name for part in names for name in _flat(part)]


class Security:
    """Credible outages of one grid and what they would do.

    Args:
        model: Static arrays.
        settings: `outages`: those of the opponent (all lines where there is none), or all. A line whose loss would cut
            the reference topology in two is left out: no topology action helps against it.
        attackable: Lines that the opponent may attack.
    """

    def __init__(self, model: GridModel, settings: CriticalSettings, attackable: list[int]) -> None:
        own = np.diag(Factors.of(model, np.ones(model.dim_topo, np.int32)).H)
        everything = list(range(model.n_line))
        chosen = attackable if settings.outages == "opponent" and attackable else everything
        self.model = model
        self.lines = np.array([line for line in chosen if own[line] < 1.0 - 1e-6], np.int64)

    def worst_now(self, lin: Linearisation) -> FloatArray:
        """[O] worst rho after each outage in the present state."""
        state, none = lin.state, np.zeros((1, 0, self.model.n_line))
        p, q, R = state.p_or[None, :], state.q_or[None, :], np.zeros((1, 0, self.lines.size))
        return self._worst(lin, p, q, none, R, kernels.CUT_OFF)[0]

    def worst_after(self, lin: Linearisation, rows: Rows, p: FloatArray, q: FloatArray, exact: bool) -> FloatArray:
        """[n, O] worst rho after each action and outage.

        Args:
            lin: State that the actions are played in.
            rows: Their low-rank change, made with `self.lines` as outages.
            p, q: [n, L] active and reactive flows after the action.
            exact: Whether they come from AC power flows.
        """
        cut_off = kernels.CUT_OFF if exact else kernels.CUT_OFF_LINEAR
        return self._worst(lin, p, q, rows.D, rows.R, cut_off)

    def _worst(
        self, lin: Linearisation, p: FloatArray, q: FloatArray, D: NDArray, R: NDArray, cut_off: float
    ) -> FloatArray:
        H = np.ascontiguousarray(lin.factors.H[:, self.lines])
        ignored = ~self.counted(lin)
        curves = lin.parabolas(p, np.where(p != 0.0, q, 0.0))
        room, islanded = kernels.MIN_ROOM, kernels.ISLAND
        return outage_kernels.worst_after_outage(p, curves, H, D, R, self.lines, ignored, cut_off, room, islanded)

    def counted(self, lin: Linearisation, lines: IntArray | None = None) -> NDArray[np.bool_]:
        """[O] outages (of `lines`, or the credible ones) that count: in service, and the grid stays in one piece.

        An outage that cuts the present grid in two would make every action equally bad and hide all the others.
        """
        lines = self.lines if lines is None else lines
        return lin.alive[lines] & (lin.factors.H[lines, lines] < 1.0 - kernels.MIN_ROOM)

    def screen_order(self, lin: Linearisation, lines: IntArray | None = None) -> Outages:
        """Outages (of `lines`, or the credible ones) that count, worst first, each with its lines by falling rho."""
        lines = self.lines if lines is None else lines
        alive = lines[self.counted(lin, lines)]
        H, flows = lin.factors.H[:, alive], lin.state.p_or[:, None]
        room = 1.0 - H[alive, np.arange(alive.size)]
        flow = flows + H * (flows[alive, 0] / room)
        square, slope, rest = (part[:, None] for part in lin.parabola)
        rho2 = np.where(lin.alive[:, None], (square * flow + slope) * flow + rest, -1.0)
        rho2[alive, np.arange(alive.size)] = -1.0
        by_outage = np.argsort(-rho2.max(axis=0, initial=0.0), kind="stable")
        service = int(lin.alive.sum())
        order = np.argsort(-rho2, axis=0, kind="stable").T[by_outage, :service]
        return Outages(alive[by_outage], np.ascontiguousarray(order))

    def exact(self, check: AcCheck, ids: NDArray) -> FloatArray:
        """[n, O] worst rho after each action and outage by AC power flow from the state that `check` has loaded.

        An outage (or action) without a power flow solution counts as an island.
        """
        n, n_out = len(ids), self.lines.size
        checked = check.contingencies(ids, self.lines)
        worst = np.where(checked.converged, checked.rho.max(axis=1, initial=0.0), kernels.ISLAND)
        return worst.reshape(n, n_out)
