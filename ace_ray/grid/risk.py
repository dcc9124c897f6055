"""How close an action leaves the grid to a blackout: one number from the next step and the next contingency.

Of the figures of one step that were tried it says most about the hundred steps after it, which is not much: over the
compared sets of 319 pivotal decisions of training and validation scenarios the action of least risk survived 32.5 %
less of the horizon than the best one, any action 36.8 %, the one of highest slot score 35.1 %
(results/language-model.md). It costs an AC power flow for each action and outage: too much for every decision, little
beside a question to a language model.
"""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ace_ray.config.expert import ExpertSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.forecast import foretold
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.opponent import Contingencies
from ace_ray.grid.physics.catalogue import LINE
from ace_ray.grid.physics.model import FloatArray, IntArray

# What the expert counts by default: prompts, and the labels made from them, rest on these and not on a run's settings.
_DEFAULT = ExpertSettings()
SOFT_RHO = _DEFAULT.soft_rho  # rho above which a line counts as overloaded after a contingency
HALF_STRESS = _DEFAULT.half_stress  # overload sum after a contingency that counts as half a blackout
NO_SOLUTION = _DEFAULT.island_cost  # what a contingency without a power flow solution counts; a blackout is 1
LEAD = _DEFAULT.lead  # environment steps before its beginning from which maintenance counts as a contingency
OVERLOAD = 5.0  # weight of the next step's max rho above `critical.rho_overloaded`
MOST = 2.0  # risk of an action without a power flow solution, and the most that any other has


class Risk:
    """Measures actions of one observation; it uses the engine's AC check, and threads may share it.

    Args:
        engine: decision engine of the grid; nobody else may use it meanwhile.
    """

    def __init__(self, engine: DecisionEngine) -> None:
        self._engine = engine
        self._turn = threading.Lock()

    def of(self, obs: GridObservation, ids: Sequence[int] | NDArray, accompany: Sequence[int] = ()) -> FloatArray:
        """[n] risk of each action, 0 to MOST; NaN where the present state has no power flow solution.

        `risk + OVERLOAD * max(0, max rho - rho_overloaded)`: the max rho that is forecast for the next step, and the
        chance-weighted share of outages that are one too many, s / (s + HALF_STRESS) each, s being the sum of rho
        above SOFT_RHO after it.

        Args:
            obs: Grid2Op observation.
            ids: catalogue ids, legal there.
            accompany: reconnections that go along with all but line switches.
        """
        ids = np.asarray(ids, np.int64)
        alone = (self._engine.catalogue.kind[ids] == LINE) & bool(accompany)
        risk = np.full(ids.size, np.nan)
        with self._turn:
            for group, along in ((alone, ()), (~alone, tuple(accompany))):
                if group.any():
                    risk[group] = self._measured(obs, ids[group], along)
        return risk

    def _measured(self, obs: GridObservation, ids: IntArray, along: Sequence[int]) -> FloatArray:
        engine = self._engine
        check, model = engine.check, engine.model
        check.load(obs)
        check.expect(foretold(obs))
        topo = check.topo
        for action_id in along:
            topo = check.topology_after(topo, action_id)
        if not check.bring(topo, tuple(int(engine.catalogue.line[i]) for i in along)):
            return np.full(ids.size, np.nan)
        contingencies = self._contingencies(obs)
        there = np.flatnonzero((topo[model.line_or_pos[contingencies.lines]] > 0) & (contingencies.weights > 0))
        lost = contingencies.lines[there]
        after = check.sweep(ids)
        outages = check.contingencies(ids, lost)
        stress = np.maximum(outages.rho - SOFT_RHO, 0.0).sum(axis=1)
        fatal = np.where(outages.converged, stress / (stress + HALF_STRESS), NO_SOLUTION)
        risk = fatal.reshape(ids.size, lost.size) @ contingencies.weights[there]
        over = np.maximum(after.rho.max(axis=1) - engine.settings.critical.rho_overloaded, 0.0)
        return np.where(after.converged, np.minimum(risk + OVERLOAD * over, MOST), MOST)

    def _contingencies(self, obs: GridObservation) -> Contingencies:
        """The opponent's lines and maintenance; where there is no opponent, any credible outage alike."""
        engine = self._engine
        contingencies = engine.opponent.contingencies(obs, LEAD)
        if engine.opponent.lines.size or not engine.security.lines.size:
            return contingencies
        lines = np.union1d(engine.security.lines, contingencies.lines).astype(np.int64)
        weights = np.full(lines.size, 1.0 / lines.size)
        weights[np.isin(lines, contingencies.lines)] = 1.0
        return Contingencies(lines, weights, contingencies.planned)
