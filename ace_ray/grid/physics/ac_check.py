"""Exact AC power flow of many actions at once, on a grid of our own brought to the observation's state.

lightsim2grid's `ScenarioSweepCPP` solves one row an action on one symbolic analysis (about 20 microseconds a row on 36
substations). It refuses rows that move a slack generator: their bus labels are swapped, which is the same network, and
where a connected shunt forbids that, or the sweep refuses for another reason, the row gets a power flow of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightsim2grid.lightsim2grid_cpp import AlgorithmType, ElementType, ScenarioSweepCPP, TopoAction
from numpy.typing import NDArray

from ace_ray.grid.forecast import Injections
from ace_ray.grid.grid2op_internals import shunts
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.catalogue import LINE, NOOP, Catalogue
from ace_ray.grid.physics.model import FloatArray, GridModel, GridState, IntArray, limits_of
from ace_ray.grid.physics.newton import OperatingPoint
from ace_ray.grid.physics.screen import PER_LINE

MAX_ITERATIONS = 10
TOLERANCE_MVA = 1e-4  # largest imbalance of a bus in a row of the sweep
_STATE_TOLERANCE = 1e-8
_CACHED_ACTIONS = 20_000


@dataclass(frozen=True)
class Checked:
    """AC results of n rows; diverged rows have zeros and `converged` false."""

    rho: FloatArray  # [n, L]
    p_or: FloatArray  # [n, L] MW
    q_or: FloatArray  # [n, L] MVAr
    converged: NDArray[np.bool_]  # [n]

    def max_rho(self) -> FloatArray:
        """[n] worst rho, infinite where the power flow diverged."""
        return np.where(self.converged, self.rho.max(axis=1, initial=0.0), np.inf)


class AcCheck:
    """The exact check: `load` an observation, then `sweep` actions from it.

    Args:
        model: Static arrays of the grid.
        catalogue: What ids mean.
        grid: LightSim grid (`LSGrid`) that belongs to this object alone.
        pu_to_kv: [G] nominal voltage of the generators' buses in kV.
    """

    def __init__(self, model: GridModel, catalogue: Catalogue, grid: Any, pu_to_kv: FloatArray) -> None:
        self.model, self.catalogue = model, catalogue
        self._grid, self._pu_to_kv = grid, np.asarray(pu_to_kv, np.float32)
        self._tolerance = TOLERANCE_MVA / float(grid.get_sn_mva())
        self._all = {n: np.ones(n, bool) for n in (model.dim_topo, model.n_gen, model.n_load, model.n_storage)}
        self._flat = np.ones(grid.total_bus(), complex)
        self._actions: dict[tuple[int, int, bool], TopoAction] = {}
        self._element = self._element_of_position()
        self._shunt_subs = [s.sub_id for s in grid.get_shunts()] if self._has_shunts() else []
        self._shunt_state: tuple | None = None
        # place of the slack generator among its substation's elements
        self._slack_place = int(np.searchsorted(catalogue.positions[model.slack_sub], model.slack_pos))
        self._limit = model.thermal_limit
        self._reconnect(())
        self._note(np.ones(model.dim_topo, np.int32))
        self.ready = False  # whether the loaded state has a power flow solution
        self.fallbacks = 0  # rows that needed a power flow of their own, since the start

    def __getstate__(self) -> dict[str, Any]:
        """Without the cached actions, which cannot be pickled: Grid2Op's Runner sends an agent to other processes."""
        return {**self.__dict__, "_actions": {}}

    def _has_shunts(self) -> bool:
        return len(self._grid.get_shunts()) > 0

    def _element_of_position(self) -> list[tuple[ElementType, int]]:
        model = self.model
        kinds = (
            (ElementType.load, model.load_pos),
            (ElementType.gen, model.gen_pos),
            (ElementType.storage, model.storage_pos),
            (ElementType.line_or, model.line_or_pos),
            (ElementType.line_ex, model.line_ex_pos),
        )
        table: list[Any] = [None] * model.dim_topo
        for kind, positions in kinds:
            for element, position in enumerate(positions):
                table[position] = (kind, element)
        return table

    # -- the state ----------------------------------------------------------------------------------------------------

    def load(self, obs: GridObservation) -> bool:
        """Bring the grid to the observation's state and solve it; false if the power flow diverges."""
        grid, model = self._grid, self.model
        self._reconnect(())
        self._load_shunts(obs)
        self._set_topo(obs.topo_vect.astype(np.int32))
        gen, load = self._all[model.n_gen], self._all[model.n_load]
        grid.update_gens_p(gen, obs.gen_p.astype(np.float32))
        grid.update_gens_v(gen, (obs.gen_v / self._pu_to_kv).astype(np.float32))
        grid.update_loads_p(load, obs.load_p.astype(np.float32))
        grid.update_loads_q(load, obs.load_q.astype(np.float32))
        if model.n_storage:
            grid.update_storages_p(self._all[model.n_storage], obs.storage_power.astype(np.float32))
        self._limit = limits_of(model, obs)
        self.ready = self._solve()
        return self.ready

    def _set_topo(self, topo: IntArray) -> None:
        self._note(topo)
        self._grid.update_topo(self._all[self.model.dim_topo], topo)

    def _note(self, topo: IntArray) -> None:
        self._topo = topo
        self._live: list[int] = self.catalogue.live_bits(topo).tolist()  # [S] the elements in service, as bits

    def _reconnect(self, lines: tuple[int, ...]) -> None:
        """Note what is reconnected in the step that is looked at, and the substations with an end of it."""
        self._reconnected = lines
        ends = (self.model.line_or_sub, self.model.line_ex_sub)
        self._held = {int(sub[line]) for line in lines for sub in ends}

    def _solve(self) -> bool:
        return len(self._grid.ac_pf(self._flat, MAX_ITERATIONS, _STATE_TOLERANCE)) > 0

    def _load_shunts(self, obs: GridObservation) -> None:
        """Shunts keep their own bus; written only when the observation's differ from those written last."""
        seen = shunts(obs) if self._shunt_subs else None
        if seen is None:
            return
        state = tuple(values.tobytes() for values in seen)
        if state == self._shunt_state:
            return
        self._shunt_state = state
        nominal = [self._grid.get_bus_vn_kv()[s] for s in self._shunt_subs]
        for i, (bus, p, q, v) in enumerate(zip(*seen, strict=True)):
            if bus < 1:
                self._grid.deactivate_shunt(i)
                continue
            self._grid.reactivate_shunt(i)
            self._grid.change_bus_shunt(i, int(self._shunt_subs[i] + self.model.n_sub * (int(bus) - 1)))
            scale = (float(nominal[i]) / float(v)) ** 2  # power is measured at the actual voltage
            self._grid.change_p_shunt(i, float(p) * scale)
            self._grid.change_q_shunt(i, float(q) * scale)

    def play(self, ids: Sequence[int]) -> bool:
        """Apply reconnections to the loaded state until the next `load`; false if the power flow diverges.

        What is swept from then on is played in the same step as they are.
        """
        topo = self._topo
        for action_id in ids:
            topo = self.topology_after(topo, action_id)
        self._set_topo(topo)
        self._reconnect(tuple(int(self.catalogue.line[i]) for i in ids))
        self.ready = self._solve()
        return self.ready

    def expect(self, injections: Injections) -> None:
        """Replace the injections of the loaded state, until the next `load`; solved by the next `bring`."""
        model = self.model
        self._grid.update_gens_p(self._all[model.n_gen], injections.gen_p.astype(np.float32))
        self._grid.update_loads_p(self._all[model.n_load], injections.load_p.astype(np.float32))
        self._grid.update_loads_q(self._all[model.n_load], injections.load_q.astype(np.float32))

    def bring(self, topo: IntArray, reconnected: tuple[int, ...] = ()) -> bool:
        """Bring the loaded state into another topology [T], until the next `load`; false if the power flow diverges.

        Args:
            topo: Topology vector.
            reconnected: Lines that are in service there because they are reconnected in the step that is looked at.
        """
        self._set_topo(topo)
        self._reconnect(reconnected)
        self.ready = self._solve()
        return self.ready

    @property
    def topo(self) -> IntArray:
        """[T] topology vector of the loaded state."""
        return self._topo

    def state(self, base: GridState) -> GridState:
        """The solved state, with the injections and limits of `base` (the slack's share is read from the solution)."""
        grid, model = self._grid, self.model
        line, line2 = grid.get_line_res1(), grid.get_line_res2()
        trafo, trafo2 = grid.get_trafo_res1(), grid.get_trafo_res2()
        p_or, q_or, v_or, a_or = (np.concatenate([line[i], trafo[i]]) for i in range(4))
        p_ex, v_ex = (np.concatenate([line2[i], trafo2[i]]) for i in (0, 2))
        injection = base.injection.copy()
        injection[model.gen_pos] = grid.get_gen_res()[0]
        return GridState(self._topo, injection, p_or, q_or, p_ex, v_or, v_ex, 1000.0 * a_or / self._limit, self._limit)

    def point(self) -> OperatingPoint:
        """The solved state, voltages and all."""
        grid = self._grid
        shunt_q = np.zeros(self.model.n_node)
        for shunt in grid.get_shunts() if self._shunt_subs else ():
            if shunt.connected:
                shunt_q[shunt.bus_id] += shunt.res_q_mvar
        return OperatingPoint(
            voltage=np.asarray(grid.get_V()),
            gen_p=grid.get_gen_res()[0],
            load_p=grid.get_loads_res()[0],
            load_q=grid.get_loads_res()[1],
            storage_p=grid.get_storages_res()[0] if self.model.n_storage else np.zeros(0),
            shunt_q=shunt_q,
            limit=self._limit,
        )

    def topology_after(self, topo: IntArray, action_id: int) -> IntArray:
        """Topology vector [T] once an action is played in `topo`."""
        return self.catalogue.topologies_after(topo, [action_id], self._reconnected)[0]

    # -- the sweep ----------------------------------------------------------------------------------------------------

    def sweep(self, ids: Sequence[int] | NDArray, outages: IntArray | None = None) -> Checked:
        """Exact results after each action, from the loaded state.

        Args:
            ids: [n] catalogue ids.
            outages: [n] line lost together with each action, -1 for none; None for none at all. A line that is out of
                service already is not lost again.
        """
        chosen = [int(i) for i in ids]
        lost = np.full(len(chosen), -1) if outages is None else np.asarray(outages)
        if not chosen:
            empty = np.zeros((0, self.model.n_line))
            return Checked(empty, empty, empty, np.zeros(0, bool))
        own = ~self.sweepable(chosen)
        alone, swept = np.flatnonzero(own).tolist(), np.flatnonzero(~own).tolist()
        result = self._sweep_rows([chosen[i] for i in swept], lost[swept]) if swept else None
        if result is None:  # refused as a whole: every row alone
            alone, swept = list(range(len(chosen))), []
        if not alone and result is not None:
            return result
        p, q, a = (np.zeros((len(chosen), self.model.n_line)) for _ in range(3))
        converged = np.zeros(len(chosen), bool)
        if result is not None:
            p[swept], q[swept], a[swept], converged[swept] = result.p_or, result.q_or, result.rho, result.converged
        for i in alone:
            self._alone(chosen[i], int(lost[i]), i, p, q, a, converged)
        return Checked(a, p, q, converged)

    def contingencies(self, ids: Sequence[int] | NDArray, lines: IntArray) -> Checked:
        """[n * O] exact results after each action together with the loss of each line, action by action."""
        chosen = np.asarray(ids)
        return self.sweep(np.repeat(chosen, len(lines)), np.tile(lines, len(chosen)))

    def _sweep_rows(self, ids: list[int], lost: NDArray) -> Checked | None:
        sweep = ScenarioSweepCPP(self._grid)
        sweep.change_algorithm(AlgorithmType.NR_KLU)
        sweep.nb_thread = 1
        sweep.init_from_n_powerflow = False  # in stressed states some rows converge from a flat start only
        rows = [self.row(i, k) for i, k in zip(ids, lost.tolist(), strict=True)]
        try:
            sweep.set_topo_actions(rows)
            sweep.compute(self._flat, MAX_ITERATIONS, self._tolerance)
        except RuntimeError:
            return None
        converged = np.array(sweep.converged_mask(), bool)
        current = np.array(sweep.compute_flows())
        branch = sweep.compute_branch_results()
        usable = converged[:, None]
        rho = np.where(usable, 1000.0 * current / self._limit, 0.0)
        return Checked(rho, np.where(usable, branch[:, :, 0], 0.0), np.where(usable, branch[:, :, 1], 0.0), converged)

    def _alone(
        self, action_id: int, lost: int, i: int, p: FloatArray, q: FloatArray, a: FloatArray, converged: NDArray
    ) -> None:
        """One row by a power flow of its own; the loaded state is restored afterwards."""
        self.fallbacks += 1
        before = self._topo
        topo = self.topology_after(before, action_id)
        if lost >= 0:
            topo[[self.model.line_or_pos[lost], self.model.line_ex_pos[lost]]] = -1
        self._set_topo(topo)
        if self._solve():
            line, trafo = self._grid.get_line_res1(), self._grid.get_trafo_res1()
            p[i], q[i] = (np.concatenate([line[j], trafo[j]]) for j in (0, 1))
            a[i] = 1000.0 * np.concatenate([line[3], trafo[3]]) / self._limit
            converged[i] = True
        self._set_topo(before)
        self._solve()

    def sweepable(self, ids: Sequence[int] | NDArray) -> NDArray[np.bool_]:
        """[n] whether the sweep takes the row; the others get a power flow of their own."""
        taken = np.ones(len(ids), bool)
        if self.model.slack_sub in self._shunt_subs:  # swapping labels is no option where a shunt stays behind
            for i in np.flatnonzero(self.catalogue.substation[np.asarray(ids, np.int64)] == self.model.slack_sub):
                taken[i] = not self._moves_slack(int(ids[i]))
        return taken

    def _moves_slack(self, action_id: int) -> bool:
        """Whether a partition of the slack's substation puts the slack generator on another bus than it is on."""
        return bool(self.catalogue.buses(action_id)[self._slack_place] != self._topo[self.model.slack_pos])

    def row(self, action_id: int, lost: int = -1) -> TopoAction:
        """The sweep's form of an action in the loaded topology, with the opening of a line that is lost with it.

        Cached by the elements that it moves. The sweep's own outage mask does not serve: it takes the bus that only
        the lost line is left on for a part of the grid that was cut off.
        """
        kind = int(self.catalogue.kind[action_id])
        if lost >= 0 and self._topo[self.model.line_or_pos[lost]] < 0 and self.catalogue.line[action_id] != lost:
            lost = -1  # out of service already
        if kind == LINE and self.catalogue.line[action_id] != lost:
            row = self._switch(action_id)
        elif kind in (NOOP, LINE):
            row = TopoAction()
        else:
            row = self._partition(action_id, lost)
        if lost >= 0 and self._topo[self.model.line_or_pos[lost]] > 0:
            row.set_line_status(lost, -1)
        return row

    def _partition(self, action_id: int, lost: int) -> TopoAction:
        s = int(self.catalogue.substation[action_id])
        swap = s == self.model.slack_sub and self._moves_slack(action_id)
        if lost >= 0 or s in self._held:
            return self._placed(action_id, s, lost, swap)
        key = (action_id, self._live[s], swap)
        row = self._actions.get(key)
        if row is None:
            if len(self._actions) >= _CACHED_ACTIONS:
                self._actions.clear()
            row = self._actions[key] = self._placed(action_id, s, lost, swap)
        return row

    def _placed(self, action_id: int, s: int, lost: int, swap: bool) -> TopoAction:
        """The live elements of substation s on the buses of a partition, or on the other ones."""
        positions = self.catalogue.positions[s]
        live = (self._topo[positions] > 0) & ((self.model.pos_line[positions] != lost) | (lost < 0))
        if s in self._held:
            buses = self.topology_after(self._topo, action_id)[positions]
        else:
            buses = self.catalogue.buses(action_id)
        row = TopoAction()
        for position, bus in zip(positions[live].tolist(), buses[live].tolist(), strict=True):
            row.add_element(*self._element[position], 3 - bus if swap else bus)
        return row

    def _switch(self, action_id: int) -> TopoAction:
        line, column = int(self.catalogue.line[action_id]), (action_id - 1) % PER_LINE
        row = TopoAction()
        if column == 0:
            row.set_line_status(line, -1)
        else:
            bus_or, bus_ex = divmod(column - 1, 2)
            row.add_element(ElementType.line_or, line, bus_or + 1)
            row.add_element(ElementType.line_ex, line, bus_ex + 1)
        return row
