"""From an observation and a decision to a `CaseView`: what is loaded, what is insecure, what each candidate would do.

Everything is a function of the observation, the decision and the catalogue; nothing is computed here but by `dangers`,
which is asked once a case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ace_ray.config.grid import GridSettings
from ace_ray.domain import Outcome
from ace_ray.grid.engine import Decision
from ace_ray.grid.grid2op_internals import attack_duration
from ace_ray.grid.loading import COLLAPSE, percent, worst
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.catalogue import Catalogue
from ace_ray.language.view import (
    BadView,
    CandidateView,
    CaseView,
    DeadLineView,
    FlowView,
    GridFacts,
    LineView,
    MaintenanceView,
    OutageView,
    SubstationView,
    date_text,
)

_COLUMNS = ((1, "load"), (2, "generator"), (3, "line"), (4, "line"), (5, "storage"))  # of grid_objects_types
_MAINTENANCE_STEPS = 48  # maintenance further away than four hours does not bear on the next 100 steps' start


def facts_of(env: Any, outages: Iterable[int], settings: GridSettings) -> GridFacts:
    """The facts of a Grid2Op environment; `outages` are the line ids of the credible outages, in the engine's order."""
    parameters = env.parameters
    lines = tuple(int(line) for line in outages)
    opponent = 0 < len(lines) < int(env.n_line)
    return GridFacts(
        substations=int(env.n_sub),
        lines=int(env.n_line),
        generators=int(env.n_gen),
        loads=int(env.n_load),
        outages=lines,
        overload_steps=int(parameters.NB_TIMESTEP_OVERFLOW_ALLOWED),
        trip_percent=round(100 * float(parameters.HARD_OVERFLOW_THRESHOLD)),
        cooldown=int(parameters.NB_TIMESTEP_COOLDOWN_SUB),
        step_minutes=round(float(env.delta_time_seconds) / 60),
        horizon=settings.compare.horizon,
        opponent=opponent,
        attack_steps=attack_duration(env) if opponent else 0,
        offset=settings.reward.offset,
    )


def element_names(obs: GridObservation, substation: int) -> tuple[list[int], list[str]]:
    """Positions in the topology vector of the elements of a substation, and their names ('line 5', 'load 3', ...)."""
    rows = obs.grid_objects_types
    positions = np.flatnonzero(rows[:, 0] == substation)
    names = [next(f"{name} {rows[p, col]}" for col, name in _COLUMNS if rows[p, col] >= 0) for p in positions]
    return positions.tolist(), names


def action_text(catalogue: Catalogue, action_id: int, obs: GridObservation) -> str:
    """What a catalogue action changes, relative to the present topology."""
    kind = int(catalogue.kind[action_id])
    if kind == 0:
        return "do nothing"
    row = np.asarray(catalogue.bus_rows([action_id])[0])
    if kind == 1:
        line = int(catalogue.line[action_id])
        ends = f"line {line} ({obs.line_or_to_subid[line]}-{obs.line_ex_to_subid[line]})"
        buses = [int(row[obs.line_or_pos_topo_vect[line]]), int(row[obs.line_ex_pos_topo_vect[line]])]
        return f"reconnect {ends} at buses {buses[0]}-{buses[1]}" if min(buses) > 0 else f"disconnect {ends}"
    substation = int(catalogue.substation[action_id])
    positions, names = element_names(obs, substation)
    present = np.asarray(obs.topo_vect)
    moves = {
        bus: [n for p, n in zip(positions, names, strict=True) if row[p] == bus and 0 < present[p] != bus]
        for bus in (1, 2)
    }
    parts = [f"{grouped(moved)} to bus {bus}" for bus, moved in moves.items() if moved]
    return f"substation {substation}: " + ("; ".join(parts) or "no change")


def grouped(names: Iterable[str]) -> str:
    """'line 3', 'line 7', 'load 2' -> 'lines 3, 7, load 2'."""
    by_kind: dict[str, list[str]] = {}
    for name in names:
        kind, number = name.split(" ")
        by_kind.setdefault(kind, []).append(number)
    return ", ".join(
        f"{kind}{'s' if len(numbers) > 1 and kind != 'storage' else ''} {', '.join(numbers)}"
        for kind, numbers in sorted(by_kind.items())
    )


