"""`ace bench screen`: how fast and how good the candidates are, side by side with exhaustive search.

States are critical ones of greedy training episodes, at most one per 25 steps and a few of each episode, with what the
opponent and the maintenance leave of the grid. On some of them every legal action of the catalogue gets an AC power
flow, which says whether the slots hold the best of them. Linear security is held against AC outages on every state.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import INSECURE, OVERLOADED, Decision, DecisionEngine
from ace_ray.grid.physics.kernels import ISLAND
from ace_ray.grid.physics.linear import FactorCache
from ace_ray.grid.physics.model import FloatArray, GridState
from ace_ray.grid.physics.newton import tangent
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import episode_length, reset_to
from ace_ray.grid.scenarios.scenario_sets import training_scenarios
from ace_ray.lab.bench.exhaustive import exhaust, slot_objective

_SPACING = 25  # environment steps between two states
_LATEST = 300  # environment steps before the first state of an episode, drawn up to this
_EPISODES = 20  # episodes that the states come from, at least
_MATCH = 1e-4  # max rho within which a slot matches the best action
_SIMULATED = 16  # actions of a state that `simulate` is timed on


@dataclass(frozen=True)
class _Case:
    obs: Any
    later: Any  # observation one step later, had nothing been done; None at an end
    attacked: bool  # the opponent holds a line out
    episode: int


@dataclass
class _Measured:
    """One list entry a state (or more, where the name says so)."""

    screen: list[float] = field(default_factory=list)  # ms
    candidates: list[float] = field(default_factory=list)  # ms
    security: list[float] = field(default_factory=list)  # ms
    security_slots: list[float] = field(default_factory=list)  # ms
    simulate: list[float] = field(default_factory=list)  # ms an action
    errors: list[float] = field(default_factory=list)  # of the screen, one a slot
    ranks: list[int] = field(default_factory=list)  # at t + 1
    linear: list[float] = field(default_factory=list)  # worst rho after any outage, linear, one a slot
    exact: list[float] = field(default_factory=list)  # the same by AC


def bench_screen(
    settings: GridSettings, states: int, exhaustive: int = 5, seed: int = 0, progress: bool = False
) -> dict[str, Any]:
    """Measure on one core, everything in one run.

    Args:
        settings: Grid and predicate; the proposal memory is empty.
        states: Critical states.
        exhaustive: Of either kind, states on which the whole catalogue gets an AC power flow (seconds each).
        seed: Of the training scenarios.
        progress: Show a bar.

    Returns:
        JSON-able, see docs/json.md; null where nothing was measured. Times are wall time in ms.
    """
    env = make_env(settings)
    engine = DecisionEngine(env, settings)
    engine.set_memory(())
    cases = _gather(env, engine, settings, states, seed, progress)
    decisions: list[Decision] = []
    measured = _Measured()
    for kind in (OVERLOADED, INSECURE):  # compiles
        for obs in [case.obs for case in cases if engine.decide(case.obs).kind == kind][:1]:
            _rank(engine, obs, kind)
    for case in tqdm(cases, desc="decisions", unit="state", disable=not progress):
        took, decision = _ms(partial(engine.decide, case.obs))
        decisions.append(decision)
        measured.candidates.append(took)
        measured.screen.append(_ms(partial(_rank, engine, case.obs, decision.kind))[0])
        measured.security.append(_ms(partial(engine.secure, case.obs))[0])
        measured.simulate.append(_simulate_ms(engine, case.obs, decision))
        if not decision.accompany:  # else the slots are of the state once the line is in
            measured.errors.extend(_errors(engine, case.obs, decision))
            measured.ranks.extend(_rank_later(engine, case, decision))
            measured.security_slots.append(_security_ms(engine, case.obs, decision))
            linear, exact = _outages(engine, case.obs, decision)
            measured.linear.extend(linear.max(axis=1, initial=0.0).tolist())
            measured.exact.extend(exact.max(axis=1, initial=0.0).tolist())
    searched = {
        kind: _searched(engine, cases, decisions, kind, exhaustive, progress) for kind in (OVERLOADED, INSECURE)
    }
    sweep = [one["sweep_ms"] for one in searched[OVERLOADED]]
    per_action, together = float(np.median(measured.simulate)), float(np.median(measured.candidates))
    return {
        "env": settings.env,
        "actions": int(engine.catalogue.size),
        "states": len(cases),
        "episodes": len({case.episode for case in cases}),
        "shares": _shares(cases, decisions),
        "screen_ms": _spread(measured.screen),
        "candidates_ms": _spread(measured.candidates),
        "by_kind": _by_kind(measured, decisions),
        "security_ms": _spread(measured.security),
        "security_slots_ms": _spread(measured.security_slots),
        "security_error": _security_error(engine, measured),
        "sweep_ms": float(np.median(sweep)) if sweep else None,
        "simulate_ms_per_action": per_action,
        "speedup_sweep": float(np.median(sweep)) / together if sweep else None,
        "speedup_simulate": per_action * engine.catalogue.size / together,
        "recall": _recall(searched[OVERLOADED], engine.spec.slots),
        "loss_when_missed": _loss(searched[OVERLOADED]),
        "recall_insecure": _recall(searched[INSECURE], engine.spec.slots) | {"loss": _loss(searched[INSECURE])},
        "rank_at_t1": {"median": float(np.median(measured.ranks)) if measured.ranks else None},
        "ac_error": _median_p99(measured.errors),
    }


def _gather(
    env: Any, engine: DecisionEngine, settings: GridSettings, states: int, seed: int, progress: bool
) -> list[_Case]:
    """Critical states of greedy episodes."""
    cases: list[_Case] = []
    per_episode, rng = -(-states // _EPISODES), np.random.default_rng(seed)
    bar = tqdm(total=states, desc="states", unit="state", disable=not progress)
    for episode, scenario in enumerate(training_scenarios(settings, seed)):
        obs, done, step, found, attacked = reset_to(env, scenario), False, 0, 0, False
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
                    cases.append(_Case(obs.copy(), None if over else later.copy(), attacked, episode))
                    ahead.close()
                    bar.update()
                    if len(cases) == states:
                        bar.close()
                        return cases
            obs, _, done, info = env.step(engine.action(ids, obs))
            lines = info.get("opponent_attack_line")
            attacked = lines is not None and bool(np.any(lines))
            step += 1
    raise AssertionError("training scenarios have no end")


def _rank(engine: DecisionEngine, obs: Any, kind: str) -> NDArray[np.int64]:
    """The shortlist's legal ids, best first: the ranking alone, nothing known of the topology from before."""
    lin = FactorCache(engine.model).linearise(GridState.from_observation(engine.model, obs))
    overloaded = kind == OVERLOADED
    tan = tangent(engine.model, lin.factors, engine.check.point()) if overloaded and engine.check.load(obs) else None
    most = engine.settings.candidates.shortlist
    return engine.candidates.ranked(lin, tan, obs, (), overloaded, most)[0].astype(np.int64)


