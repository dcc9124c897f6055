"""`ace bench screen`: how fast and how good the candidates are, side by side with exhaustive search.

States are critical ones of greedy training episodes, at most one per 25 steps and a few of each episode, with what the
opponent and the maintenance leave of the grid. On some of the overloaded ones every legal action of the catalogue gets
an AC power flow, which says whether the slots hold the best of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import OVERLOADED, Decision, DecisionEngine
from ace_ray.grid.environment import make_env
from ace_ray.grid.linear import FactorCache
from ace_ray.grid.model import GridState
from ace_ray.grid.scenario import episode_length, reset_to
from ace_ray.grid.scenario_sets import training_scenarios

_SPACING = 25  # environment steps between two states
_LATEST = 300  # environment steps before the first state of an episode, drawn up to this
_EPISODES = 20  # episodes that the states come from, at least
_MATCH = 1e-4  # max rho within which a slot matches the best action
_SIMULATED = 16  # actions of a state that `simulate` is timed on
_CHUNK = 8192


@dataclass(frozen=True)
class _Case:
    obs: Any
    later: Any  # observation one step later, had nothing been done; None at an end


def bench_screen(settings: GridSettings, states: int, exhaustive: int = 5, seed: int = 0) -> dict[str, Any]:
    """Measure on one core, everything in one run.

    Args:
        settings: Grid and predicate; the proposal memory is empty.
        states: Critical states.
        exhaustive: Overloaded states among them on which the whole catalogue gets an AC power flow (seconds each).
        seed: Of the training scenarios.

    Returns:
        JSON-able: `env actions states shares screen_ms candidates_ms security_ms sweep_ms simulate_ms_per_action
        speedup_sweep speedup_simulate recall loss_when_missed rank_at_t1 ac_error`; null where nothing was measured.
        Times are wall time in ms; `ac_error` is |linear - AC| of the max rho of slots.
    """
    env = make_env(settings)
    engine = DecisionEngine(env, settings)
    engine.set_memory(())
    cases = _gather(env, engine, settings, states, seed)
    engine.decide(cases[0].obs)  # compiles
    screen: list[float] = []
    candidates: list[float] = []
    security: list[float] = []
    simulate: list[float] = []
    errors: list[float] = []
    ranks: list[int] = []
    decisions: list[Decision] = []
    for case in cases:
        screen.append(_ms(partial(_rank, engine, case.obs))[0])
        security.append(_ms(partial(engine.secure, case.obs))[0])
        took, decision = _ms(partial(engine.decide, case.obs))
        candidates.append(took)
        decisions.append(decision)
        errors.extend(_errors(engine, case.obs, decision))
        ranks.extend(_rank_later(engine, case, decision))
        simulate.append(_simulate_ms(engine, case.obs, decision))
    searched = [_exhaust(engine, c.obs, d) for c, d in _overloaded(cases, decisions)[:exhaustive]]
    sweep = [one["sweep_ms"] for one in searched]
    losses = np.array([one["loss"] for one in searched])
    missed = losses[losses > _MATCH]
    per_action = float(np.median(simulate))
    together = float(np.median(candidates))
    return {
        "env": settings.env,
        "actions": int(engine.catalogue.size),
        "states": len(cases),
        "shares": _shares(cases, decisions),
        "screen_ms": _spread(screen),
        "candidates_ms": _spread(candidates),
        "security_ms": _spread(security),
        "sweep_ms": float(np.median(sweep)) if sweep else None,
        "simulate_ms_per_action": per_action,
        "speedup_sweep": float(np.median(sweep)) / together if sweep else None,
        "speedup_simulate": per_action * engine.catalogue.size / together,
        "recall": {
            "states": len(searched),
            "8": float(np.mean([one["rank"] < 8 for one in searched])) if searched else None,
            str(engine.spec.slots): float(np.mean(losses <= _MATCH)) if searched else None,
        },
        "loss_when_missed": {"max": float(missed.max()) if missed.size else 0.0},
        "rank_at_t1": {"median": float(np.median(ranks)) if ranks else None},
        "ac_error": {"median": float(np.median(errors)), "p99": float(np.percentile(errors, 99))},
    }


def _gather(env: Any, engine: DecisionEngine, settings: GridSettings, states: int, seed: int) -> list[_Case]:
    """Critical states of greedy episodes."""
    cases: list[_Case] = []
    per_episode, rng = -(-states // _EPISODES), np.random.default_rng(seed)
    for scenario in training_scenarios(settings, seed):
        obs, done, step, found = reset_to(env, scenario), False, 0, 0
        last = int(rng.integers(0, _LATEST))  # not the first critical state of every episode
        length = episode_length(env, scenario)
        while not done and step < length and found < per_episode:
            ids = engine.rules.calm_action(obs)
            if engine.critical(obs) is not None:
                decision = engine.decide(obs)
                ids = engine.ids_for(decision, int(decision.score.argmax()))
                if step - last >= _SPACING:
                    last, found = step, found + 1
                    ahead = env.copy()
                    later, _, over, _ = ahead.step(ahead.action_space())
                    cases.append(_Case(obs.copy(), None if over else later.copy()))
                    ahead.close()
                    if len(cases) == states:
                        return cases
            obs, _, done, _ = env.step(engine.action(ids, obs))
            step += 1
    raise AssertionError("training scenarios have no end")


def _rank(engine: DecisionEngine, obs: Any) -> None:
    """The ranking alone, with nothing known of the topology from before."""
    lin = FactorCache(engine.model).linearise(GridState.from_observation(engine.model, obs))
    engine.screen.rank(lin, engine.spec.slots)


def _errors(engine: DecisionEngine, obs: Any, decision: Decision) -> list[float]:
    """|linear - AC| of the max rho of the playable slots."""
    if decision.accompany:
        return []
    lin = FactorCache(engine.model).linearise(GridState.from_observation(engine.model, obs))
    ids = decision.ids[decision.mask]
    linear = engine.screen.rho(lin, engine.screen.rows(lin, ids, engine.security.lines)).max(axis=1)
    return np.abs(linear - decision.rho_after[decision.mask].max(axis=1)).tolist()


def _rank_later(engine: DecisionEngine, case: _Case, decision: Decision) -> list[int]:
    """How many slots beat the greedy one when played with the injections of the next step (overloaded states)."""
    if case.later is None or decision.kind != OVERLOADED or decision.accompany:
        return []
    if not engine.check.load(case.later):
        return []
    later = engine.check.sweep(decision.ids[decision.mask]).max_rho()
    greedy = int(np.flatnonzero(decision.mask).tolist().index(int(decision.score.argmax())))
    return [1 + int((later < later[greedy] - _MATCH).sum())]


def _simulate_ms(engine: DecisionEngine, obs: Any, decision: Decision) -> float:
    ids = decision.ids[decision.mask][:_SIMULATED]
    actions = [engine.action((int(i),), obs) for i in ids]
    return _ms(lambda: [obs.simulate(action, time_step=0) for action in actions])[0] / len(actions)


def _exhaust(engine: DecisionEngine, obs: Any, decision: Decision) -> dict[str, float]:
    """AC power flow of every distinct legal action: its time, what the best slot loses, the best one's screen rank."""
    state = GridState.from_observation(engine.model, obs)
    engine.check.load(obs)
    if decision.accompany:
        engine.check.play(decision.accompany)
        state = engine.check.state(state)
    ids = np.flatnonzero(engine.catalogue.distinct(obs))
    chunks = [ids[start : start + _CHUNK] for start in range(0, ids.size, _CHUNK)]
    convert, _ = _ms(lambda: [engine.check.row(int(i)) for i in ids])
    took, found = _ms(lambda: [engine.check.sweep(chunk).max_rho() for chunk in chunks])
    rho = np.concatenate(found)
    best = ids[rho <= rho.min() + _MATCH]
    ranked, _ = engine.screen.rank(FactorCache(engine.model).linearise(state), 4 * engine.spec.slots)
    places = np.flatnonzero(np.isin(ranked, best))
    return {
        "sweep_ms": took - convert,
        "loss": float(decision.rho_after[decision.mask].max(axis=1).min() - rho.min()),
        "rank": float(places[0]) if places.size else np.inf,
    }