def candidate_view(
    catalogue: Catalogue, facts: GridFacts, decision: Decision, slot: int, obs: GridObservation, danger: int = -1
) -> CandidateView:
    """The action of a slot with the effect that the engine predicts."""
    action_id = int(decision.ids[slot])
    after = np.asarray(decision.rho_after[slot], dtype=float)
    outage = np.asarray(decision.rho_outage[slot], dtype=float)
    peak = worst(after)
    lost = worst(outage)
    calm = [percent(rho) for rho in outage if percent(rho) < COLLAPSE]
    highest, highest_outage = decision.effect(slot)
    return CandidateView(
        id=action_id,
        text=action_text(catalogue, action_id, obs),
        percent=highest,
        line=peak,
        over=int(np.sum(np.nan_to_num(after, nan=9.99) > 1.0)),
        outage_percent=highest_outage,
        outage_line=facts.outages[lost] if lost >= 0 else -1,
        score=round(float(decision.score[slot]), 4),
        else_percent=max(calm) if calm and len(calm) < outage.size else -1,
        danger=danger,
    )


def unlisted_view(catalogue: Catalogue, action_id: int, obs: GridObservation) -> CandidateView:
    """An action without a slot: its text, and no prediction."""
    return CandidateView(action_id, action_text(catalogue, action_id, obs), -1, -1, 0, -1, -1, -1e9)


def describe_case(
    obs: GridObservation,
    decision: Decision,
    catalogue: Catalogue,
    facts: GridFacts,
    *,
    candidates: int = 12,
    substations: int = 3,
    flows: bool = False,
    played: int | None = None,
    outcome: Outcome | None = None,
    dangers: Callable[[Sequence[int]], Iterable[float]] | None = None,
) -> CaseView:
    """Describe a decision.

    Args:
        obs: Grid2Op observation of the state.
        decision: the slots offered there.
        candidates: actions listed besides do-nothing, best score first; 0 lists none at all.
        substations: substations written out element by element.
        flows: with the far end, power and loading of each element.
        played: catalogue id of the bad example; None for a plain question.
        outcome: how the bad example ended.
        dangers: risk of each of the listed actions (`grid.risk`, 1 is 100 %); None: not shown.
    """
    legal = [int(k) for k in np.flatnonzero(decision.mask) if decision.ids[k] >= 0]
    slot_of = {int(decision.ids[k]): k for k in reversed(legal)}
    ranked = sorted((k for k in legal if decision.ids[k] != 0), key=lambda k: (-float(decision.score[k]), k))
    slots = [slot_of[0], *ranked[:candidates]] if candidates else []
    shown = list(slots)
    if played in slot_of and slot_of[played] not in shown:
        shown.append(slot_of[played])
    danger = dict.fromkeys(shown, -1)
    if dangers is not None and shown:
        danger = dict(zip(shown, map(_danger, dangers([int(decision.ids[k]) for k in shown])), strict=True))
    views = {k: candidate_view(catalogue, facts, decision, k, obs, danger[k]) for k in shown}
    loaded = _loaded(obs)
    return CaseView(
        facts=facts,
        when=when_text(obs),
        kind=decision.kind,
        step=int(obs.current_step),
        demand_mw=round(float(np.sum(obs.load_p))),
        loaded=loaded,
        dead=_dead(obs),
        outages=_outages(facts, decision.rho_outage[slot_of[0]]),
        substations=_substations(obs, catalogue, loaded, [views[k].id for k in slots], substations, flows),
        cooling_substations=_waits(obs.time_before_cooldown_sub),
        cooling_lines=_waits(np.where(obs.line_status, obs.time_before_cooldown_line, 0)),
        maintenance=_maintenance(obs),
        accompany=tuple(int(catalogue.line[i]) for i in decision.accompany if catalogue.line[i] >= 0),
        candidates=tuple(views[k] for k in slots),
        bad=None
        if played is None
        else BadView(views[slot_of[played]] if played in slot_of else unlisted_view(catalogue, played, obs), outcome),
    )


def _danger(danger: float) -> int:
    return -1 if np.isnan(danger) else round(100 * float(danger))


