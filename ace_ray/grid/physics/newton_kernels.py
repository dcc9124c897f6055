"""Compiled kernels of the Newton screen: bus splitting with voltages and reactive power (see `newton`).

Patterns are those of `kernels`: bit e says that element e of a substation sits on its second bus, element 0 never does.
With every end of every branch linear in the angle and the relative voltage of both its nodes, moving a set M of
elements to a bus that differs by d = (angle, relative voltage) from the one they leave asks of d

    (sum_M A_e - sum_M sum_M a_e' Z w_f) d = sum_M (injection_e - flow_e),

two equations in two unknowns, where Z is the inverse Jacobian of the substation *merged* to one bus, A_e the derivative
of the power that leaves through e by the bus it leaves, w_e what moving e does to the balance of both its nodes, and
a_e the response of the power through e to both. A line's current then is f + D_M d with D_M a sum over single elements.
So, as for the DC model, every sum over M is an addition of two half-tables; only the two-by-two system is new. A bus
that holds a generator keeps its voltage: element 0 is a generator where the substation has one, and if M has one too,
d is an angle alone.

Everything is in this one file for the sake of numba's cache, as `kernels` says.
"""

import heapq
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ace_ray.grid.physics.model import FloatArray, IntArray

FAST = {"reassoc", "contract", "arcp", "nsz"}
HUGE = 1e30  # rho^2 of a pattern that cannot be used
SINGULAR = 1e-6  # relative determinant under which a split cuts the grid in two, or has no voltage to settle at
TIE = (
    1e-5  # rho^2 that a moved element weighs: of thousands that leave the worst line alone the smallest moves are kept
)
LOW_BITS = 7
LINES_PER_CHECK = 8  # lines between two looks whether a block can be given up


class Merging(NamedTuple):
    """A substation brought to one bus: Z_merged = Z - columns' inner^-1 rows, and every node moves by x."""

    split: bool
    home: int  # its node once merged
    x: FloatArray  # [2 N]
    columns: FloatArray  # [2, 2 N] response of all nodes to a transfer of (P, Q) between the two buses
    rows: FloatArray  # [2, 2 N] difference between the two buses in response to what is put in anywhere
    inner: FloatArray  # [2, 2]


class Tangent(NamedTuple):
    """The power flow equations linearised around a solution. Angles in rad, voltages relative to what they are."""

    node: IntArray  # [T]
    node_or: IntArray  # [L] -1 out of service
    node_ex: IntArray  # [L]
    angle: FloatArray  # [N] rad
    level: FloatArray  # [N] natural logarithm of the voltage in per unit
    near: FloatArray  # [2, L, 2, 2] (P, Q) that leaves at the origin / extremity by (angle, voltage) of that end's node
    far: FloatArray  # [2, L, 2, 2] the same by those of the other end's node
    flow: FloatArray  # [2, L, 2] MW, MVAr that leave at the origin / extremity
    injection: FloatArray  # [T, 2] MW, MVAr; of a generator 0 MVAr, since it holds the voltage
    holds: NDArray[np.bool_]  # [T] generators
    scale: FloatArray  # [L] rho per MVA at the origin, at the present voltage
    Z: FloatArray  # [2 N, 2 N] inverse Jacobian, angles first; rows and columns of what is held are zero
    ZT: FloatArray  # [2 N, 2 N] its transpose


@njit(cache=True)
def _solve(matrix, vector):  # type: ignore[no-untyped-def]
    """Solution of a system of two; of its first equation alone if nothing moves the second unknown."""
    out = np.zeros_like(vector)
    if abs(matrix[1, 1]) < 1e-12:
        out[0] = vector[0] / matrix[0, 0]
        return out
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    out[0] = (matrix[1, 1] * vector[0] - matrix[0, 1] * vector[1]) / determinant
    out[1] = (matrix[0, 0] * vector[1] - matrix[1, 0] * vector[0]) / determinant
    return out