def _overloaded(cases: list[_Case], decisions: list[Decision]) -> list[tuple[_Case, Decision]]:
    return [(c, d) for c, d in zip(cases, decisions, strict=True) if d.kind == OVERLOADED]


def _shares(cases: list[_Case], decisions: list[Decision]) -> dict[str, float]:
    """Share of the states that are overloaded, have a line out, one in or near maintenance, a split substation."""
    seen = [case.obs for case in cases]
    return {
        "overloaded": float(np.mean([d.kind == OVERLOADED for d in decisions])),
        "line out": float(np.mean([not obs.line_status.all() for obs in seen])),
        "split": float(np.mean([(obs.topo_vect == 2).any() for obs in seen])),
        "maintenance": float(np.mean([(obs.time_next_maintenance == 0).any() for obs in seen])),
    }


def _ms(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time in ms, and what came out."""
    begun = time.perf_counter()
    result = work()
    return 1e3 * (time.perf_counter() - begun), result


def _spread(milliseconds: list[float]) -> dict[str, float]:
    return {"median": float(np.median(milliseconds)), "p95": float(np.percentile(milliseconds, 95))}


def screen_lines(result: dict[str, Any]) -> list[str]:
    """The result of `bench_screen` as lines to print."""
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result["shares"].items())

    def times(key: str) -> str:
        return f"{result[key]['median']:8.2f} ms  (95 %: {result[key]['p95']:.2f})"

    slots = next(key for key in result["recall"] if key not in ("8", "states"))
    lines = [
        f"{result['env']}: {result['actions']:,} actions, {result['states']} states: {shares}",
        f"rank every topology action (linear)        {times('screen_ms')}",
        f"decide: screen, AC check, security, slots  {times('candidates_ms')}",
        f"worst rho over the credible outages        {times('security_ms')}",
        f"one action by simulate                     {result['simulate_ms_per_action']:8.2f} ms",
        f"linear - AC, max rho of slots              {result['ac_error']['median']:8.4f}     "
        f"(99 %: {result['ac_error']['p99']:.4f})",
    ]
    if result["sweep_ms"] is not None:
        recall = result["recall"]
        lines += [
            f"every action by AC sweep, one thread       {result['sweep_ms']:8.0f} ms  "
            f"({result['speedup_sweep']:.0f} times a decision)",
            f"best action in the screen's first 8 / a slot {100 * recall['8']:.0f} % / {100 * recall[slots]:.0f} % of "
            f"{recall['states']} states; a miss costs at most {result['loss_when_missed']['max']:.4f}",
        ]
    return lines
