"""Compiled kernels of the linear screen: bus splitting of a whole substation in one pass (docs/design.md).

A pattern says which elements of a substation sit on its second bus: bit e for element e, in the order of
`GridModel.elements`; element 0 is always on the first bus (the complement is the same network), so a substation of E
elements has 2^(E-1) patterns, indexed by `pattern >> 1`. For a moved set M

    delta = (P_M - sum_M f_l) / (sum_M b_l - v_M' X v_M),   f' = f + delta * D_M,   D_M = b_M - diag(b) A X v_M,

with everything relative to the substation *merged* to one bus. All sums over M are partial sums of single elements: the
low bits and the high bits each get a table, and a pattern costs one addition of the two. The loops run over the low
half, contiguous, so that the compiler vectorises them, and stop for a block of patterns as soon as every one of them
is known to be worse than the worst one kept.

A kernel and all that it calls into, constants included, stand in one file: numba's cache of compiled code notices a
change of the file that a function is in, of no other.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ace_ray.grid.physics.model import FloatArray, IntArray

DENOMINATOR = 1e-9  # a split whose denominator is relatively smaller cuts the grid in two
FAST = {"reassoc", "contract", "arcp", "nsz"}  # infinities and NaN keep their meaning
HUGE = 1e30  # rho^2 of a pattern that cannot be used
ISLAND = 5.0  # rho of an outage that cuts the grid in two
CERTAIN = 1.0  # rho that an overload here and now weighs more than one after an outage that may come
MIN_ROOM = 1e-4  # 1 - H_kk under which the loss of line k cuts something off ...
CUT_OFF = 0.1  # MW: ... that matters if the line carries more than this; a line that is open at one end does not
CUT_OFF_LINEAR = 3.0  # MW: the same for flows of the linear model, which are off by the line's losses
LOW_BITS = 8
PADDING = 16  # patterns to which a few are filled up
LINES_PER_CHECK = 8  # lines between two looks whether a block can be given up


class Layout(NamedTuple):
    """What never changes. S substations, T elements; patterns are indexed as the module docstring says."""

    n_sub: int
    sub_ptr: IntArray  # [S + 1]
    elements: IntArray  # [T] places in the topology vector, element 0 of each substation first
    pos_line: IntArray  # [T] see GridModel
    pos_sign: IntArray  # [T]
    pattern_ptr: NDArray[np.int64]  # [S + 1] patterns of substation s: pattern_ids[pattern_ptr[s]:pattern_ptr[s + 1]]
    pattern_ids: IntArray  # catalogue id of each pattern, -1 where there is none


class Linear(NamedTuple):
    """The linear model of one state, see `linear.Linearisation`."""

    topo: IntArray  # [T]
    node: IntArray  # [T]
    node_or: IntArray  # [L]
    node_ex: IntArray  # [L]
    b: FloatArray  # [L]
    X: FloatArray  # [N, N]
    H: FloatArray  # [L, L]
    theta: FloatArray  # [N]
    injection: FloatArray  # [T]
    p_or: FloatArray  # [L]
    p_ex: FloatArray  # [L]
    parabola: FloatArray  # [3, L]


class Search(NamedTuple):
    """What is looked for, in which order."""

    lines: NDArray[np.int64]  # lines in service, the most loaded first
    outages: NDArray[np.int64]  # [O] with none the objective is rho now, else the worst of now and after each outage
    outage_lines: NDArray[np.int64]  # [O, *] lines to look at after each outage, the most loaded first
    limit: float  # with outages, a rho of `limit` or more now counts as CERTAIN more than it is
    keep: int  # how many of a substation
    most: int  # how many of all substations together, what is surely not among them may be missing; 0: no matter


class Merging(NamedTuple):
    """A substation brought to one bus: f_merged = f + delta * D, X_merged = X - row' row; zeros if it is not split."""

    split: bool
    home: int  # its node once merged
    D: FloatArray  # [L]
    delta: float
    row: FloatArray  # [N] u' X / sqrt(u' X u) with u = e_first - e_second


class Tables(NamedTuple):
    """What the E elements of a substation contribute when moved to another bus, everything merged to one bus first."""

    f: FloatArray  # [L] merged flows at the origin
    numerator: FloatArray  # [E]
    sum_b: FloatArray  # [E]
    gram: FloatArray  # [E, E] v_e' X v_e'
    D: FloatArray  # [E, L]
    outage_numerator: FloatArray  # [O, E]
    kind: IntArray  # [E] 0 out of service, 1 branch end, 2 injection


