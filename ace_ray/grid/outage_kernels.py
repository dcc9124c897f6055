"""Compiled kernel of the outages: every credible one, after every action that was looked at."""

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
