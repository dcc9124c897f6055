"""The power flow equations linearised around their solution: one Newton step for every bus split of the catalogue.

The DC screen knows angles alone. Where an overload is made of reactive power, or a bus that parts from its generator
loses its voltage, thousands of partitions look alike to it. Here the unknowns are the angle and the relative voltage
of every node (generators hold theirs), so that a split is the first Newton iteration from the present state, by
low-rank update: exact to second order. With S_1 the power that leaves a line's origin, W_1 = |V_1|^2 conj(y_11) and
T_1 = S_1 - W_1,

    dS_1 = j T_1 (dtheta_1 - dtheta_2) + (S_1 + W_1) dV_1/V_1 + T_1 dV_2/V_2.

The current is S_1 / V_1, and its magnitude is what the limit is about.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ace_ray.grid.physics.linear import Factors
from ace_ray.grid.physics.model import FloatArray, GridModel
from ace_ray.grid.physics.newton_kernels import Tangent


@dataclass(frozen=True)
class OperatingPoint:
    """A solved AC state. Node numbers as in `model`; powers in MW and MVAr."""

    voltage: NDArray[np.complex128]  # [N] per unit, 0 where there is no bus
    gen_p: FloatArray  # [G]
    load_p: FloatArray  # [D]
    load_q: FloatArray  # [D]
    storage_p: FloatArray  # [B]
    shunt_q: FloatArray  # [N] drawn by shunts
    limit: FloatArray  # [L] A


def tangent(model: GridModel, factors: Factors, point: OperatingPoint) -> Tangent:
    """The linearisation of a solved state; `factors` says which nodes its lines are on."""
    node_or, node_ex, n = factors.node_or, factors.node_ex, model.n_node
    alive = node_or >= 0
    v_or, v_ex = (np.where(alive, np.abs(point.voltage[node]), 1.0) for node in (node_or, node_ex))
    difference = np.where(alive, np.angle(point.voltage[node_or] * point.voltage[node_ex].conj()), 0.0)
    near, far, flow = (np.zeros((2, model.n_line, *shape)) for shape in ((2, 2), (2, 2), (2,)))
    turn = v_or * v_ex * np.exp(1j * difference)
    ends = (
        (v_or**2 * model.own_admittance.conj(), turn * model.mutual_admittance.conj()),
        (v_ex**2 * model.far_admittance.conj(), turn.conj() * model.mutual_back_admittance.conj()),
    )
    for end, (own, transfer) in enumerate(ends):
        own, transfer = np.where(alive, own, 0.0), np.where(alive, transfer, 0.0)
        total = own + transfer
        for place, value in ((near[end, :, :, 0], 1j * transfer), (near[end, :, :, 1], total + own)):
            place[:, 0], place[:, 1] = value.real, value.imag
        for place, value in ((far[end, :, :, 0], -1j * transfer), (far[end, :, :, 1], transfer)):
            place[:, 0], place[:, 1] = value.real, value.imag
        flow[end, :, 0], flow[end, :, 1] = total.real, total.imag
    holds = np.zeros(model.dim_topo, bool)
    holds[model.gen_pos] = True
    held = np.zeros(n, bool)
    held[factors.node[model.gen_pos]] = True
    injection = np.zeros((model.dim_topo, 2))
    injection[model.gen_pos, 0] = point.gen_p
    injection[model.load_pos, 0], injection[model.load_pos, 1] = -point.load_p, -point.load_q
    injection[model.storage_pos, 0] = -point.storage_p
    # a shunt stays on the bus of its substation's first element, which partitions leave on bus 1
    first = model.sub_elements[model.sub_ptr[:-1]]
    injection[first, 1] -= point.shunt_q[: model.n_sub] + point.shunt_q[model.n_sub :]
    jacobian = _jacobian(node_or, node_ex, near, far, n)
    jacobian[np.arange(n, 2 * n), np.arange(n, 2 * n)] += 2.0 * point.shunt_q
    turned = factors.active.copy()
    turned[factors.node[model.slack_pos]] = False
    free = np.flatnonzero(np.concatenate([turned, factors.active & ~held]))
    Z = np.zeros((2 * n, 2 * n))
    Z[np.ix_(free, free)] = np.linalg.inv(jacobian[np.ix_(free, free)])
    magnitude = np.abs(point.voltage)
    return Tangent(
        factors.node,
        node_or,
        node_ex,
        np.asarray(np.angle(point.voltage), np.float64),
        np.asarray(np.log(np.where(magnitude > 0.0, magnitude, 1.0)), np.float64),
        near,
        far,
        flow,
        injection,
        holds,
        1000.0 / (np.sqrt(3.0) * v_or * model.nominal_kv * point.limit),
        Z,
        np.ascontiguousarray(Z.T),
    )


@njit(cache=True)
def _jacobian(node_or, node_ex, near, far, n):  # type: ignore[no-untyped-def]
    """[2 N, 2 N] power that leaves each node through its lines, by angle and relative voltage of each."""
    matrix = np.zeros((2 * n, 2 * n))
    for line in range(node_or.size):
        for end in range(2):
            own = node_or[line] if end == 0 else node_ex[line]
            other = node_ex[line] if end == 0 else node_or[line]
            if own < 0:
                continue
            for c in range(2):
                for d in range(2):
                    matrix[c * n + own, d * n + own] += near[end, line, c, d]
                    matrix[c * n + own, d * n + other] += far[end, line, c, d]
    return matrix
