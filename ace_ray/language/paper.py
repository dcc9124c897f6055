"""The paper's prompt (`language.prompt=paper`; docs/method.md): no candidate list, line -> bus changes, at most five.

The text names the overloaded lines, what is on which bus of the crucial substations, the bad example and the cooldowns;
the reply names lines and the bus that each is to be moved to. The paper leaves open which of a line's two ends is
meant. Here it is the end at the one substation, of those shown, that all named lines share (the first such), since a
step may change one substation only; whatever else is connected there stays on its bus. No change at all is do-nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ace_ray.language.prompts import (
    AttemptView,
    Message,
    bad_text,
    chat,
    constraint_lines,
    grid_text,
    rules_text,
    situation_lines,
)
from ace_ray.language.reply import ActorReply, Resolved, json_objects, judged
from ace_ray.language.view import CaseView, GridFacts, SubstationView

if TYPE_CHECKING:  # so that prompts can be written where Grid2Op is not installed
    import numpy as np

    from ace_ray.grid.physics.catalogue import Catalogue

MOST_CHANGES = 5


def paper_system(facts: GridFacts) -> str:
    """Task, rules and format: constant for a grid."""
    return (
        "You are an expert operator of a transmission grid. Lines are overloaded, or an outage would overload them: "
        "move lines to the other bus of a substation so that the load shifts. Think of the lines that share a "
        "substation with the loaded ones. Reason from the bad example, where there is one, and do not repeat it.\n"
        f"{rules_text(facts)}\n"
        f"{grid_text(facts)}\n"
        'Reply with one JSON object: {"analysis": "the critical issues", "why_bad": "why the bad example was bad", '
        f'"changes": [{{"line": l, "bus": b}}, ...]}} with at most {MOST_CHANGES} lines, all at one of the crucial '
        "substations, and for each the bus (1 or 2) that its end there is moved to; an empty list does nothing."
    )


def paper_text(case: CaseView) -> str:
    """The state in the paper's order: overloads, crucial substations, bad example, constraints."""
    lines = situation_lines(case)
    lines += [_crucial(view) for view in case.substations]
    if case.bad is not None:
        lines.append(bad_text(case, case.bad, effect=False))
    return "\n".join(lines + constraint_lines(case))


def paper_messages(case: CaseView, history: Sequence[AttemptView] = ()) -> list[Message]:
    """The chat that asks the actor."""
    return chat(paper_system(case.facts), paper_text(case), case, history)


def _crucial(view: SubstationView) -> str:
    """'Crucial substation 16: on bus 1: line 5 45 %, line 7 20 %; on bus 2: none; out of service: line 9.'"""
    by_bus: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for i, (name, bus) in enumerate(zip(view.elements, view.buses, strict=True)):
        if name.startswith("line "):
            by_bus[bus].append(f"{name} {view.flows[i].percent} %" if view.flows and bus else name)
    text = "; ".join(f"on bus {bus}: {', '.join(by_bus[bus]) or 'none'}" for bus in (1, 2))
    return f"Crucial substation {view.substation}: {text}" + (
        f"; out of service: {', '.join(by_bus[0])}." if by_bus[0] else "."
    )


def parse_changes(text: str) -> ActorReply | None:
    """The first object with changes of a known form: a list of {line, bus}, or the paper's {line: bus}."""
    for value in json_objects(text):
        changes = _changes(value.get("changes"))
        if changes is not None:
            analysis, why = value.get("analysis"), value.get("why_bad")
            texts = [t if isinstance(t, str) else "" for t in (analysis, why)]
            return ActorReply(texts[0], texts[1], {"changes": changes})
    return None


def resolve_changes(
    text: str, case: CaseView, catalogue: Catalogue, legal: np.ndarray, taken: Collection[int] = ()
) -> Resolved:
    """What a reply in the paper's form asks for; arguments and result as in `reply.resolve`."""
    reply = parse_changes(text)
    if reply is None:
        return Resolved(None, "unparsed")
    return judged(_lookup(reply.action["changes"], case, catalogue), reply, case, legal, taken)


def _changes(value: Any) -> dict[int, int] | None:
    """{line: bus}, or None where it is nothing of the kind."""
    if isinstance(value, list):
        if not all(isinstance(row, dict) and {"line", "bus"} <= row.keys() for row in value):
            return None
        pairs = [(row["line"], row["bus"]) for row in value]
    elif isinstance(value, dict):
        pairs = [(int(line) if line.strip().isdigit() else None, bus) for line, bus in value.items()]
    else:
        return None
    whole = all(isinstance(n, int) and not isinstance(n, bool) for pair in pairs for n in pair)
    return dict(pairs) if whole else None


def _lookup(changes: dict[int, int], case: CaseView, catalogue: Catalogue) -> int | None:
    """Catalogue id of the changes, None where they are too many or no shown substation has all these lines."""
    if not changes:
        return 0
    if len(changes) > MOST_CHANGES or not set(changes.values()) <= {1, 2}:
        return None
    wanted = {f"line {line}": bus for line, bus in changes.items()}
    for view in case.substations:
        if wanted.keys() <= {name for name, bus in zip(view.elements, view.buses, strict=True) if bus > 0}:
            buses = [wanted.get(name, bus) for name, bus in zip(view.elements, view.buses, strict=True)]
            return catalogue.find(view.substation, buses)
    return None
