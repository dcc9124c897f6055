"""Expert: an agent that does not learn. It prevents, relieves, and plans the moves after an attack.

Where greedy dies, most grids were calm a step before: the opponent opens a line, several lines are overloaded at once,
and single best moves come too late (docs/expert.md). So expert acts before:

- *trust*: it plays against the injections of the next step, which are the forecast as far as forecasts came true;
- *prevent*: while an attack or maintenance may come, and the chance-weighted risk of the next outage can be lowered by
  one move, or by two in a row, it plays the first of them;
- *relieve*: in an overload, of the moves that relieve it the one that leaves the least risk;
- *plan*: where none does, short sequences of moves, with the time that every overloaded line has until it is tripped;
- *revert*: in a calm grid, back towards the reference topology where that adds no risk; reconnection by the rules.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ace_ray.agents.base import OwnAgent
from ace_ray.agents.expert.forecast_trust import Trust
from ace_ray.agents.expert.lookahead import Aim, Lookahead, Moves, Node
from ace_ray.config.expert import ExpertSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.forecast import foretell, simulate
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.opponent import AttackClock, Contingencies
from ace_ray.grid.physics.model import FloatArray

_LIMIT = 1.0  # rho from which a line is on its way to being tripped
_MARGIN = 0.99  # rho above which it counts as overloaded: the forecast is off by a percent
_TRIED = 4  # moves that are simulated at most before one is played
_CALM_WEIGHT = 0.01  # weight of risk while no outage may come: it only breaks ties
_RISK_WEIGHT = 0.3  # of risk against max rho, among moves that relieve an overload
_COMFORTABLE = 0.85  # max rho under which less is no better
_MOVING = 0.02  # what a move has to be worth against doing nothing, where that relieves too
_NEGLIGIBLE = 0.005  # risk after one move under which no second one is looked for
_FIRST_WEIGHT = 0.3  # of the risk after the first move against that after both
_TWO_MOVES = 1.5  # times the least gain that two moves have to save
_WORSE_FIRST = 0.02  # risk that the first of two moves may add
_RELIEVED = 0.01  # overload at which a plan is good enough
_EARLIER = 0.1  # weight of the overload on the way against that at the end of a plan


@dataclass(frozen=True)
class _Plan:
    value: float  # lower is better
    cost: float  # of the way so far
    first: int  # row of the first move
    node: Node


class Expert(OwnAgent):
    """See the module's docstring. It reads observations, forecasts and the public rules of the environment only."""

    def __init__(self, action_space: Any, engine: DecisionEngine) -> None:
        super().__init__(action_space, engine)
        self.settings: ExpertSettings = engine.settings.expert
        self._lookahead = Lookahead(engine, self.settings)
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        self._clock = AttackClock(self.engine.opponent, self.engine.game)
        self._trust = Trust()
        self._pause = 0

    def act(self, observation: GridObservation, reward: float, done: bool = False) -> Any:
        """Returns the Grid2Op action for this observation."""
        started = time.perf_counter()
        settings, lookahead = self.settings, self._lookahead
        self._expected = self._trust.see(observation)
        foretell(observation, self._expected)
        contingencies = self.engine.opponent.contingencies(observation, settings.lead)
        soon = self._clock.steps_until_attack(observation) <= settings.lead or bool(contingencies.planned)
        self._pause = max(0, self._pause - 1)
        ids: tuple[int, ...] = ()
        decided = float(observation.rho.max()) >= settings.rho_overloaded
        if decided:
            ids = self._relieve(observation, contingencies, soon)
        else:
            if soon and not self._pause and contingencies.lines.size:
                node = lookahead.load(observation, contingencies, self._expected)
                now = lookahead.measure(node, [0])
                if now is not None and now.risk[0] > settings.risk:
                    decided = True
                    ids = self._prevent(observation, node, lookahead.exactly(node, now, [0]))
                    self._pause = 0 if ids else settings.pause
            ids = ids or self._calm(observation, contingencies)
        self.last_ids = ids
        action = self.engine.action(ids, observation)
        if decided:
            self.decision_seconds.append(time.perf_counter() - started)
            self.decisions += 1
        return action

    # -- prevention ---------------------------------------------------------------------------------------------------

    def _prevent(self, observation: GridObservation, node: Node, now: Moves) -> tuple[int, ...]:
        """The first move of the one or two that lower the risk enough; () where there is none."""
        settings, lookahead = self.settings, self._lookahead
        risk = float(now.risk[0])
        moves = lookahead.expand(node, "risk", risks=lookahead.risks(now, 0))
        if moves is None:
            return ()
        rows = np.flatnonzero((moves.worst < settings.rho_room) & (moves.ids > 0))
        rows = rows[np.argsort(moves.risk[rows], kind="stable")][: settings.exact]
        if not rows.size:
            return ()
        moves = lookahead.exactly(node, moves, rows)
        least = max(settings.gain, settings.share * risk)
        ranked = []
        for row in np.argsort(moves.risk, kind="stable")[: settings.width].tolist():
            alone = then = float(moves.risk[row])
            if moves.risk.min() > _NEGLIGIBLE:
                then = min(then, self._second(node, moves, row))
            ranked.append((then + _FIRST_WEIGHT * alone, row, then, alone))
        _, row, then, alone = min(ranked)
        enough = risk - alone >= least or (risk - then >= _TWO_MOVES * least and alone <= risk + _WORSE_FIRST)
        chosen = (int(moves.ids[row]),)
        return chosen if enough and self._simulated(observation, chosen) < settings.rho_overloaded else ()

    def _second(self, node: Node, moves: Moves, row: int) -> float:
        """The least risk after one more move."""
        lookahead = self._lookahead
        there = lookahead.after(node, moves, row)
        further = lookahead.expand(there, "risk", risks=lookahead.risks(moves, row), most=self.settings.second_list)
        if further is None:
            return np.inf
        rows = np.flatnonzero(further.worst < self.settings.rho_room)
        rows = rows[np.argsort(further.risk[rows], kind="stable")][: self.settings.exact // 2]
        return float(lookahead.exactly(there, further, rows).risk.min(initial=np.inf))

    # -- overload -----------------------------------------------------------------------------------------------------

    def _relieve(self, observation: GridObservation, contingencies: Contingencies, soon: bool) -> tuple[int, ...]:
        """A move that relieves the grid and leaves little risk; where there is none, the first of a plan."""
        lookahead = self._lookahead
        aim: Aim = "both" if soon else "overload"
        weight = _RISK_WEIGHT * (1.0 if soon else _CALM_WEIGHT)
        node = lookahead.load(observation, contingencies, self._expected)
        along = self.engine.accompany(observation)
        if along:
            node = lookahead.with_lines(node, along)
        moves = lookahead.expand(node, aim, switches=not along)
        if moves is None and along:  # the line cannot go in here
            node, along = lookahead.load(observation, contingencies, self._expected), ()
            moves = lookahead.expand(node, aim)
        if moves is None:
            return along
        relieving = np.flatnonzero(moves.worst < self.settings.rho_overloaded)
        value = weight * moves.risk + np.maximum(moves.worst - _COMFORTABLE, 0.0) + _MOVING * (moves.ids > 0)
        for row in relieving[np.argsort(value[relieving], kind="stable")][:_TRIED]:
            ids = self._with(moves, int(row), along)
            if self._simulated(observation, ids) < _LIMIT:
                return ids
        return self._plan(observation, node, moves, along, weight)

    def _plan(
        self, observation: GridObservation, node: Node, moves: Moves, along: tuple[int, ...], weight: float
    ) -> tuple[int, ...]:
        """The first move of the best sequence found by a beam search; the others only serve to judge it.

        Twelve first moves with short looks behind them saved more grids than five with long ones (results/expert.md).
        """
        settings, lookahead = self.settings, self._lookahead
        value = self._overload(moves, node) + 1e-3 * moves.worst + _EARLIER * weight * moves.risk
        order = np.argsort(value, kind="stable")
        beam = [
            _Plan(float(value[row]), _EARLIER * float(value[row]), int(row), lookahead.after(node, moves, int(row)))
            for row in order[: settings.plan_first]
        ]
        for _ in range(settings.plan_depth - 1):
            longer: list[_Plan] = []
            for plan in beam:
                further = lookahead.relieving(plan.node, settings.plan_list)
                if further is None:
                    continue
                over = self._overload(further, plan.node)
                for row in np.argsort(over, kind="stable")[: settings.plan_width]:
                    now = float(over[row])
                    then = lookahead.after(plan.node, further, int(row))
                    longer.append(_Plan(plan.cost + now, plan.cost + _EARLIER * now, plan.first, then))
            if not longer:
                break
            beam = _best(longer, settings.plan_width)
            if beam[0].value < _RELIEVED:
                break
        firsts = dict.fromkeys([plan.first for plan in beam] + [int(row) for row in order[:2]])
        options = [self._with(moves, row, along) for row in firsts]
        return next((ids for ids in options if np.isfinite(self._simulated(observation, ids))), options[0])

    def _overload(self, moves: Moves, node: Node) -> FloatArray:
        """[n] overload after each move: each line's weighs more the less time it has, and a trip weighs 1 and more."""
        past = np.minimum(node.overflow, self.engine.game.tolerated)
        above = (np.maximum(moves.rho - _MARGIN, 0.0) * (1.0 + 0.5 * past)).sum(axis=1)
        tripped = self.engine.game.tripped(node.overflow, moves.rho)
        return above + (tripped * np.where(moves.rho >= self.engine.game.hard_rho, 2.0, 1.0)).sum(axis=1)

    # -- calm ---------------------------------------------------------------------------------------------------------

    def _calm(self, observation: GridObservation, contingencies: Contingencies) -> tuple[int, ...]:
        """A reconnection, or a move back to the reference that adds no risk, or nothing."""
        rules, settings, lookahead = self.engine.rules, self.settings, self._lookahead
        line = rules.reconnection(observation)
        if line is not None:
            return (line,)
        if observation.current_step % settings.revert_every or observation.rho.max() >= settings.rho_revert:
            return ()
        options = rules.reversions(observation)
        if not options.size:
            return ()
        node = lookahead.load(observation, contingencies, self._expected)
        moves = lookahead.measure(node, np.concatenate([[0], options]))
        if moves is None:
            return ()
        moves = lookahead.exactly(node, moves, np.arange(moves.ids.size))
        allowed = (moves.worst < settings.rho_revert) & (moves.risk <= moves.risk[0] + settings.revert_risk)
        rows = np.flatnonzero(allowed & (moves.ids > 0))
        if not rows.size:
            return ()
        row = rows[np.lexsort((moves.worst[rows], np.round(moves.risk[rows], 4)))][0]
        ids = (int(moves.ids[row]),)
        return ids if self._simulated(observation, ids) < settings.rho_revert else ()

    # -- parts --------------------------------------------------------------------------------------------------------

    def _with(self, moves: Moves, row: int, along: tuple[int, ...]) -> tuple[int, ...]:
        chosen = int(moves.ids[row])
        return ((chosen,) if chosen else ()) + along

    def _simulated(self, observation: GridObservation, ids: tuple[int, ...]) -> float:
        """Max rho that Grid2Op's `simulate` shows for the next step; infinite where the grid goes black."""
        after = simulate(observation, self.engine.action(ids, observation))
        return float("inf") if after.done or after.exceptions else float(after.obs.rho.max())


def _best(plans: list[_Plan], most: int) -> list[_Plan]:
    """The best plans, one for each first move and topology reached."""
    kept: dict[tuple[int, bytes], _Plan] = {}
    for plan in sorted(plans, key=lambda plan: plan.value):
        kept.setdefault((plan.first, plan.node.topo.tobytes()), plan)
    return list(kept.values())[:most]