@njit(cache=True)
def merge(s: int, layout: Layout, lin: Linear) -> Merging:
    """Bring substation s to one bus."""
    second = s + layout.n_sub
    D, row = np.zeros(lin.b.size), np.zeros(lin.X.shape[0])
    on_first = on_second = False
    for position in layout.elements[layout.sub_ptr[s] : layout.sub_ptr[s + 1]]:
        on_first |= lin.node[position] == s
        on_second |= lin.node[position] == second
    home = second if on_second and not on_first else s
    denominator = lin.X[s, s] - 2.0 * lin.X[s, second] + lin.X[second, second]
    if not (on_first and on_second) or denominator <= 0.0:
        return Merging(False, home, D, 0.0, row)
    row[:] = (lin.X[s] - lin.X[second]) / np.sqrt(denominator)
    for line in range(lin.b.size):
        if lin.node_or[line] >= 0:
            drop = row[lin.node_or[line]] - row[lin.node_ex[line]]
            D[line] = -lin.b[line] * drop / np.sqrt(denominator)
    return Merging(True, home, D, lin.theta[s] - lin.theta[second], row)


@njit(cache=True)
def _drops(lin: Linear, merging: Merging, lines: IntArray) -> FloatArray:
    """How far the ends of each of `lines` part in `Merging.row`; 0 out of service, or if nothing is merged."""
    drops = np.zeros(lines.size)
    for i in range(lines.size):
        line = lines[i]
        if merging.split and lin.node_or[line] >= 0:
            drops[i] = merging.row[lin.node_or[line]] - merging.row[lin.node_ex[line]]
    return drops


@njit(cache=True)
def _merged_responses(lin, merging, outages, zero):  # type: ignore[no-untyped-def]
    """[O, L] response of all lines to a transfer over the ends of each outage line, in the precision of `zero`."""
    b, H, out = lin.b, lin.H, np.empty((outages.size, lin.b.size), zero.dtype)
    drops, lost = _drops(lin, merging, np.arange(b.size)), _drops(lin, merging, outages)
    for o in range(outages.size):
        for line in range(b.size):
            out[o, line] = H[line, outages[o]] - b[line] * drops[line] * lost[o]
    return out


@njit(cache=True)
def substation_tables(s: int, layout: Layout, lin: Linear, merging: Merging, outages: IntArray) -> Tables:
    """`Tables` of substation s."""
    elements = layout.elements[layout.sub_ptr[s] : layout.sub_ptr[s + 1]]
    node_or, node_ex, b, X, row, home = lin.node_or, lin.node_ex, lin.b, lin.X, merging.row, merging.home
    n_line, n_el, n_out = b.size, elements.size, outages.size
    f = lin.p_or + merging.delta * merging.D
    numerator, sum_b, kind = np.zeros(n_el), np.zeros(n_el), np.zeros(n_el, np.int32)
    lost = _drops(lin, merging, outages)
    far, XV = np.zeros(n_el, np.int32), np.zeros((n_el, X.shape[0]))
    D, gram, outage_numerator = np.zeros((n_el, n_line)), np.zeros((n_el, n_el)), np.zeros((n_out, n_el))
    for e in range(n_el):
        line, sign = layout.pos_line[elements[e]], layout.pos_sign[elements[e]]
        if line < 0:
            kind[e] = 2
            numerator[e] = lin.injection[elements[e]]
            continue
        if node_or[line] < 0:
            continue
        kind[e] = 1
        sum_b[e] = b[line]
        measured = lin.p_or[line] if sign > 0 else lin.p_ex[line]
        numerator[e] = -(measured + sign * merging.delta * merging.D[line])
        far[e] = node_ex[line] if sign > 0 else node_or[line]
        correction = row[home] - row[far[e]]
        for i in range(X.shape[0]):
            XV[e, i] = b[line] * (X[i, home] - X[i, far[e]] - row[i] * correction)
        for other in range(n_line):
            if node_or[other] >= 0:
                D[e, other] = -b[other] * (XV[e, node_or[other]] - XV[e, node_ex[other]])
        D[e, line] += sign * b[line]
        drop = row[node_or[line]] - row[node_ex[line]]
        for o in range(n_out):
            response = lin.H[line, outages[o]] - b[line] * drop * lost[o]
            outage_numerator[o, e] = sign * ((1.0 if outages[o] == line else 0.0) - response)
    for e in range(n_el):
        if kind[e] == 1:
            line = layout.pos_line[elements[e]]
            for other in range(n_el):
                gram[e, other] = b[line] * (XV[other, home] - XV[other, far[e]])
    return Tables(f, numerator, sum_b, gram, D, outage_numerator, kind)


