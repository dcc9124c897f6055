"""The text of our prompts: OpenAI-style chat messages from plain views (`language.prompt=ace`; the paper's: paper.py).

What never changes comes first (rules, grid, format), the state last, what was tried at the very end, so that servers
reuse the prefix across states and across the rounds of one case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ace_ray.domain import Outcome
from ace_ray.grid.loading import COLLAPSE
from ace_ray.language.view import BadView, CandidateView, CaseView, GridFacts, SubstationView

Message = dict[str, str]
LEAST = "Least danger of what is left: candidate"


@dataclass(frozen=True)
class AttemptView:
    """One earlier round: the action proposed (None: none could be read), how its replay ended, or what was wrong.

    `verdict` is that of the proposal against the bad example; `error` one of 'unparsed', 'illegal', 'repeats'.
    """

    action: CandidateView | None
    outcome: Outcome | None
    verdict: str | None
    error: str | None = None


_ERRORS = {
    "unparsed": "the reply was not the JSON object asked for",
    "illegal": "this is not possible now (unknown action, no effect, cooldown or line out of service)",
    "repeats": "this is the bad example or was tried before",
}


def actor_system(facts: GridFacts) -> str:
    """Rules, grid and format: constant for a grid."""
    return (
        "You advise the operators of a transmission grid: propose the best action for the moment described. A bad "
        "example, where there is one, was played at this very moment and can be bettered: say why it was bad, and "
        "propose a better action.\n"
        f"{rules_text(facts)}\n"
        f"{grid_text(facts)}\n"
        'Reply with one JSON object: {"analysis": "what endangers the grid", "why_bad": "why the bad example was bad", '
        '"action": an action}. An action is {"candidate": n} from the list, or {"substation": s, "buses": [1, 2, ...]} '
        'with the bus of each element in the order shown, or {"line": l, "status": "out"} to disconnect a line, or '
        '{"line": l, "status": "in 1-2"} to reconnect it with its first end on bus 1 and its second end on bus 2. '
        "Repeat neither the bad example nor what was tried; what is predicted to have the effect of an action that "
        "failed will mostly fail too."
    )


def rules_text(facts: GridFacts) -> str:
    """How the grid works, what counts, and who goes on after the action."""
    at_once = f", or above {facts.trip_percent} % once," if facts.trip_percent < COLLAPSE else ""
    stays = f"; it then stays out for {_steps(facts.attack_steps)}" if facts.attack_steps else ""
    attack = f" An attacker may cut one line at any time{stays}." if facts.opponent else ""
    return (
        "Rules: The loading of a line is its current in percent of its thermal limit. A line above 100 % for more than "
        f"{facts.overload_steps} steps of {facts.step_minutes} minutes in a row{at_once} trips.{attack} A substation "
        "has two buses; which of its lines, loads and generators are on bus 1 and which on bus 2 decides the flows. An "
        "action changes one substation or switches one line, which then cannot be changed again for "
        f"{_steps(facts.cooldown)}. The grid goes black when the power flow has no solution or a generator or load is "
        "cut off.\n"
        f"Aim: survive the next {_steps(facts.horizon)}; among actions that do, the one with the higher return is "
        f"better. The return is the sum of load / production - {facts.offset:g} over the steps, so losses lower it. "
        "After your action a fixed controller goes on: it plays what is predicted to relieve the grid most."
    )


def grid_text(facts: GridFacts) -> str:
    """Sizes, notation, and the outages that count."""
    if facts.opponent:
        outages = f"An outage is the loss of one of the lines that the attacker may cut: {_numbers(facts.outages)}."
    else:
        outages = "An outage is the loss of any one line."
    return (
        f"Grid: {facts.substations} substations, {facts.lines} lines, {facts.generators} generators, "
        f"{facts.loads} loads. Line 3 (5-7) runs from substation 5 to substation 7. {outages}"
    )


def _numbers(lines: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(lines)))


def outcome_text(outcome: Outcome, horizon: int) -> str:
    """How a replay ended, in words."""
    if not outcome.survived:
        return f"the grid went black after {outcome.steps} of {horizon} steps"
    return f"the grid survived {outcome.steps} steps with a return of {outcome.ret:.2f}"


def effect_text(candidate: CandidateView) -> str:
    """The predicted effect of an action, in words."""
    if candidate.percent < 0:
        return "effect not computed"
    over = f", {candidate.over} lines above 100 %" if candidate.over > 1 else ""
    if candidate.collapses:
        return "collapse at once"
    text = f"{candidate.percent} % on line {candidate.line}{over}"
    if candidate.outage_percent >= 0:
        text += f"; {loading(candidate.outage_percent)} after losing line {candidate.outage_line}"
    if candidate.else_percent >= 0:
        text += f", else {candidate.else_percent} % at most"
    return text


def danger_text(candidate: CandidateView) -> str:
    """'danger 12; ' where it is known: it stands beside the number, where a reader of the whole list looks for it."""
    return f"danger {candidate.danger}; " if candidate.danger >= 0 else ""


def loading(percent: int) -> str:
    """'93 %', or 'collapse'."""
    return "collapse" if percent >= COLLAPSE else f"{percent} %"


def state_text(case: CaseView) -> str:
    """The state, the constraints in force, the candidates and the bad example."""
    lines = situation_lines(case)
    if case.accompany:
        again = ", ".join(f"line {line}" for line in case.accompany)
        lines.append(f"With every action but a line switch, {again} is reconnected in the same step.")
    if case.outages:
        worst = "; ".join(f"line {o.line} lost: {loading(o.percent)}" for o in case.outages)
        lines.append(f"Highest loading after an outage, if nothing is done: {worst}.")
    lines.extend(_substation_text(s) for s in case.substations)
    lines.extend(constraint_lines(case))
    if case.candidates:
        known = any(c.danger >= 0 for c in case.candidates)
        danger = "danger in percent: what the next outages and the next step, as forecast, do to the grid; the action; "
        shown = "highest loading right after it; after the worst outage that may follow"
        lines.append(f"Candidates ({danger if known else ''}{shown}):")
        lines.extend(f"{i}: {danger_text(c)}{c.text}. {effect_text(c)}" for i, c in enumerate(case.candidates))
    if case.bad is not None:
        lines.append(bad_text(case, case.bad))
    return "\n".join(lines)


def situation_lines(case: CaseView) -> list[str]:
    """When it is, how the grid stands, the most loaded lines, and those out of service."""
    situation = {
        "overloaded": "The grid is overloaded or close to it.",
        "insecure": "The grid is not overloaded, but an outage would overload it.",
    }.get(case.kind, "")
    lines = [f"{case.when}, step {case.step:,}. Demand {case.demand_mw:,} MW. {situation}".strip()]
    lines.append("Highest loadings: " + "; ".join(_loaded_text(case)) + ".")
    if case.dead:
        lines.append("Out of service: " + "; ".join(_dead_text(case)) + ".")
    return lines


def constraint_lines(case: CaseView) -> list[str]:
    """What may not be changed now, and planned maintenance."""
    lines = []
    rests = [f"substation {s} for {_steps(n)}" for s, n in case.cooling_substations]
    rests += [f"line {line} for {_steps(n)}" for line, n in case.cooling_lines]
    if rests:
        lines.append("Cannot be changed: " + "; ".join(rests) + ".")
    if case.maintenance:
        planned = (f"line {m.line} goes out in {_steps(m.wait)} for {_steps(m.steps)}" for m in case.maintenance)
        lines.append("Maintenance: " + "; ".join(planned) + ".")
    return lines


def bad_text(case: CaseView, bad: BadView, effect: bool = True) -> str:
    """The bad example, the effect that was predicted for it if wanted, and how it ended."""
    number = case.number(bad.action.id)
    if number is None:
        known = effect and bad.action.percent >= 0
        name = f"{bad.action.text}" + (f" ({danger_text(bad.action)}{effect_text(bad.action)})" if known else "")
    else:
        name = f"candidate {number}, {bad.action.text}"
    end = "" if bad.outcome is None else f" It was played, and {outcome_text(bad.outcome, case.facts.horizon)}."
    return f"Bad example: {name}.{end}"


def history_text(case: CaseView, history: Sequence[AttemptView]) -> str:
    """What was tried in earlier rounds and what happened."""
    lines = ["Tried since, from the same moment:"]
    for attempt in history:
        number = None if attempt.action is None else case.number(attempt.action.id)
        if attempt.action is None:
            name = "a reply without a usable action"
        else:
            name = attempt.action.text if number is None else f"candidate {number}, {attempt.action.text}"
        if attempt.error is not None or attempt.outcome is None:
            end = _ERRORS.get(attempt.error or "", "it could not be replayed")
        else:
            end = outcome_text(attempt.outcome, case.facts.horizon)
            end += {"worse": ": worse than the bad example", "tie": ": no better than the bad example"}.get(
                attempt.verdict or "", ""
            )
        lines.append(f"- {name}: {end}.")
    lines.append("Propose another action.")
    return "\n".join(lines)


def chat(system: str, user: str, case: CaseView, history: Sequence[AttemptView]) -> list[Message]:
    """System and user message; but for its last line the first round's text is a prefix of every later one."""
    if history:
        user += "\n" + history_text(case, history)
    user += left_text(case, history)
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def left_text(case: CaseView, history: Sequence[AttemptView]) -> str:
    """The last line: `what_is_left`, where it is known."""
    left = what_is_left(case, history)
    then = f", then {', '.join(map(str, left[1:]))}" if left[1:] else ""
    return f"\n{LEAST} {left[0]}{then}." if left else ""