@njit(cache=True)
def _merge(s, layout, tan):  # type: ignore[no-untyped-def]
    """Bring substation s to one bus; all zeros if it is not split."""
    n_node, second = tan.Z.shape[0] // 2, s + layout.n_sub
    on_first = on_second = False
    for position in layout.elements[layout.sub_ptr[s] : layout.sub_ptr[s + 1]]:
        on_first |= tan.node[position] == s
        on_second |= tan.node[position] == second
    x, columns, rows = np.zeros(2 * n_node), np.zeros((2, 2 * n_node)), np.zeros((2, 2 * n_node))
    inner = np.zeros((2, 2))
    if not (on_first and on_second):
        return Merging(False, second if on_second else s, x, columns, rows, inner)
    columns[0], columns[1] = tan.ZT[s] - tan.ZT[second], tan.ZT[n_node + s] - tan.ZT[n_node + second]
    rows[0], rows[1] = tan.Z[s] - tan.Z[second], tan.Z[n_node + s] - tan.Z[n_node + second]
    for i in range(2):
        for j in range(2):
            inner[i, j] = columns[j, i * n_node + s] - columns[j, i * n_node + second]
    apart = np.array([tan.angle[s] - tan.angle[second], tan.level[s] - tan.level[second]])
    transfer = _solve(inner, apart)
    x -= columns[0] * transfer[0] + columns[1] * transfer[1]
    return Merging(True, s, x, columns, rows, inner)


@njit(cache=True)
def _currents(tan, x):  # type: ignore[no-untyped-def]
    """Currents [L, 2] in units of the limit once every node has moved by x, and their response [L, 2, 4].

    The response is to angle and voltage at the origin, then at the extremity; current is power over voltage.
    """
    n_line, n_node = tan.node_or.size, x.size // 2
    F, response = np.zeros((n_line, 2)), np.zeros((n_line, 2, 4))
    for line in range(n_line):
        i, j, scale = tan.node_or[line], tan.node_ex[line], tan.scale[line]
        if i < 0:
            continue
        for c in range(2):
            r, flow = response[line, c], tan.flow[0, line, c]
            r[0], r[1] = scale * tan.near[0, line, c, 0], scale * (tan.near[0, line, c, 1] - flow)
            r[2], r[3] = scale * tan.far[0, line, c, 0], scale * tan.far[0, line, c, 1]
            F[line, c] = scale * flow + r[0] * x[i] + r[1] * x[n_node + i] + r[2] * x[j] + r[3] * x[n_node + j]
    return F, response


@njit(cache=True)
def _response_to_move(tan, merging, near, felt, far):  # type: ignore[no-untyped-def]
    """[2, 2 N] Z w of one branch end that leaves: what all nodes do for one unit of (angle, voltage) of its new bus.

    near, felt: [2, 2] what leaves its node and the node `far` at its other end, by (angle, voltage) here.
    """
    n_node, home = tan.Z.shape[0] // 2, merging.home
    out = np.empty((2, 2 * n_node))
    for d in range(2):
        out[d] = near[0, d] * tan.ZT[home] + near[1, d] * tan.ZT[n_node + home]
        out[d] += felt[0, d] * tan.ZT[far] + felt[1, d] * tan.ZT[n_node + far]
        if merging.split:
            met = np.zeros(2)
            for i in range(2):
                row = merging.rows[i]
                met[i] = near[0, d] * row[home] + near[1, d] * row[n_node + home]
                met[i] += felt[0, d] * row[far] + felt[1, d] * row[n_node + far]
            met = _solve(merging.inner, met)
            out[d] -= merging.columns[0] * met[0] + merging.columns[1] * met[1]
    return out