@njit(cache=True)
def _subset_sums(values: FloatArray, first: int, bits: int, out: FloatArray) -> None:
    """out[m] = sum of values[first + i] over the set bits i of m, for all m < 2^bits."""
    out[0] = 0.0
    for i in range(bits):
        for m in range(1 << i):
            out[(1 << i) + m] = out[m] + values[first + i]


@njit(cache=True)
def _quadratic_sums(gram: FloatArray, first: int, bits: int, out: FloatArray) -> None:
    """out[m] = sum of gram over the pairs of set bits of m."""
    out[0] = 0.0
    for i in range(bits):
        for m in range(1 << i):
            total = gram[first + i, first + i]
            for j in range(i):
                if m >> j & 1:
                    total += 2.0 * gram[first + i, first + j]
            out[(1 << i) + m] = out[m] + total


@njit(cache=True)
def _sift(values: NDArray[np.float32], ids: IntArray, value: float, identity: int) -> None:
    """Replace the root (the largest) of the heap."""
    size, i = values.size, 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and values[child + 1] > values[child]:
            child += 1
        if values[child] <= value:
            break
        values[i], ids[i] = values[child], ids[child]
        i = child
    values[i], ids[i] = value, identity


@njit(cache=True)
def _all_reach(m, threshold):  # type: ignore[no-untyped-def]
    """Whether no value is below the threshold; counted to the end, which the compiler vectorises."""
    below = 0
    for p in range(m.size):
        below += 1 if m[p] < threshold else 0
    return below == 0


@njit(cache=True, fastmath=FAST)
def _flow_pass(m, delta, low_D, high_D, f, parabola, lines, threshold):  # type: ignore[no-untyped-def]
    """m = max(m, rho^2 of `lines`) for a block of patterns [P]; true when all of them exceed the threshold."""
    for start in range(0, lines.size, LINES_PER_CHECK):
        for at in range(start, min(start + LINES_PER_CHECK, lines.size)):
            line = lines[at]
            fl, shift = f[line], high_D[line]
            square, slope, rest = parabola[0, line], parabola[1, line], parabola[2, line]
            column = low_D[line]
            for p in range(m.size):
                t = fl + delta[p] * (column[p] + shift)
                value = (square * t + slope) * t + rest
                m[p] = value if value > m[p] else m[p]
        if _all_reach(m, threshold):
            return True
    return False


@njit(cache=True, fastmath=FAST)
def _outage_pass(m, g, e, k, low_D, high_D, f, h, parabola, lines, threshold):  # type: ignore[no-untyped-def]
    """As `_flow_pass`, after the loss of line k: flows f + h g + e D with g the lost flow over 1 - H'_kk."""
    for start in range(0, lines.size, LINES_PER_CHECK):
        for at in range(start, min(start + LINES_PER_CHECK, lines.size)):
            line = lines[at]
            if line == k:
                continue
            fl, hl, shift = f[line], h[line], high_D[line]
            square, slope, rest = parabola[0, line], parabola[1, line], parabola[2, line]
            column = low_D[line]
            for p in range(m.size):
                t = fl + hl * g[p] + e[p] * (column[p] + shift)
                value = (square * t + slope) * t + rest
                m[p] = value if value > m[p] else m[p]
        if _all_reach(m, threshold):
            return True
    return False


@njit(cache=True, fastmath=FAST)
def _outage_scalars(m, delta, inverse, num_low, num_high, D_low, D_high, f_k, h_kk, g, e):  # type: ignore[no-untyped-def]
    """g and e of `_outage_pass` for a block [P]; a lost line that leaves an island sets m to ISLAND^2."""
    for p in range(m.size):
        r = (num_low[p] + num_high) * inverse[p]
        d = D_low[p] + D_high
        room = 1.0 - h_kk - r * d
        if room < MIN_ROOM:
            g[p] = 0.0
            if abs(f_k + delta[p] * d) > CUT_OFF_LINEAR:
                m[p] = max(m[p], ISLAND * ISLAND)
        else:
            g[p] = (f_k + delta[p] * d) / room
        e[p] = delta[p] + r * g[p]