def what_is_left(case: CaseView, history: Sequence[AttemptView] = ()) -> list[int]:
    """Numbers of the candidates worth another round, least danger first; empty where no danger is known.

    Left out are the bad example, what was tried, and what is predicted to have the effect of one of them: that dies
    more often than others do where one has died (docs/language-model.md). Where that leaves nothing, only what was
    tried is left out.
    """
    failed = [attempt.action for attempt in history if attempt.action is not None]
    if case.bad is not None:
        failed.append(case.bad.action)
    gone, effects = {c.id for c in failed}, {c.effect for c in failed}
    untried = [i for i, c in enumerate(case.candidates) if c.danger >= 0 and c.id not in gone]
    other = [i for i in untried if case.candidates[i].effect not in effects]
    return sorted(other or untried, key=lambda i: case.candidates[i].danger)


def actor_messages(case: CaseView, history: Sequence[AttemptView] = ()) -> list[Message]:
    """The chat that asks the actor."""
    return chat(actor_system(case.facts), state_text(case), case, history)


def _loaded_text(case: CaseView) -> list[str]:
    return [
        f"line {v.line} ({v.ends[0]}-{v.ends[1]}) {v.percent} %"
        + (f", above 100 % for {_steps(v.over_steps)}" if v.over_steps else "")
        for v in case.loaded
    ]