@njit(cache=True)
def _tables(s, layout, tan):  # type: ignore[no-untyped-def]
    """What the elements of substation s contribute, everything merged to one bus first.

    Returns:
        F [L, 2] current of every line in units of its limit, as two components; numerator [E, 2]; own [E, 2, 2];
        gram [E, E, 2, 2]; D [E, L, 2, 2]; kind [E] 0 out of service, 1 branch end, 2 injection.
    """
    elements = layout.elements[layout.sub_ptr[s] : layout.sub_ptr[s + 1]]
    n_el, n_line, n_node = elements.size, tan.node_or.size, tan.Z.shape[0] // 2
    merging = _merge(s, layout, tan)
    x, home = merging.x, merging.home
    F, response = _currents(tan, x)
    kind, far = np.zeros(n_el, np.int32), np.zeros(n_el, np.int32)
    numerator, own = np.zeros((n_el, 2)), np.zeros((n_el, 2, 2))
    other, D = np.zeros((n_el, 2, 2)), np.zeros((n_el, n_line, 2, 2))
    ZW = np.zeros((n_el, 2, 2 * n_node))
    for e in range(n_el):
        line, at = layout.pos_line[elements[e]], tan.node[elements[e]]
        numerator[e] = tan.injection[elements[e]]
        if line < 0:
            kind[e] = 2
            continue
        if tan.node_or[line] < 0:
            continue
        kind[e] = 1
        end = 0 if layout.pos_sign[elements[e]] > 0 else 1
        n = far[e] = tan.node_ex[line] if end == 0 else tan.node_or[line]
        own[e], other[e] = tan.near[end, line], tan.far[end, line]
        for c in range(2):
            moved = own[e, c, 0] * x[at] + own[e, c, 1] * x[n_node + at]
            moved += other[e, c, 0] * x[n] + other[e, c, 1] * x[n_node + n]
            numerator[e, c] -= tan.flow[end, line, c] + moved
        ZW[e] = _response_to_move(tan, merging, own[e], tan.far[1 - end, line], n)
        for to in range(n_line):
            i, j = tan.node_or[to], tan.node_ex[to]
            if i < 0:
                continue
            for c in range(2):
                r = response[to, c]
                for d in range(2):
                    z = ZW[e, d]
                    D[e, to, c, d] = -(r[0] * z[i] + r[1] * z[n_node + i] + r[2] * z[j] + r[3] * z[n_node + j])
        D[e, line] += response[line, :, 2 * end : 2 * end + 2]
    gram = np.zeros((n_el, n_el, 2, 2))
    for e in np.flatnonzero(kind == 1):
        for f in np.flatnonzero(kind == 1):
            for d in range(2):
                z = ZW[f, d]
                for c in range(2):
                    gram[e, f, c, d] = own[e, c, 0] * z[home] + own[e, c, 1] * z[n_node + home]
                    gram[e, f, c, d] += other[e, c, 0] * z[far[e]] + other[e, c, 1] * z[n_node + far[e]]
    return F, numerator, own, gram, D, kind


@njit(cache=True)
def _subset_sums(values, out):  # type: ignore[no-untyped-def]
    """out[m] = sum of values[i] over the set bits i of m; values [bits, C], out [2^bits, C]."""
    out[0] = 0.0
    for i in range(values.shape[0]):
        size = 1 << i
        for m in range(size):
            for c in range(values.shape[1]):
                out[size + m, c] = out[m, c] + values[i, c]


@njit(cache=True)
def _pair_sums(pairs, out):  # type: ignore[no-untyped-def]
    """out[m] = sum of pairs[i, j] over all set bits i, j of m; pairs [bits, bits, 4]."""
    out[0] = 0.0
    for i in range(pairs.shape[0]):
        for m in range(1 << i):
            for c in range(4):
                total = out[m, c] + pairs[i, i, c]
                for j in range(i):
                    if m >> j & 1:
                        total += pairs[i, j, c] + pairs[j, i, c]
                out[(1 << i) + m, c] = total


@njit(cache=True)
def _subset_rows(values, out):  # type: ignore[no-untyped-def]
    """As `_subset_sums`, the other way round: values [bits, C], out [C, 2^bits] of any precision."""
    sums = np.empty(out.shape[1])
    for c in range(values.shape[1]):
        sums[0] = 0.0
        for i in range(values.shape[0]):
            size, value = 1 << i, values[i, c]
            for m in range(size):
                sums[size + m] = sums[m] + value
        out[c] = sums


@njit(cache=True)
def _all_reach(m, threshold):  # type: ignore[no-untyped-def]
    """Whether no value is below the threshold; counted to the end, which the compiler vectorises."""
    below = 0
    for p in range(m.size):
        below += 1 if m[p] < threshold else 0
    return below == 0