@njit(cache=True)
def _padded(chosen):  # type: ignore[no-untyped-def]
    """`chosen` with the first repeated up to a whole number of vectors, so that each is computed as in a full block."""
    out = np.full(-(-chosen.size // PADDING) * PADDING, chosen[0])
    out[: chosen.size] = chosen
    return out


@njit(cache=True)
def _columns(table, chosen):  # type: ignore[no-untyped-def]
    """Columns `chosen` of a table [L, P]."""
    out = np.empty((table.shape[0], chosen.size), table.dtype)
    for line in range(table.shape[0]):
        for i in range(chosen.size):
            out[line, i] = table[line, chosen[i]]
    return out


@njit(cache=True)
def rank_substation(  # type: ignore[no-untyped-def] # noqa: C901 - cutting it would hide the order of early exits
    tables, h, ids, present, alive_mask, curve, search, ceiling, every
):
    """Rank all patterns of one substation by rho^2.

    Args:
        tables: `Tables` of the substation.
        h: [O, L] response of all lines to each outage, everything merged to one bus, of the dtype of `curve`.
        ids: [2^(E-1)] catalogue id of a pattern, -1 where there is none.
        present: Present pattern on the elements of `alive_mask` (full pattern, bit 0 included); it and its complement
            are left out.
        alive_mask: Elements in service: a pattern that moves another one is left out if its twin without exists.
        curve: [3, L] parabolas, of the dtype to work in.
        search: What is looked for.
        ceiling: rho^2 from which a pattern is of no use.
        every: [catalogue size] receives the rho^2 of every pattern (no early exit), or [0].

    Returns:
        values [keep] and ids [keep] of the best, unordered; ids -1 where fewer exist.
    """
    f64, numerator, sum_b, gram, D, outage_numerator, kind = tables
    outages, limit = search.outages, search.limit
    n_el, n_line, n_out = kind.size, f64.size, outages.size
    bits = n_el - 1
    low = min(bits, LOW_BITS)
    high = bits - low
    n_low, n_high = 1 << low, 1 << high
    dt = curve.dtype
    f = f64.astype(dt)
    sums = np.empty((2, 3, max(n_low, n_high)))  # numerator, sum_b, gram of low and high halves
    counts = np.empty((2, 2, max(n_low, n_high)))  # branches and injections moved
    branch, inject = (kind == 1).astype(np.float64), (kind == 2).astype(np.float64)
    for half in range(2):
        first, width = (1, low) if half == 0 else (1 + low, high)
        _subset_sums(numerator, first, width, sums[half, 0])
        _subset_sums(sum_b, first, width, sums[half, 1])
        _quadratic_sums(gram, first, width, sums[half, 2])
        _subset_sums(branch, first, width, counts[half, 0])
        _subset_sums(inject, first, width, counts[half, 1])
    low_D, high_D = np.zeros((n_line, n_low), dt), np.zeros((n_high, n_line), dt)
    buffer = np.empty(max(n_low, n_high))
    for line in range(n_line):
        _subset_sums(D[:, line], 1, low, buffer)
        low_D[line] = buffer[:n_low]
        _subset_sums(D[:, line], 1 + low, high, buffer)
        high_D[:, line] = buffer[:n_high]
    low_out, high_out = np.empty((n_out, n_low), dt), np.empty((n_out, n_high), dt)
    for o in range(n_out):
        _subset_sums(outage_numerator[o], 1, low, buffer)
        low_out[o] = buffer[:n_low]
        _subset_sums(outage_numerator[o], 1 + low, high, buffer)
        high_out[o] = buffer[:n_high]
    n_branch, n_inject = branch.sum(), inject.sum()
    absent = ~present & alive_mask
    best, best_ids = np.full(search.keep, HUGE, dt), np.full(search.keep, -1, np.int32)
    all_m, all_delta, all_inverse = np.empty(n_low, dt), np.empty(n_low, dt), np.empty(n_low, dt)
    all_g, all_e, everywhere = np.empty(n_low, dt), np.empty(n_low, dt), np.arange(n_low)
    worst = np.empty(n_low, dt)
    weights, cross = np.zeros(n_el), np.empty(n_low)
    for hi in range(n_high):
        m, delta, inverse, g, e = all_m, all_delta, all_inverse, all_g, all_e
        for j in range(low):
            total = 0.0
            for i in range(high):
                if hi >> i & 1:
                    total += gram[1 + low + i, 1 + j]
            weights[j] = 2.0 * total
        _subset_sums(weights, 0, low, cross)
        for lo in range(n_low):
            index = hi << low | lo
            pattern = index << 1
            moved = pattern & alive_mask
            delta[lo] = inverse[lo] = 0.0
            m[lo] = HUGE
            if ids[index] < 0 or moved in (present, absent):
                continue
            if moved != pattern and ids[moved >> 1] >= 0:
                continue
            other = ~moved & alive_mask
            if alive_mask & 1 == 0 and other < moved and ids[other >> 1] >= 0:
                continue  # element 0 is out of service: the complement has a place of its own
            branches, injections = counts[0, 0, lo] + counts[1, 0, hi], counts[0, 1, lo] + counts[1, 1, hi]
            if branches == 0.0 or branches == n_branch:
                if (branches == 0.0 and injections == 0.0) or (branches > 0.0 and injections == n_inject):
                    m[lo] = 0.0  # nothing or everything moved: the merged substation
                continue
            susceptance = sums[0, 1, lo] + sums[1, 1, hi]
            denominator = susceptance - (sums[0, 2, lo] + sums[1, 2, hi] + cross[lo])
            if denominator > DENOMINATOR * susceptance:
                m[lo] = 0.0
                inverse[lo] = 1.0 / denominator
                delta[lo] = (sums[0, 0, lo] + sums[1, 0, hi]) / denominator
        threshold = min(best[0], ceiling) if every.size == 0 else dt.type(np.inf)
        if _all_reach(m, threshold):
            continue
        if n_out > 0:  # the worst outage first: it alone is enough to give up most blocks
            k = outages[0]
            worst[:] = m
            _outage_scalars(
                worst, delta, inverse, low_out[0], high_out[0, hi], low_D[k], high_D[hi, k], f[k], h[0, k], g, e
            )
            lines = search.outage_lines[0]
            if _outage_pass(worst, g, e, k, low_D, high_D[hi], f, h[0], curve, lines, threshold):
                continue
        if _flow_pass(m, delta, low_D, high_D[hi], f, curve, search.lines, threshold):
            continue
        if n_out > 0:
            for lo in range(n_low):
                if limit * limit <= m[lo] < HUGE:
                    m[lo] = (np.sqrt(m[lo]) + CERTAIN) ** 2
                m[lo] = worst[lo] if worst[lo] > m[lo] else m[lo]
        places, count, left_D = everywhere, n_low, low_D
        given_up = False
        for o in range(1, n_out):
            chosen = np.flatnonzero(m[:count] < threshold)
            given_up = chosen.size == 0
            if given_up:
                break
            if 2 * chosen.size <= places.size and places.size > PADDING:  # few are left: look at these alone
                count, padded = chosen.size, _padded(chosen)
                places, m, delta, inverse = places[padded], m[padded], delta[padded], inverse[padded]
                left_D = _columns(left_D, padded)
                g, e = np.empty(padded.size, dt), np.empty(padded.size, dt)
            k = outages[o]
            moved_low, line_low = low_out[o][places], left_D[k]
            _outage_scalars(m, delta, inverse, moved_low, high_out[o, hi], line_low, high_D[hi, k], f[k], h[o, k], g, e)
            lines = search.outage_lines[o]
            given_up = _outage_pass(m, g, e, k, left_D, high_D[hi], f, h[o], curve, lines, threshold)
            if given_up:
                break
        if given_up:
            continue
        for i in range(count):
            identity = ids[hi << low | places[i]]
            if every.size > 0 and identity >= 0:
                every[identity] = m[i]
            if m[i] < best[0] and m[i] < HUGE:
                _sift(best, best_ids, m[i], identity)
    return best, best_ids


@njit(cache=True)
def rank_substations(wanted, layout, lin, search, zero, every):  # type: ignore[no-untyped-def]
    """`rank_substation` for every substation of `wanted`, in the precision of `zero`; values and ids [wanted, keep]."""
    curve, huge = lin.parabola.astype(zero.dtype), zero.dtype.type(HUGE)
    values = np.full((wanted.size, search.keep), HUGE, zero.dtype)
    ids = np.full((wanted.size, search.keep), -1, np.int32)
    # the best of all so far: what is worse than the last of them is of no use
    together, unnamed = np.full(search.most, HUGE, zero.dtype), np.zeros(search.most, np.int32)
    sizes = layout.pattern_ptr[wanted + 1] - layout.pattern_ptr[wanted]
    whole = lin.H[:, search.outages].T.copy().astype(zero.dtype)  # what a substation that is not split does not change
    for at in np.argsort(-sizes, kind="mergesort"):  # the largest choice first: it lowers the ceiling most
        s = wanted[at]
        own = layout.pattern_ids[layout.pattern_ptr[s] : layout.pattern_ptr[s + 1]]
        if own.size == 0:
            continue
        elements = layout.elements[layout.sub_ptr[s] : layout.sub_ptr[s + 1]]
        present = alive = 0
        for e in range(elements.size):
            line = layout.pos_line[elements[e]]
            if line < 0 or lin.node_or[line] >= 0:
                alive |= 1 << e
                if lin.topo[elements[e]] == 2:
                    present |= 1 << e
        merging = merge(s, layout, lin)
        tables = substation_tables(s, layout, lin, merging, search.outages)
        h = _merged_responses(lin, merging, search.outages, zero) if merging.split else whole
        ceiling = np.nextafter(together[0], huge) if search.most > 0 else huge  # ties with the worst are kept
        values[at], ids[at] = rank_substation(tables, h, own, present, alive, curve, search, ceiling, every)
        if values[at].max() < ceiling < huge:  # full: which of the equals stay depends on all that came before them
            values[at], ids[at] = rank_substation(tables, h, own, present, alive, curve, search, huge, every)
        for value in values[at]:
            if search.most > 0 and value < together[0]:
                _sift(together, unnamed, value, 0)
    return values, ids


@njit(cache=True)
def split_rows(of, masks, layout, lin, outages):  # type: ignore[no-untyped-def]
    """The low-rank change of some patterns: the merging of their substation, then a splitting.

    Args:
        of: [n] substations.  masks: [n] full patterns (elements out of service are ignored).
        outages: [O] lines of the responses.

    Returns:
        f [n, L] flows after; D [n, 2, L] and R [n, 2, O], whose products are added to H; usable [n].
    """
    n, n_line, n_out = masks.size, lin.b.size, outages.size
    flows, usable = np.zeros((n, n_line)), np.zeros(n, np.bool_)
    change, response = np.zeros((n, 2, n_line)), np.zeros((n, 2, n_out))
    for s in np.unique(of):
        merging = merge(s, layout, lin)
        tables = substation_tables(s, layout, lin, merging, outages)
        second = s + layout.n_sub
        scale = np.sqrt(max(0.0, lin.X[s, s] - 2.0 * lin.X[s, second] + lin.X[second, second]))  # of merging.row
        merged = scale * _drops(lin, merging, outages)
        for i in np.flatnonzero(of == s):
            flows[i], change[i, 1], response[i, 1] = tables.f, merging.D, merged
            usable[i] = _split(masks[i], tables, flows[i], change[i, 0], response[i, 0])
    return flows, change, response, usable


@njit(cache=True)
def _split(mask, tables, flows, change, response):  # type: ignore[no-untyped-def]
    """Add what the splitting of a merged substation does to flows [L], D [L] and R [O]; whether it is usable."""
    _, numerator, sum_b, gram, D, outage_numerator, kind = tables
    n_branch, n_inject = (kind == 1).sum(), (kind == 2).sum()
    branches = injections = 0
    total = susceptance = quadratic = 0.0
    for e in range(kind.size):
        if mask >> e & 1 == 0:
            continue
        branches += kind[e] == 1
        injections += kind[e] == 2
        total += numerator[e]
        susceptance += sum_b[e]
        for other in range(kind.size):
            if mask >> other & 1:
                quadratic += gram[e, other]
    if branches == 0 or branches == n_branch:
        return injections == 0 if branches == 0 else injections == n_inject
    denominator = susceptance - quadratic
    if denominator <= DENOMINATOR * susceptance:
        return False
    for e in range(kind.size):
        if mask >> e & 1:
            change += D[e]
            for o in range(response.size):
                response[o] += outage_numerator[o, e] / denominator
    flows += total / denominator * change
    return True
