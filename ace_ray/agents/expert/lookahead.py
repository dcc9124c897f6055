"""Looking ahead: what actions do in topologies that are not there yet, and how exposed they leave the grid to outages.

From one observation, `Lookahead` builds a tree of topologies: `expand` a node to get moves with exact AC flows and the
stress after each contingency, `after` a move to get the next node. Injections are those expected of the
next step, which is what an action played now will meet. Places further on keep them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ace_ray.agents.expert.overload_sum import stress_after
from ace_ray.config.expert import ExpertSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.forecast import Injections
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.opponent import Contingencies
from ace_ray.grid.physics import kernels
from ace_ray.grid.physics.catalogue import LINE, SUBSTATION
from ace_ray.grid.physics.linear import Linearisation
from ace_ray.grid.physics.model import FloatArray, GridState, IntArray
from ace_ray.grid.physics.newton import tangent

Aim = Literal["overload", "risk", "both"]
_LEAST = 4  # moves of one substation that a list may always have
_COUNTS = 0.002  # risk of an outage from which it gets a ranking of its own


@dataclass(frozen=True)
class Node:
    """A topology with what the rules of the game remember of it."""

    topo: IntArray  # [T]
    substation_rest: IntArray  # [S] steps until a substation may be moved
    line_rest: IntArray  # [L] steps until a line may be switched
    overflow: IntArray  # [L] steps that a line has been above its limit
    reconnected: tuple[int, ...] = ()  # lines that go in together with the move played here


@dataclass(frozen=True)
class Moves:
    """n actions from one node."""

    ids: IntArray  # [n] do-nothing among them
    rho: FloatArray  # [n, L] after the action; ISLAND everywhere where it has no power flow solution
    stress: FloatArray  # [n, O] overload after each contingency (`stress_after`)
    risk: FloatArray  # [n] weighted chance that the next outage is one outage too many

    @property
    def worst(self) -> FloatArray:
        """[n] max rho."""
        return self.rho.max(axis=1, initial=0.0)


class Lookahead:
    """Expands nodes of one observation at a time; `load` it first.

    Args:
        engine: its grid model, screen and AC check are used; a decision of its own invalidates what is loaded here.
        settings: sizes of the lists and the shape of the risk.
    """

    def __init__(self, engine: DecisionEngine, settings: ExpertSettings) -> None:
        self.engine, self.settings = engine, settings

    def load(self, obs: GridObservation, contingencies: Contingencies, expected: Injections) -> Node:
        """Take over an observation, and what is expected of the next step, and return the node where it stands."""
        check, model = self.engine.check, self.engine.model
        self.contingencies = contingencies
        self._maintenance, self._attacked = obs.time_next_maintenance, obs.time_since_last_attack
        self._state = GridState.from_observation(model, obs)
        check.load(obs)
        injection = self._state.injection.copy()
        injection[model.load_pos], injection[model.gen_pos] = -expected.load_p, expected.gen_p
        self._state = replace(self._state, injection=injection)
        check.expect(expected)
        rest_s, rest_l = obs.time_before_cooldown_sub, obs.time_before_cooldown_line
        return Node(obs.topo_vect.astype(np.int32), rest_s.copy(), rest_l.copy(), obs.timestep_overflow.copy())

    def with_lines(self, node: Node, ids: Sequence[int]) -> Node:
        """The node once reconnections `ids` go in together with the move that is played there."""
        topo = node.topo
        for action_id in ids:
            topo = self.engine.check.topology_after(topo, action_id)
        return replace(node, topo=topo, reconnected=tuple(int(self.engine.catalogue.line[i]) for i in ids))

    def cost(self, stress: FloatArray) -> FloatArray:
        """Chance that a stressed grid goes black: s / (s + half), and more than certain for one that is cut in two."""
        settings = self.settings
        return np.where(stress >= kernels.ISLAND, settings.island_cost, stress / (stress + settings.half_stress))

    # -- expanding ----------------------------------------------------------------------------------------------------

    def measure(self, node: Node, ids: Sequence[int] | NDArray) -> Moves | None:
        """What given actions do there; None where the node itself has no power flow solution."""
        lin = self._linearised(node)
        return None if lin is None else self._measured(lin, node, np.asarray(ids, np.int64))

    def expand(
        self,
        node: Node,
        aim: Aim,
        switches: bool = True,
        risks: FloatArray | None = None,
        most: int | None = None,
    ) -> Moves | None:
        """The best moves of a node by the linear screen, measured; None where the node has no power flow solution.

        Args:
            node: Where to move from.
            aim: What the screen ranks for: the max rho now, after the contingencies, or both.
            switches: Whether line switches are looked at too.
            risks: [O] risk by outage there, if known; the worst few get a ranking of their own.
            most: Length of each list against outages; the setting `risk_list` if None.
        """
        lin = self._linearised(node)
        if lin is None:
            return None
        if risks is None and aim != "overload":
            risks = self._by_outage(self._measured(lin, node, np.zeros(1, np.int64)), 0)
        lists = self._lists(lin, node, aim, risks, self.settings.risk_list if most is None else most)
        if switches:
            lists.append(self._switches(lin, node, aim, self.settings.switch_list if aim == "risk" else None))
        chosen = np.unique(np.concatenate([np.zeros(1, np.int64), *lists]))
        self.engine.check.bring(node.topo, node.reconnected)
        return self._measured(lin, node, chosen)

    def relieving(self, node: Node, most: int) -> Moves | None:
        """The best moves against the overload of a node alone: a quarter of the cost of `expand`, without stress.

        Args:
            node: Where to move from.
            most: Number of substation moves; a quarter as many line switches are looked at.
        """
        lin = self._linearised(node)
        if lin is None:
            return None
        lists = [
            self._by_newton(lin, node, self._free(node), most),
            self._switches(lin, node, "overload", most // 4),
        ]
        ids = np.unique(np.concatenate([np.zeros(1, np.int64), *lists]))
        checked = self.engine.check.sweep(ids)
        keep = checked.converged | (ids == 0)
        rho = np.where(checked.converged[:, None], checked.rho, kernels.ISLAND)[keep]
        return Moves(ids[keep], rho, np.zeros((len(rho), 0)), np.zeros(len(rho)))

    def exactly(self, node: Node, moves: Moves, rows: Sequence[int] | NDArray) -> Moves:
        """These rows of `moves`, with the stress of every contingency by AC power flow.

        Where an outage costs voltage, the linear model sees no overload at all, and it is half of what it is in the
        heaviest ones: good enough to find moves, not to choose between them.
        """
        check, at = self.engine.check, np.asarray(rows, np.int64)
        chosen, stress = moves.ids[at], moves.stress[at].copy()
        check.bring(node.topo, node.reconnected)
        live = np.flatnonzero(
            (node.topo[self.engine.model.line_or_pos[self.contingencies.lines]] > 0) & (self.contingencies.weights > 0)
        )
        lost = self.contingencies.lines[live]
        checked = check.contingencies(chosen, lost)
        above = np.maximum(checked.rho - self.settings.soft_rho, 0.0).sum(axis=1)
        above = np.where(checked.converged, np.minimum(above, kernels.ISLAND), kernels.ISLAND)
        stress[:, live] = above.reshape(chosen.size, lost.size)
        return Moves(chosen, moves.rho[at], stress, self.cost(stress) @ self.contingencies.weights)

    def risks(self, moves: Moves, row: int) -> FloatArray:
        """[O] risk by outage after one of the moves."""
        return self._by_outage(moves, row)

    def after(self, node: Node, moves: Moves, row: int) -> Node:
        """The node that a move leads to, a step later, without the lines that a protection opens on the way."""
        engine, chosen = self.engine, int(moves.ids[row])
        substation_rest, line_rest = np.maximum(node.substation_rest - 1, 0), np.maximum(node.line_rest - 1, 0)
        topo = engine.catalogue.topologies_after(node.topo, [chosen], node.reconnected)[0]
        if engine.catalogue.kind[chosen] == LINE:
            line_rest[engine.catalogue.line[chosen]] = engine.game.line_rest
        elif engine.catalogue.kind[chosen] == SUBSTATION:
            substation_rest[engine.catalogue.substation[chosen]] = engine.game.substation_rest
        overflow = np.where(moves.rho[row] > 1.0, node.overflow + 1, 0)
        tripped = engine.game.tripped(node.overflow, moves.rho[row])
        topo[engine.model.line_or_pos[tripped]] = topo[engine.model.line_ex_pos[tripped]] = -1
        line_rest[tripped], overflow[tripped] = engine.game.tripped_rest, 0
        return Node(topo, substation_rest, line_rest, overflow)

    def legal(self, node: Node, ids: NDArray) -> NDArray[np.bool_]:
        """[n] which ids may be played there."""
        return self.engine.catalogue.legal(self._view(node), ids)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _view(self, node: Node) -> Any:
        """What the catalogue reads of an observation, for a node."""
        return SimpleNamespace(
            topo_vect=node.topo,
            line_status=node.topo[self.engine.model.line_or_pos] > 0,
            time_before_cooldown_sub=node.substation_rest,
            time_before_cooldown_line=node.line_rest,
            time_next_maintenance=self._maintenance,
            time_since_last_attack=self._attacked,
        )

    def _linearised(self, node: Node) -> Linearisation | None:
        check = self.engine.check
        if not check.bring(node.topo, node.reconnected):
            return None
        return self.engine.linearise(check.state(self._state))

    def _measured(self, lin: Linearisation, node: Node, ids: IntArray) -> Moves:
        """Moves among `ids` that have a power flow solution, and do-nothing."""
        lines = self.contingencies.lines
        rows = self.engine.screen.rows(lin, ids, lines, node.reconnected)
        checked = self.engine.check.sweep(ids)
        stress = stress_after(lin, rows, checked.p_or, checked.q_or, lines, self.settings.soft_rho)
        solved = checked.converged[:, None]
        rho, stress = np.where(solved, checked.rho, kernels.ISLAND), np.where(solved, stress, kernels.ISLAND)
        keep = checked.converged | (ids == 0)
        return Moves(ids[keep], rho[keep], stress[keep], (self.cost(stress) @ self.contingencies.weights)[keep])

    def _by_outage(self, moves: Moves, row: int) -> FloatArray:
        return self.cost(moves.stress[row]) * self.contingencies.weights

    def _lists(self, lin: Linearisation, node: Node, aim: Aim, risks: FloatArray | None, most: int) -> list[IntArray]:
        """What the screen ranks first: for the overload here, for all outages at once, for the riskiest one by one.

        The ranking of all outages is linear. Those of the overload and of one outage take a Newton step from the solved
        state, which sees voltages and reactive power.
        """
        engine, settings = self.engine, self.settings
        free, lists = self._free(node), []
        if aim != "risk":
            lists.append(self._by_newton(lin, node, free, settings.overload_list))
        if aim != "overload" and risks is not None:
            lines = self.contingencies.lines[self.contingencies.weights > 0]
            outages = engine.security.screen_order(lin, lines)
            if outages.lines.size:
                ids, _ = engine.screen.rank(lin, most // 2, free, outages, settings.rho_room)
                lists.append(self._capped(node, ids, most))
            for o in np.argsort(-risks, kind="stable")[: settings.outages_apart]:
                lost = int(self.contingencies.lines[o])
                topo = node.topo.copy()
                topo[[engine.model.line_or_pos[lost], engine.model.line_ex_pos[lost]]] = -1
                there = self._linearised(replace(node, topo=topo)) if risks[o] > _COUNTS else None
                if there is not None:
                    lists.append(self._by_newton(there, node, free, most))
        return lists

    def _free(self, node: Node) -> IntArray:
        """Substations that may be moved there."""
        substations = self.engine.screen.substations
        return substations[node.substation_rest[substations] == 0]

    def _switches(self, lin: Linearisation, node: Node, aim: Aim, most: int | None) -> IntArray:
        """The line switches, or `most` of them: those that leave the least overload, or risk, by the linear model."""
        ids = np.flatnonzero(self.engine.catalogue.kind == LINE)
        ids = ids[self.legal(node, ids)]
        if most is None:
            return ids
        screen, soft, lines = self.engine.screen, self.settings.soft_rho, self.contingencies.lines
        rows = screen.rows(lin, ids, lines)
        if aim == "risk":
            stress = stress_after(lin, rows, rows.flows, lin.reactive(rows.flows), lines, soft)
            value = self.cost(stress) @ self.contingencies.weights
        else:
            value = np.maximum(screen.rho(lin, rows) - soft, 0.0).sum(axis=1)
        order = np.argsort(np.where(rows.usable, value, np.inf), kind="stable")
        return ids[order[: min(most, int(rows.usable.sum()))]]

    def _by_newton(self, lin: Linearisation, node: Node, free: IntArray, most: int) -> IntArray:
        """The best partitions by max rho after one Newton step from the state that the AC check has solved last."""
        engine = self.engine
        tan = tangent(engine.model, lin.factors, engine.check.point())
        ids, _ = engine.screen.rank_now(tan, lin.state.rho, most // 2, free)
        return self._capped(node, ids, most)

    def _capped(self, node: Node, ids: NDArray, most: int) -> IntArray:
        """The legal ones of `ids`, in order: at most `most`, a third of them on one substation."""
        ids = ids[self.legal(node, ids)].astype(np.int64)
        count: dict[int, int] = {}
        chosen: list[int] = []
        for action_id, substation in zip(ids.tolist(), self.engine.catalogue.substation[ids].tolist(), strict=True):
            if len(chosen) == most:
                break
            count[substation] = count.get(substation, 0) + 1
            if count[substation] <= max(_LEAST, most // 3):
                chosen.append(action_id)
        return np.array(chosen, np.int64)