def _errors(engine: DecisionEngine, obs: Any, decision: Decision) -> list[float]:
    """|screen - AC| of the max rho of the playable slots; overloaded: those that move a substation."""
    lin = FactorCache(engine.model).linearise(GridState.from_observation(engine.model, obs))
    ids, exact = decision.ids[decision.mask], decision.rho_after[decision.mask].max(axis=1)
    if decision.kind == OVERLOADED and engine.check.load(obs):
        every = np.zeros(engine.catalogue.size, np.float32)
        tan = tangent(engine.model, lin.factors, engine.check.point())
        engine.screen.rank_now(tan, lin.state.rho, 1, every=every)
        predicted = np.sqrt(every[ids].astype(np.float64))
    else:
        predicted = engine.screen.rho(lin, engine.screen.rows(lin, ids, engine.security.lines)).max(axis=1)
    ranked = (predicted > 0.0) & (predicted < ISLAND)
    return np.abs(predicted - exact)[ranked].tolist()


def _rank_later(engine: DecisionEngine, case: _Case, decision: Decision) -> list[int]:
    """How many slots beat the greedy one when played with the injections of the next step (overloaded states)."""
    if case.later is None or decision.kind != OVERLOADED or not engine.check.load(case.later):
        return []
    later = engine.check.sweep(decision.ids[decision.mask]).max_rho()
    greedy = int(np.flatnonzero(decision.mask).tolist().index(int(decision.score.argmax())))
    return [1 + int((later < later[greedy] - _MATCH).sum())]


