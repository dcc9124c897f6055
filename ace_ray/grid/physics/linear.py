"""Linear (DC) model of the present topology: inverse susceptance matrix, distribution factors, screening form of rho.

Flows are linearised around the AC state: a change of angle moves the *measured* active flows, voltages stay as they
are. At given voltages a change of angle moves the reactive flow too, dq = kappa dp, where with S the measured flow

    dS/dtheta = j (S - |V|^2 conj(y_11)),      kappa = Im(dS/dtheta) / Re(dS/dtheta),

about -r/x. So rho_l^2 = c_l^2 (p_l'^2 + (q_l + kappa_l (p_l' - p_l))^2) is a parabola in the active flow p_l', one for
each line and state, with c_l from the measured voltage and the limit (kappa halves the error against AC).

Every change of topology that is looked at here is of low rank. With X the inverse of the susceptance matrix (slack row
and column zero), A the signed incidence and H = diag(b) A X A^T the response of the flows to a unit transfer over the
ends of a line, a change is a triple (D [L], delta, r [L]) with

    f' = f + delta * D,        H' = H + D r^T,

for the opening of line j (D_j = H_jj - 1), its closing, the merging of two buses and their splitting alike.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ace_ray.grid.physics.kernels import Linear
from ace_ray.grid.physics.model import FloatArray, GridModel, GridState, IntArray

KV_TO_A = 1000.0 / np.sqrt(3.0)  # MVA / kV -> A
_STEEPEST = 1.0  # largest kappa; -r/x is above -0.5 on 36 and 118 substations, -1.1 on 14 and -7.7 on case5


@njit(cache=True)
def _reachable(node_or: IntArray, node_ex: IntArray, n_node: int, root: int) -> NDArray[np.bool_]:
    """Nodes connected to `root` by lines in service (node -1: out of service)."""
    seen = np.zeros(n_node, np.bool_)
    seen[root] = True
    grown = True
    while grown:
        grown = False
        for line in range(node_or.size):
            a, b = node_or[line], node_ex[line]
            if a >= 0 and seen[a] != seen[b]:
                seen[a] = seen[b] = True
                grown = True
    return seen


@njit(cache=True)
def _susceptance_matrix(node_or: IntArray, node_ex: IntArray, b: FloatArray, n_node: int) -> FloatArray:
    matrix = np.zeros((n_node, n_node))
    for line in range(node_or.size):
        i, j = node_or[line], node_ex[line]
        if i >= 0:
            matrix[i, i] += b[line]
            matrix[j, j] += b[line]
            matrix[i, j] -= b[line]
            matrix[j, i] -= b[line]
    return matrix


@njit(cache=True)
def _transfer_factors(X: FloatArray, node_or: IntArray, node_ex: IntArray, b: FloatArray) -> FloatArray:
    """H[l, k]: flow on l, origin to extremity, for one unit injected at k's origin and taken at its extremity."""
    n = node_or.size
    H = np.zeros((n, n))
    for line in range(n):
        i, j = node_or[line], node_ex[line]
        if i < 0:
            continue
        for k in range(n):
            p, q = node_or[k], node_ex[k]
            if p >= 0:
                H[line, k] = b[line] * (X[i, p] - X[i, q] - X[j, p] + X[j, q])
    return H


@dataclass(frozen=True)
class Factors:
    """What depends on the topology alone: cached, since topologies last for many steps. N nodes, L lines."""

    node_or: IntArray  # [L] -1 out of service
    node_ex: IntArray  # [L]
    node: IntArray  # [T] node of an element, -1 out of service
    b: FloatArray  # [L] MW per radian, 0 out of service
    X: FloatArray  # [N, N] slack row and column 0, unused nodes 0
    H: FloatArray  # [L, L]
    active: NDArray[np.bool_]  # [N] nodes that are connected to the slack

    @classmethod
    def of(cls, model: GridModel, topo: IntArray) -> "Factors":
        """Factors of the topology vector `topo` [T]."""
        node = np.where(topo > 0, model.pos_sub + model.n_sub * (topo - 1), -1).astype(np.int32)
        node_or, node_ex = node[model.line_or_pos], node[model.line_ex_pos]
        dead = (node_or < 0) | (node_ex < 0)
        node_or, node_ex = np.where(dead, -1, node_or), np.where(dead, -1, node_ex)
        slack = int(node[model.slack_pos])
        active = _reachable(node_or, node_ex, model.n_node, slack)
        dead = dead | ~active[node_or]  # a line with both ends on buses of its own carries nothing
        node_or, node_ex = np.where(dead, -1, node_or).astype(np.int32), np.where(dead, -1, node_ex).astype(np.int32)
        b = np.where(dead, 0.0, model.susceptance)
        rows = np.flatnonzero(active)
        rows = rows[rows != slack]
        X = np.zeros((model.n_node, model.n_node))
        B = _susceptance_matrix(node_or, node_ex, b, model.n_node)
        X[np.ix_(rows, rows)] = np.linalg.inv(B[np.ix_(rows, rows)])
        return cls(node_or, node_ex, node, b, X, _transfer_factors(X, node_or, node_ex, b), active)


