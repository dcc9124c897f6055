"""Every legal action of the catalogue by AC power flow in one state: what a decision's slots are measured against."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ace_ray.grid.engine import OVERLOADED, Decision, DecisionEngine
from ace_ray.grid.physics.catalogue import LINE
from ace_ray.grid.physics.kernels import ISLAND
from ace_ray.grid.physics.linear import FactorCache, Linearisation
from ace_ray.grid.physics.model import FloatArray, GridState

_CHUNK = 4096


@dataclass(frozen=True)
class Exhausted:
    """What there was to find in one state."""

    ids: NDArray[np.int64]  # [n] legal ids, one for each different effect
    objective: FloatArray  # [n] lower is better: max rho; in insecure states the slot score without its bonus, negated
    sweep_ms: float  # AC power flow of all of them, one thread, without the conversion of actions
    refused: int  # rows that the sweep refuses, done by `simulate`

    @property
    def best(self) -> float:
        """The lowest objective of all."""
        return float(self.objective.min())


def exhaust(engine: DecisionEngine, obs: Any, decision: Decision, wanted: NDArray[np.int64] | None = None) -> Exhausted:
    """Evaluate all of them, as the decision does: line switches alone, the others with what accompanies them.

    Args:
        wanted: [n] the ids to evaluate; None: all legal ones.
    """
    ids = np.flatnonzero(engine.catalogue.distinct(obs)).astype(np.int64) if wanted is None else wanted
    alone = engine.catalogue.kind[ids] == LINE
    parts = [(ids[alone], ()), (ids[~alone], decision.accompany)] if decision.accompany else [(ids, ())]
    objective: list[FloatArray] = []
    took, refused = 0.0, 0
    for chosen, accompany in parts:
        lin = _load(engine, obs, accompany)
        swept = engine.check.sweepable(chosen)
        values = np.empty(chosen.size)
        if decision.kind == OVERLOADED:
            values[swept], spent = _max_rho(engine, chosen[swept])
            values[~swept] = [_simulated(engine, obs, (int(i), *accompany)) for i in chosen[~swept]]
            took, refused = took + spent, refused + int((~swept).sum())
        else:
            values[:] = _guarded(engine, chosen, lin, obs, [int(engine.catalogue.line[i]) for i in accompany])
        objective.append(values)
    return Exhausted(np.concatenate([part for part, _ in parts]), np.concatenate(objective), took, refused)


def slot_objective(engine: DecisionEngine, decision: Decision) -> FloatArray:
    """[n] the objective of the playable slots."""
    mask = decision.mask
    if decision.kind == OVERLOADED:
        return decision.rho_after[mask].max(axis=1).astype(np.float64)
    bonus = engine.settings.critical.insecure_gain * (decision.ids[mask] == 0)
    return np.asarray(bonus - decision.score[mask], np.float64)


def _load(engine: DecisionEngine, obs: Any, accompany: tuple[int, ...]) -> Linearisation:
    state = GridState.from_observation(engine.model, obs)
    engine.check.load(obs)
    if accompany and engine.check.play(accompany):
        state = engine.check.state(state)
    return FactorCache(engine.model).linearise(state)


def _max_rho(engine: DecisionEngine, ids: NDArray[np.int64]) -> tuple[FloatArray, float]:
    """Max rho [n] by the sweep, and its time in ms once the actions are converted."""
    found, took = [np.zeros(0)], 0.0
    for start in range(0, ids.size, _CHUNK):
        chunk = ids[start : start + _CHUNK]
        for _ in range(2):  # the second time as the sweep itself does it, most of them from the cache
            begun = time.perf_counter()
            for i in chunk:
                engine.check.row(int(i))
            converted = time.perf_counter()
        found.append(engine.check.sweep(chunk).max_rho())
        took += time.perf_counter() - converted - (converted - begun)
    return np.concatenate(found), 1e3 * took


def _guarded(
    engine: DecisionEngine, ids: NDArray[np.int64], lin: Linearisation, obs: Any, reconnected: list[int]
) -> FloatArray:
    """Worst rho now and after each credible outage [n], as scored."""
    found = [np.zeros(0)]
    for start in range(0, ids.size, _CHUNK):
        chunk = ids[start : start + _CHUNK]
        evaluation = engine.evaluate(chunk, lin, obs, False, reconnected)
        bonus = engine.settings.critical.insecure_gain * (chunk == 0)
        found.append(np.where(evaluation.usable, bonus - evaluation.score, ISLAND))
    return np.concatenate(found)


def _simulated(engine: DecisionEngine, obs: Any, ids: tuple[int, ...]) -> float:
    """Max rho by `simulate`, infinite at a blackout."""
    after, _, done, _ = obs.simulate(engine.action(ids, obs), time_step=0)
    return np.inf if done else float(after.rho.max())