def _security_ms(engine: DecisionEngine, obs: Any, decision: Decision) -> float:
    """Worst rho after every credible outage for all slots, from the observation; their flows are known from before."""
    ids = decision.ids[decision.mask]
    engine.check.load(obs)
    flows = engine.check.sweep(ids)

    def work() -> FloatArray:
        lin = FactorCache(engine.model).linearise(GridState.from_observation(engine.model, obs))
        rows = engine.screen.rows(lin, ids, engine.security.lines)
        return engine.security.worst_after(lin, rows, flows.p_or, flows.q_or, exact=True)

    return _ms(work)[0]


def _outages(engine: DecisionEngine, obs: Any, decision: Decision) -> tuple[FloatArray, FloatArray]:
    """Worst rho of the playable slots after each outage that counts in the state, linear and by AC."""
    lin = FactorCache(engine.model).linearise(GridState.from_observation(engine.model, obs))
    counted = engine.security.counted(lin)
    exact = engine.exact_outage(obs, decision.ids[decision.mask].tolist())
    return decision.rho_outage[decision.mask][:, counted].astype(np.float64), exact[:, counted]


def _security_error(engine: DecisionEngine, measured: _Measured) -> dict[str, float | None]:
    """Linear against AC: the worst rho after any credible outage, over the slots of all states.

    An outage without a solution counts as rho 5 on both sides, where the error is left out.
    """
    linear, exact, limit = np.array(measured.linear), np.array(measured.exact), engine.settings.critical.rho_insecure
    if not linear.size:
        return {"median": None, "p99": None, "wrongly_secure": None, "wrongly_insecure": None}
    solved = (linear < ISLAND) & (exact < ISLAND)
    return {
        **_median_p99(np.abs(linear - exact)[solved].tolist()),
        "wrongly_secure": float(np.mean((linear < limit) & (exact >= limit))),
        "wrongly_insecure": float(np.mean((linear >= limit) & (exact < limit))),
    }


def _simulate_ms(engine: DecisionEngine, obs: Any, decision: Decision) -> float:
    ids = decision.ids[decision.mask][:_SIMULATED]
    actions = [engine.action((int(i),), obs) for i in ids]
    return _ms(lambda: [obs.simulate(action, time_step=0) for action in actions])[0] / len(actions)


def _searched(
    engine: DecisionEngine, cases: list[_Case], decisions: list[Decision], kind: str, most: int, progress: bool
) -> list[dict[str, float]]:
    """Exhaustive search in the first states of a kind: its time, what the slots lose, the best one's place."""
    pairs = [(c.obs, d) for c, d in zip(cases, decisions, strict=True) if d.kind == kind][:most]
    found = []
    for obs, decision in tqdm(pairs, desc=f"every action, {kind}", unit="state", disable=not progress or not pairs):
        everything = exhaust(engine, obs, decision)
        slots = slot_objective(engine, decision)
        first = exhaust(engine, obs, decision, _rank(engine, obs, kind)[:8])
        found.append(
            {
                "sweep_ms": everything.sweep_ms,
                "refused": float(everything.refused),
                "loss": float(slots.min() - everything.best),
                "first": min(first.best, float(slots[0])) - everything.best,
            }
        )
    return found


def _recall(searched: list[dict[str, float]], slots: int) -> dict[str, Any]:
    """Share of the states whose best action is matched by one of the screen's first 8 (or do-nothing), by a slot."""
    if not searched:
        return {"states": 0, "8": None, str(slots): None}
    return {
        "states": len(searched),
        "8": float(np.mean([one["first"] <= _MATCH for one in searched])),
        str(slots): float(np.mean([one["loss"] <= _MATCH for one in searched])),
    }


def _loss(searched: list[dict[str, float]]) -> dict[str, float]:
    """What the best slot is worse than the best action where it does not match it."""
    return {"max": max((one["loss"] for one in searched if one["loss"] > _MATCH), default=0.0)}