def _ends(obs: GridObservation, line: int) -> tuple[int, int]:
    return int(obs.line_or_to_subid[line]), int(obs.line_ex_to_subid[line])


def when_text(obs: GridObservation) -> str:
    """Weekday, date and time of an observation: 'Monday 6 August, 14:35'."""
    return date_text(*map(int, (obs.day_of_week, obs.day, obs.month, obs.hour_of_day, obs.minute_of_hour)))


def _loaded(obs: GridObservation, least: int = 2, most: int = 5, from_rho: float = 0.9) -> tuple[LineView, ...]:
    """The most loaded lines: all from 90 %, at least two, at most five."""
    rho = np.asarray(obs.rho, dtype=float)
    order = np.argsort(-rho, kind="stable")
    count = min(most, max(least, int(np.sum(rho >= from_rho))))
    return tuple(
        LineView(int(i), _ends(obs, int(i)), percent(rho[i]), int(obs.timestep_overflow[i])) for i in order[:count]
    )


def _dead(obs: GridObservation) -> tuple[DeadLineView, ...]:
    dead = np.flatnonzero(~np.asarray(obs.line_status, dtype=bool))
    return tuple(DeadLineView(int(i), _ends(obs, int(i)), int(obs.time_before_cooldown_line[i])) for i in dead)


def _outages(facts: GridFacts, after: np.ndarray, most: int = 3) -> tuple[OutageView, ...]:
    """The credible outages that would load a line above 100 %, worst first; the worst one if none does."""
    rho = np.nan_to_num(np.asarray(after, dtype=float), nan=np.inf)
    if not rho.size:
        return ()
    order = np.argsort(-rho, kind="stable")
    keep = [i for i in order[:most] if rho[i] > 1.0] or list(order[:1])
    return tuple(OutageView(facts.outages[int(i)], percent(rho[i])) for i in keep)


def _substations(
    obs: GridObservation, catalogue: Catalogue, loaded: Sequence[LineView], ids: Sequence[int], most: int, flows: bool
) -> tuple[SubstationView, ...]:
    """The substations that matter: those that the best candidates move, then the ends of the most loaded lines."""
    wanted = [int(catalogue.substation[i]) for i in ids if catalogue.substation[i] >= 0]
    wanted += [end for line in loaded for end in line.ends]
    views = []
    for substation in list(dict.fromkeys(wanted))[:most]:
        positions, names = element_names(obs, substation)
        buses = tuple(max(0, int(obs.topo_vect[p])) for p in positions)
        shown = tuple(_flow(obs, p) for p in positions) if flows else ()
        wait = int(obs.time_before_cooldown_sub[substation])
        views.append(SubstationView(substation, tuple(names), buses, wait, shown))
    return tuple(views)


def _flow(obs: GridObservation, position: int) -> FlowView:
    """Power of the element at a position of the topology vector."""
    _, load, generator, origin, extremity, storage = (int(n) for n in obs.grid_objects_types[position])
    if origin >= 0:
        return FlowView(int(obs.line_ex_to_subid[origin]), round(float(obs.p_or[origin])), percent(obs.rho[origin]))
    if extremity >= 0:
        line = extremity
        return FlowView(int(obs.line_or_to_subid[line]), round(float(obs.p_ex[line])), percent(obs.rho[line]))
    if load >= 0:
        return FlowView(-1, round(float(obs.load_p[load])), -1)
    if generator >= 0:
        return FlowView(-1, round(float(obs.gen_p[generator])), -1)
    return FlowView(-1, round(float(obs.storage_power[storage])), -1)


def _waits(cooldown: np.ndarray) -> tuple[tuple[int, int], ...]:
    return tuple((int(i), int(cooldown[i])) for i in np.flatnonzero(np.asarray(cooldown) > 0))


def _maintenance(obs: GridObservation) -> tuple[MaintenanceView, ...]:
    ahead, steps = np.asarray(obs.time_next_maintenance), np.asarray(obs.duration_next_maintenance)
    soon = np.flatnonzero((ahead > 0) & (ahead <= _MAINTENANCE_STEPS))
    return tuple(MaintenanceView(int(i), int(ahead[i]), int(steps[i])) for i in soon)