@dataclass(frozen=True)
class Linearisation:
    """A state together with the factors of its topology."""

    state: GridState
    factors: Factors
    theta: FloatArray  # [N] rad, DC angles of the measured injections
    c2: FloatArray  # [L] rho^2 per MVA^2; out of service: what the line would have at the measured voltage
    kappa: FloatArray  # [L] change of reactive flow per change of active flow
    parabola: FloatArray  # [3, L] rho^2 = (parabola[0] p + parabola[1]) p + parabola[2]

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Lines in service [L]."""
        return self.factors.node_or >= 0

    def arrays(self) -> Linear:
        """The same for the compiled kernels."""
        f, s = self.factors, self.state
        flows = (s.injection, s.p_or, s.p_ex, self.parabola)
        return Linear(s.topo, f.node, f.node_or, f.node_ex, f.b, f.X, f.H, self.theta, *flows)

    def parabolas(self, p: FloatArray, q: FloatArray) -> FloatArray:
        """[3, n, L] the parabolas of n states with flows p and q [n, L] and these voltages."""
        return np.stack(_parabola(p, q, self.kappa, self.c2))

    def reactive(self, p: FloatArray) -> FloatArray:
        """[n, L] reactive flows at active flows p [n, L]."""
        return self.state.q_or + self.kappa * (p - self.state.p_or)

    def rho(self, p: FloatArray) -> FloatArray:
        """[n, L] rho at active flows p [n, L]; 0 where a line carries exactly nothing (it is out of service then)."""
        square, slope, rest = self.parabola
        return np.sqrt(np.where(p != 0.0, np.maximum((square * p + slope) * p + rest, 0.0), 0.0))

    def angle(self, i: int, j: int) -> float:
        """Angle of node i over node j in rad."""
        return float(self.theta[i] - self.theta[j])


def _parabola(p: FloatArray, q: FloatArray, kappa: FloatArray, c2: FloatArray) -> tuple[FloatArray, ...]:
    start = q - kappa * p  # reactive flow that the line would have with no active one
    return np.broadcast_to((1.0 + kappa**2) * c2, p.shape), 2.0 * kappa * start * c2, start**2 * c2


class FactorCache:
    """Factors by topology; the oldest of `size` goes first."""

    def __init__(self, model: GridModel, size: int = 64) -> None:
        self._model, self._size = model, size
        self._known: dict[bytes, Factors] = {}

    def factors(self, topo: IntArray) -> Factors:
        """Factors of the topology vector `topo` [T]."""
        key = topo.astype(np.int8).tobytes()
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= self._size:
                del self._known[next(iter(self._known))]
            found = self._known[key] = Factors.of(self._model, topo)
        return found

    def linearise(self, state: GridState) -> Linearisation:
        """The linear model around a state."""
        factors = self.factors(state.topo)
        alive = factors.node_or >= 0
        kv = np.where(state.v_or > 0, state.v_or, self._substation_kv(state)[self._model.line_or_sub])
        c2 = (KV_TO_A / (np.maximum(kv, 1e-3) * state.limit)) ** 2
        injection = np.zeros(factors.X.shape[0])
        on = factors.node >= 0
        np.add.at(injection, factors.node[on], state.injection[on])
        # half of a line's losses is drawn at each of its ends, so that the DC flow is the flow in the line's middle
        half = np.where(alive, 0.5 * (state.p_or + state.p_ex), 0.0)
        np.add.at(injection, factors.node_or[alive], -half[alive])
        np.add.at(injection, factors.node_ex[alive], -half[alive])
        turn = state.p_or + 1j * state.q_or - (kv / self._model.nominal_kv) ** 2 * self._model.own_admittance.conj()
        stiff = np.where(turn.imag < 0.0, turn.imag, -np.inf)  # no sense of a slope where it is not stable
        kappa = np.clip(-turn.real / stiff, -_STEEPEST, _STEEPEST)
        parabola = np.stack(_parabola(state.p_or, state.q_or, kappa, c2))
        return Linearisation(state, factors, factors.X @ injection, c2, kappa, parabola)

    def _substation_kv(self, state: GridState) -> FloatArray:
        """[S] highest measured voltage of each substation: what a line will have that is out of service now."""
        kv = np.zeros(self._model.n_sub)
        np.maximum.at(kv, self._model.line_or_sub, state.v_or)
        np.maximum.at(kv, self._model.line_ex_sub, state.v_ex)
        return kv
