"""The linear screen of the whole catalogue (docs/design.md): every partition and line switch, ranked in milliseconds.

The compiled work is in `kernels`; here are the packed arrays, the line switches and the choice of what to look at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ace_ray.grid.physics import kernels, newton_kernels
from ace_ray.grid.physics.catalogue import LINE, SUBSTATION, Catalogue
from ace_ray.grid.physics.linear import Linearisation
from ace_ray.grid.physics.model import FloatArray, GridModel, IntArray
from ace_ray.grid.physics.newton_kernels import Tangent

PER_LINE = 5  # catalogue ids of a line: disconnect, reconnect on (1,1), (1,2), (2,1), (2,2)


@dataclass(frozen=True)
class Rows:
    """The low-rank change that each of n actions makes: H' = H + sum_j D[:, j] R[:, j]'."""

    flows: FloatArray  # [n, L] MW at the origin, linear
    D: FloatArray  # [n, 2, L]
    R: FloatArray  # [n, 2, O]
    usable: NDArray[np.bool_]  # [n] false where the action cuts off a part of the grid


@dataclass(frozen=True)
class Outages:
    """Credible outages of one state: lines [O], and for each the order in which to look at the other lines [O, *]."""

    lines: NDArray[np.int64]
    order: NDArray[np.int64]


class Screen:
    """Ranks catalogue ids by the linear model; made once for a grid and its catalogue."""

    def __init__(self, model: GridModel, catalogue: Catalogue) -> None:
        self.model, self.catalogue = model, catalogue
        # The kernels' element 0 never moves; it is a generator where the substation has one, the slack before others.
        order = [self._ordered(positions) for positions in catalogue.positions]
        sizes, ids = [0], []
        self._patterns = np.zeros(catalogue.size, np.int64)  # full pattern of a catalogue id
        for s, positions in enumerate(catalogue.positions):
            start, end = catalogue.offsets[s], catalogue.offsets[s + 1]
            table = np.full(1 << (len(positions) - 1) if end > start else 0, -1, np.int32)
            bits = catalogue.code[start:end, None] >> (len(positions) - 1 - np.searchsorted(positions, order[s])) & 1
            patterns = (bits ^ bits[:, :1]) @ (1 << np.arange(len(positions)))
            self._patterns[start:end] = patterns
            table[patterns >> 1] = np.arange(start, end)
            ids.append(table)
            sizes.append(table.size)
        self._layout = kernels.Layout(
            model.n_sub,
            model.sub_ptr,
            np.concatenate(order).astype(np.int32),
            model.pos_line,
            model.pos_sign,
            np.cumsum(sizes),
            np.concatenate(ids),
        )
        self.substations = np.flatnonzero(np.diff(catalogue.offsets)).astype(np.int64)

    def _ordered(self, positions: IntArray) -> IntArray:
        rank = np.isin(positions, self.model.gen_pos).astype(int) + (positions == self.model.slack_pos)
        return positions[np.argsort(-rank, kind="stable")]

    def rank_now(
        self,
        tan: Tangent,
        rho: FloatArray,
        keep: int,
        substations: IntArray | None = None,
        every: NDArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """The best `keep` partitions of each substation by the max rho here and now, one Newton step from the state.

        Args:
            tan: Present state.  rho: [L] its rho, for the order in which lines are looked at.
            keep: Number kept of each substation.  substations: The ones to look at; all if None.
            every: [catalogue size]: receives the rho of every partition, squared, and its type is the precision of the
                inner loops (for tests and recall measurements; slower).

        Returns:
            As `rank`.
        """
        wanted = self.substations if substations is None else np.asarray(substations, np.int64)
        lines = np.argsort(-rho, kind="stable")
        table = np.zeros(1, np.float32) if every is None else every
        values, ids = newton_kernels.rank_substations(
            wanted, self._layout, tan, lines[tan.node_or[lines] >= 0], keep, table
        )
        return _sorted(values, ids)

    def rank(
        self,
        lin: Linearisation,
        keep: int,
        substations: IntArray | None = None,
        outages: Outages | None = None,
        limit: float = np.inf,
        dtype: type = np.float32,
        every: FloatArray | None = None,
        most: int = 0,
    ) -> tuple[IntArray, FloatArray]:
        """The best `keep` partitions of each substation.

        Args:
            lin: Present state.
            keep: Number kept of each substation.
            substations: The ones to look at; all if None.
            outages: Rank by the worst rho now and after each of these, instead of now alone.
            limit: With outages, a rho of `limit` or more now counts as `kernels.CERTAIN` more than it is.
            dtype: Precision of the inner loops.
            every: [catalogue size] of `dtype`: receives the objective of every partition, squared (for tests and
                recall measurements; slower).
            most: Partitions that are surely not among the best `most` of all substations may be missing, which is
                quicker; 0: none is.

        Returns:
            ids [n] and rho [n], best first; ties by lower id. The present partition and those that cut off a part of
            the grid are not among them.
        """
        wanted = self.substations if substations is None else np.asarray(substations, np.int64)
        lines = np.argsort(-lin.state.rho, kind="stable")
        lost = outages if outages is not None else Outages(np.zeros(0, np.int64), np.zeros((0, 0), np.int64))
        search = kernels.Search(lines[lin.alive[lines]], lost.lines, lost.order, float(limit), keep, most)
        table = np.zeros(0, dtype) if every is None else every
        values, ids = kernels.rank_substations(wanted, self._layout, lin.arrays(), search, np.zeros(1, dtype), table)
        return _sorted(values, ids)

    def rows(
        self, lin: Linearisation, ids: Sequence[int] | NDArray, outages: IntArray, reconnected: Sequence[int] = ()
    ) -> Rows:
        """Flows after each action and its change of the distribution factors.

        Args:
            lin: State that the actions are played in.  ids: [n] catalogue ids.  outages: [O] lines of the factors.
            reconnected: Lines that are in service in `lin` because they are reconnected in the same step.
        """
        chosen = np.asarray(ids, np.int64).reshape(-1)
        n, state = chosen.size, lin.state
        rows = Rows(
            np.tile(state.p_or, (n, 1)),
            np.zeros((n, 2, self.model.n_line)),
            np.zeros((n, 2, outages.size)),
            np.ones(n, bool),
        )
        kinds = self.catalogue.kind[chosen]
        switches, partitions = np.flatnonzero(kinds == LINE), np.flatnonzero(kinds == SUBSTATION)
        opens = (chosen[switches] - 1) % PER_LINE == 0
        self._open(lin, chosen[switches[opens]], outages, rows, switches[opens])
        for i in switches[~opens]:
            self._close(lin, int(chosen[i]), outages, rows, int(i))
        if not partitions.size:
            return rows
        of = self.catalogue.substation[chosen[partitions]].astype(np.int64)
        masks = self._patterns[chosen[partitions]]
        if reconnected:
            after = self.catalogue.topologies_after(lin.state.topo, chosen[partitions], reconnected)
            masks = self._masks(of, after)
        rows.flows[partitions], rows.D[partitions], rows.R[partitions], rows.usable[partitions] = kernels.split_rows(
            of, masks, self._layout, lin.arrays(), outages
        )
        return rows

    def _masks(self, substations: NDArray, after: NDArray) -> NDArray[np.int64]:
        """[n] full patterns of the given substations in the topologies `after` [n, T]."""
        masks = np.zeros(substations.size, np.int64)
        for i, s in enumerate(substations):
            elements = self._layout.elements[self.model.sub_ptr[s] : self.model.sub_ptr[s + 1]]
            masks[i] = (after[i, elements] == 2) @ (1 << np.arange(elements.size))
        return masks

    def _open(self, lin: Linearisation, ids: NDArray, outages: IntArray, rows: Rows, at: NDArray) -> None:
        """Lines opened: the rows `at` of ids [n]; nothing changes where a line is out of service already."""
        lines = self.catalogue.line[ids].astype(np.int64)
        alive = lin.alive[lines]
        lines, at = lines[alive], at[alive]
        H = lin.factors.H
        room, flow = 1.0 - H[lines, lines], 0.5 * (lin.state.p_or[lines] - lin.state.p_ex[lines])
        whole = room >= kernels.MIN_ROOM  # else open at one end already, or the only way to something
        rows.usable[at[~whole]] = np.abs(flow[~whole]) < kernels.CUT_OFF
        rows.flows[at[~whole], lines[~whole]] = 0.0
        lines, at, room, flow = lines[whole], at[whole], room[whole, None], flow[whole, None]
        change = H.T[lines]
        change[np.arange(lines.size), lines] -= 1.0
        rows.flows[at] += flow / room * change
        rows.flows[at, lines] = 0.0
        rows.D[at, 0] = change
        rows.R[at, 0] = H[np.ix_(lines, outages)] / room

    def _close(self, lin: Linearisation, action_id: int, outages: IntArray, rows: Rows, i: int) -> None:
        """One line closed on a pair of buses."""
        line, column = int(self.catalogue.line[action_id]), (action_id - 1) % PER_LINE
        if lin.alive[line]:
            return
        X, node_or, node_ex = lin.factors.X, lin.factors.node_or, lin.factors.node_ex
        bus_or, bus_ex = divmod(column - 1, 2)
        a = self.model.line_or_sub[line] + self.model.n_sub * bus_or
        c = self.model.line_ex_sub[line] + self.model.n_sub * bus_ex
        if not (lin.factors.active[a] and lin.factors.active[c]):
            return  # a dangling line carries nothing
        x = X[a] - X[c]
        resistance = 1.0 / self.model.susceptance[line] + x[a] - x[c]
        change = np.where(lin.alive, -lin.factors.b * (x[node_or] - x[node_ex]), 0.0)
        change[line] = 1.0
        rows.flows[i] += lin.angle(int(a), int(c)) / resistance * change
        on = node_or[outages] >= 0
        k = outages[on]
        rows.R[i, 0, on] = (x[node_or[k]] - x[node_ex[k]]) / resistance
        # its own loss afterwards: H has no column for a line out of service
        own = outages == line
        rows.R[i, 0, own] = (x[a] - x[c]) / resistance - 1.0
        rows.D[i, 1, line], rows.R[i, 1, own] = 1.0, 1.0
        rows.D[i, 0] = change

    def rho(self, lin: Linearisation, rows: Rows) -> FloatArray:
        """[n, L] rho after each action by the linear model; a line that an action opens has 0."""
        return lin.rho(rows.flows)


def _sorted(values: NDArray, ids: IntArray) -> tuple[IntArray, FloatArray]:
    """Ids and rho out of the kernels' rho squared, best first; ties by lower id."""
    found = ids >= 0
    flat, rho = ids[found], np.sqrt(values[found].astype(np.float64))
    best = np.lexsort((flat, rho))
    return flat[best], rho[best]