def _by_kind(measured: _Measured, decisions: list[Decision]) -> dict[str, Any]:
    """Times of the two kinds apart: they are screened in different ways."""
    kinds = np.array([decision.kind for decision in decisions])
    return {
        kind: {
            "screen_ms": _spread(np.array(measured.screen)[kinds == kind].tolist()),
            "candidates_ms": _spread(np.array(measured.candidates)[kinds == kind].tolist()),
        }
        for kind in (OVERLOADED, INSECURE)
    }


def _shares(cases: list[_Case], decisions: list[Decision]) -> dict[str, float]:
    """Share of the states that are overloaded, attacked, have a line out, one in maintenance, a split substation."""
    seen = [case.obs for case in cases]
    return {
        "overloaded": float(np.mean([d.kind == OVERLOADED for d in decisions])),
        "attacked": float(np.mean([case.attacked for case in cases])),
        "line out": float(np.mean([not obs.line_status.all() for obs in seen])),
        "split": float(np.mean([(obs.topo_vect == 2).any() for obs in seen])),
        "maintenance": float(np.mean([(obs.time_next_maintenance == 0).any() for obs in seen])),
    }


def _ms(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time in ms, and what came out."""
    begun = time.perf_counter()
    result = work()
    return 1e3 * (time.perf_counter() - begun), result


def _spread(milliseconds: list[float]) -> dict[str, float | None]:
    if not milliseconds:
        return {"median": None, "p95": None}
    return {"median": float(np.median(milliseconds)), "p95": float(np.percentile(milliseconds, 95))}


def _median_p99(values: list[float]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "p99": None}
    return {"median": float(np.median(values)), "p99": float(np.percentile(values, 99))}


def screen_lines(result: dict[str, Any]) -> list[str]:
    """The result of `bench_screen` as lines to print."""
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result["shares"].items())

    def times(key: str) -> str:
        return _span(result[key])

    error, security = result["ac_error"], result["security_error"]
    lines = [
        f"{result['env']}: {result['actions']:,} actions, {result['states']} states of {result['episodes']} episodes: "
        f"{shares}",
        f"rank every action                          {times('screen_ms')}",
        f"decide: screen, AC check, security, slots  {times('candidates_ms')}",
        f"worst rho over the credible outages        {times('security_ms')}",
        f"the same of all slots                      {times('security_slots_ms')}",
        f"one action by simulate                     {result['simulate_ms_per_action']:8.2f} ms",
        f"screen - AC, max rho of slots              {_error(error)}",
        f"linear - AC, worst rho after an outage     {_error(security)}",
    ]
    if security["wrongly_secure"] is not None:
        lines.append(
            f"slots called secure that are not           {100 * security['wrongly_secure']:8.2f} %   "
            f"(insecure that are not: {100 * security['wrongly_insecure']:.2f} %)"
        )
    for kind, times_of in result["by_kind"].items():
        if times_of["screen_ms"]["median"] is not None:
            lines.append(
                f"{kind:<12} states: rank / decide      {_span(times_of['screen_ms'])} / "
                f"{_span(times_of['candidates_ms']).strip()}"
            )
    if result["sweep_ms"] is not None:
        lines.append(
            f"every action by AC sweep, one thread       {result['sweep_ms']:8.0f} ms  "
            f"({result['speedup_sweep']:.0f} times a decision)"
        )
    searched = (
        ("overloaded", result["recall"], result["loss_when_missed"]),
        ("insecure", result["recall_insecure"], result["recall_insecure"]["loss"]),
    )
    for kind, recall, loss in searched:
        if recall["states"]:
            slots = next(key for key in recall if key not in ("8", "states", "loss"))
            lines.append(
                f"{kind}: best action in the screen's first 8 / a slot {100 * recall['8']:.0f} % / "
                f"{100 * recall[slots]:.0f} % of {recall['states']} states; a miss costs at most {loss['max']:.4f}"
            )
    return lines


def _span(spread: dict[str, float | None]) -> str:
    return "not measured" if spread["median"] is None else f"{spread['median']:8.2f} ms  (95 %: {spread['p95']:.2f})"


def _error(found: dict[str, float | None]) -> str:
    return "not measured" if found["median"] is None else f"{found['median']:8.4f}     (99 %: {found['p99']:.4f})"
