"""Compiled kernels of the outages: every credible one, after every action that was looked at.

The two share their loops and repeat them on purpose: with what they share in functions of its own, the results were the
same bit for bit, and the worst rho took 15 % longer (36 and 118 substations, timed in turns).
"""

import numpy as np
from numba import njit


@njit(cache=True)
def worst_after_outage(f, parabola, H, D, R, outages, skip, cut_off, min_room, islanded):  # type: ignore[no-untyped-def]
    """Worst rho after each outage, for n topologies with flows f [n, L] and response H + sum_j D[:, j] R[:, j]'.

    Args:
        f: [n, L] flows.  parabola: [3, n, L] rho^2 of a flow.  H: [L, O] response of the common topology.
        D: [n, J, L].  R: [n, J, O].  outages: [O] lines.  skip: [O] outages that do not count.
        cut_off: MW that a line must carry for its loss to be an island.  min_room: 1 - H_kk under which it is one.
        islanded: rho of such an outage.

    Returns:
        [n, O]; where the line is out of service already, carries nothing or is skipped, the worst rho as it is.
    """
    n, n_line = f.shape
    n_out, rank = outages.size, D.shape[1]
    worst = np.zeros((n, n_out))
    for i in range(n):
        for o in range(n_out):
            k = outages[o]
            own = H[k, o]
            for j in range(rank):
                own += D[i, j, k] * R[i, j, o]
            room = 1.0 - own
            gain = 0.0
            if room >= min_room:
                gain = 0.0 if skip[o] else f[i, k] / room
            elif abs(f[i, k]) > cut_off and not skip[o]:
                worst[i, o] = islanded
                continue
            top = 0.0
            for line in range(n_line):
                if line == k and not skip[o]:
                    continue
                shift = H[line, o]
                for j in range(rank):
                    shift += D[i, j, line] * R[i, j, o]
                t = f[i, line] + gain * shift
                top = max(top, (parabola[0, i, line] * t + parabola[1, i, line]) * t + parabola[2, i, line])
            worst[i, o] = np.sqrt(top)
    return worst


@njit(cache=True)
def stress_after_outage(f, parabola, H, D, R, outages, alive, soft, cut_off, min_room, islanded):  # type: ignore[no-untyped-def]
    """As `worst_after_outage`, with the sum over lines of rho above `soft` in place of the worst rho.

    Args:
        alive: [O] outages that count; otherwise as there.

    Returns:
        [n, O]; at most `islanded`, which is also what an outage that cuts the grid in two is given.
    """
    n, n_line = f.shape
    n_out, rank = outages.size, D.shape[1]
    total = np.zeros((n, n_out))
    for i in range(n):
        for o in range(n_out):
            k = outages[o]
            own = H[k, o]
            for j in range(rank):
                own += D[i, j, k] * R[i, j, o]
            gain = 0.0
            if 1.0 - own >= min_room:
                gain = f[i, k] / (1.0 - own) if alive[o] else 0.0
            elif alive[o] and abs(f[i, k]) > cut_off:
                total[i, o] = islanded
                continue
            for line in range(n_line):
                if line == k and alive[o]:
                    continue
                shift = H[line, o]
                for j in range(rank):
                    shift += D[i, j, line] * R[i, j, o]
                t = f[i, line] + gain * shift
                square = (parabola[0, i, line] * t + parabola[1, i, line]) * t + parabola[2, i, line]
                if square > soft * soft:
                    total[i, o] += np.sqrt(square) - soft
    return np.minimum(total, islanded)