def _steps(count: int) -> str:
    return f"{count} step{'s' if count != 1 else ''}"


def _dead_text(case: CaseView) -> list[str]:
    return [
        f"line {v.line} ({v.ends[0]}-{v.ends[1]}), "
        + (f"locked for {_steps(v.wait)}" if v.wait else "free to reconnect")
        for v in case.dead
    ]


def _substation_text(view: SubstationView) -> str:
    """'Substation 16: load 17, lines 5, 7. On bus 2: line 5.' with the elements in catalogue order."""
    split = [name for name, bus in zip(view.elements, view.buses, strict=True) if bus == 2]
    out = [name for name, bus in zip(view.elements, view.buses, strict=True) if bus == 0]
    text = f"Substation {view.substation}: {', '.join(_with_flows(view) or _runs(view.elements))}."
    text += f" On bus 2: {', '.join(_runs(split))}." if split else " All on bus 1."
    return text + (f" Out of service: {', '.join(_runs(out))}." if out else "")


def _with_flows(view: SubstationView) -> list[str]:
    """'line 5 to 16 (30 MW out, 45 %)', 'load 2 (12 MW)', ..., one an element; empty where flows are not shown."""
    texts = []
    for name, flow in zip(view.elements, view.flows, strict=False):
        if flow.to < 0:
            texts.append(f"{name} ({flow.mw} MW)")
        else:
            way = "out" if flow.mw >= 0 else "in"
            texts.append(f"{name} to {flow.to} ({abs(flow.mw)} MW {way}, {flow.percent} %)")
    return texts


def _runs(names: Sequence[str]) -> list[str]:
    """Names in order, a run of one kind under one word: 'line 3', 'line 7', 'load 2' -> 'lines 3, 7', 'load 2'."""
    runs: list[tuple[str, list[str]]] = []
    for name in names:
        kind, number = name.split(" ")
        if runs and runs[-1][0] == kind:
            runs[-1][1].append(number)
        else:
            runs.append((kind, [number]))
    return [f"{kind}{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" for kind, numbers in runs]