@njit(cache=True, fastmath=FAST)
def _current_pass(m, turn, lift, low, high, F, lines, threshold):  # type: ignore[no-untyped-def]
    """m = max(m, rho^2 of `lines`) for a block of patterns [P]; true when all of them exceed the threshold."""
    for start in range(0, lines.size, LINES_PER_CHECK):
        for at in range(start, min(start + LINES_PER_CHECK, lines.size)):
            line = lines[at]
            f, g = F[line, 0], F[line, 1]
            f_turn, f_lift, g_turn, g_lift = low[line, 0], low[line, 1], low[line, 2], low[line, 3]
            a, b, c, d = high[line, 0], high[line, 1], high[line, 2], high[line, 3]
            for p in range(m.size):
                t = f + turn[p] * (f_turn[p] + a) + lift[p] * (f_lift[p] + b)
                w = g + turn[p] * (g_turn[p] + c) + lift[p] * (g_lift[p] + d)
                value = t * t + w * w
                m[p] = value if value > m[p] else m[p]
        if _all_reach(m, threshold):
            return True
    return False


@njit(cache=True)
def _rank_substation(  # type: ignore[no-untyped-def] # noqa: C901 - cutting it would hide the order of early exits
    s, layout, tan, lines, keep, every
):
    """Best `keep` patterns of substation s: values (rho^2) and ids, unordered; ids -1 where fewer exist."""
    ids = layout.pattern_ids[layout.pattern_ptr[s] : layout.pattern_ptr[s + 1]]
    elements = layout.elements[layout.sub_ptr[s] : layout.sub_ptr[s + 1]]
    present = alive = generators = 0
    for e in range(elements.size):
        line = layout.pos_line[elements[e]]
        if line < 0 or tan.node_or[line] >= 0:
            alive |= 1 << e
            if tan.node[elements[e]] >= layout.n_sub:
                present |= 1 << e
        if tan.holds[elements[e]]:
            generators |= 1 << e
    absent = ~present & alive
    F64, numerator, own, gram, D, kind = _tables(s, layout, tan)
    n_el, n_line = kind.size, F64.shape[0]
    bits = n_el - 1
    low = min(bits, LOW_BITS)
    high = bits - low
    n_low, n_high = 1 << low, 1 << high
    dt = every.dtype
    F = F64.astype(dt)
    # per element: numerator 2, own derivative 4, a branch, an injection
    single = np.zeros((n_el, 8))
    single[:, :2] = numerator
    single[:, 2:6] = own.reshape(n_el, 4)
    single[:, 6], single[:, 7] = kind == 1, kind == 2
    pairs = gram.copy().reshape(n_el, n_el, 4)
    low_single, high_single = np.empty((n_low, 8)), np.empty((n_high, 8))
    low_pairs, high_pairs, cross = np.empty((n_low, 4)), np.empty((n_high, 4)), np.empty((n_low, 4))
    _subset_sums(single[1 : 1 + low], low_single)
    _subset_sums(single[1 + low :], high_single)
    _pair_sums(pairs[1 : 1 + low, 1 : 1 + low], low_pairs)
    _pair_sums(pairs[1 + low :, 1 + low :], high_pairs)
    per_line = D.copy().reshape(n_el, n_line * 4)
    low_D = np.empty((n_line, 4, n_low), dt)
    _subset_rows(per_line[1 : 1 + low], low_D.reshape(n_line * 4, n_low))
    high_sums = np.empty((n_high, n_line * 4))
    _subset_sums(per_line[1 + low :], high_sums)
    high_D = high_sums.astype(dt).reshape(n_high, n_line, 4)
    n_branch, n_inject = (kind == 1).sum(), (kind == 2).sum()
    m, turn, lift = np.empty(n_low, dt), np.empty(n_low, dt), np.empty(n_low, dt)
    weights = np.zeros((low, 4))
    low_moved, high_moved = np.zeros(n_low), np.zeros(n_high)
    for e in range(n_el - 1):
        for half in range(n_low if e < low else n_high):
            changed = half >> (e if e < low else e - low) & 1 != present >> (e + 1) & 1
            if alive >> (e + 1) & 1 and changed:
                if e < low:
                    low_moved[half] += 1
                else:
                    high_moved[half] += 1
    in_service = 0
    for e in range(n_el):
        in_service += alive >> e & 1
    heap = [(-HUGE, -1)]
    for _ in range(keep - 1):
        heap.append((-HUGE, -1))
    for hi in range(n_high):
        weights[:] = 0.0
        for i in range(high):
            if hi >> i & 1:
                for j in range(low):
                    for c in range(4):
                        weights[j, c] += pairs[1 + low + i, 1 + j, c] + pairs[1 + j, 1 + low + i, c]
        _subset_sums(weights, cross)
        for lo in range(n_low):
            index = hi << low | lo
            pattern = index << 1
            moved = pattern & alive
            turn[lo] = lift[lo] = 0.0
            m[lo] = HUGE
            if ids[index] < 0 or moved in (present, absent):
                continue
            if moved != pattern and ids[moved >> 1] >= 0:
                continue
            complement = ~moved & alive
            if alive & 1 == 0 and complement < moved and ids[complement >> 1] >= 0:
                continue  # element 0 is out of service: the complement has a place of its own
            branches = low_single[lo, 6] + high_single[hi, 6]
            if branches == 0 or branches == n_branch:
                injections = low_single[lo, 7] + high_single[hi, 7]
                if (branches == 0 and injections == 0) or (branches > 0 and injections == n_inject):
                    m[lo] = 0.0  # nothing or everything moved: the merged substation
                continue
            own_a = low_single[lo, 2] + high_single[hi, 2]
            a = own_a - low_pairs[lo, 0] - high_pairs[hi, 0] - cross[lo, 0]
            if a <= SINGULAR * own_a:
                continue
            active = low_single[lo, 0] + high_single[hi, 0]
            m[lo] = 0.0
            turn[lo] = active / a
            if moved & generators and generators & 1:
                continue
            own_d = low_single[lo, 5] + high_single[hi, 5]
            b = low_single[lo, 3] + high_single[hi, 3] - low_pairs[lo, 1] - high_pairs[hi, 1] - cross[lo, 1]
            c = low_single[lo, 4] + high_single[hi, 4] - low_pairs[lo, 2] - high_pairs[hi, 2] - cross[lo, 2]
            d = own_d - low_pairs[lo, 3] - high_pairs[hi, 3] - cross[lo, 3]
            determinant = a * d - b * c
            if determinant > SINGULAR * own_a * abs(own_d):  # else one step finds no voltage: the angle alone
                reactive = low_single[lo, 1] + high_single[hi, 1]
                turn[lo] = (d * active - b * reactive) / determinant
                lift[lo] = (a * reactive - c * active) / determinant
        threshold = dt.type(-heap[0][0]) if every.size == 1 else dt.type(np.inf)
        if _all_reach(m, threshold):
            continue
        if _current_pass(m, turn, lift, low_D, high_D[hi], F, lines, threshold):
            continue
        for lo in range(n_low):
            identity = ids[hi << low | lo]
            if every.size > 1 and identity >= 0:
                every[identity] = m[lo]
            moves = low_moved[lo] + high_moved[hi] + (present & alive & 1)
            value = m[lo] + TIE * min(moves, in_service - moves)
            if m[lo] < HUGE and value < -heap[0][0]:
                heapq.heapreplace(heap, (-value, np.int64(identity)))  # type: ignore[misc]
    values, chosen = np.empty(keep), np.empty(keep, np.int64)
    for i in range(keep):
        values[i], chosen[i] = -heap[i][0], heap[i][1]
    return values, chosen


@njit(cache=True)
def rank_substations(wanted, layout, tan, lines, keep, every):  # type: ignore[no-untyped-def]
    """Best `keep` patterns of every substation of `wanted` by rho^2 now.

    Args:
        wanted: [n] substations.  layout, tan: Grid and state.  lines: Lines in service, the most loaded first.
        every: [catalogue size] receives the rho^2 of every pattern (no early exit), or [1]; its type is that of the
            inner loops.

    Returns:
        values and ids, both [n, keep].
    """
    values, ids = np.full((wanted.size, keep), HUGE), np.full((wanted.size, keep), -1)
    for at in range(wanted.size):
        s = wanted[at]
        if layout.pattern_ptr[s] < layout.pattern_ptr[s + 1]:
            values[at], ids[at] = _rank_substation(s, layout, tan, lines, keep, every)
    return values, ids
