"""Made-up decisions whose right answer stands in the text: candidate 1 or 2, whichever is not the bad example."""

import json
from dataclasses import replace

from ace_ray.domain import Outcome, Snapshot
from ace_ray.finetune.examples import Example, LabelledCase
from ace_ray.finetune.held_out import GateCase
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.language.prompts import actor_messages
from ace_ray.language.view import BadView, CandidateView, LineView
from tests.language.cases import made_case

NEVER_REBUILT = Snapshot(Scenario("grid", "data", "chronic", 7), (), 0)


def labelled(i: int) -> LabelledCase:
    """Decision i: candidate 1 + i % 2 survives, the others die after 20 of 100 steps; the third one was played."""
    right = 1 + i % 2
    views = tuple(
        CandidateView(
            n,
            "do nothing" if n == 0 else f"substation {n}: line {n} to bus 2",
            90,
            20,
            0,
            120,
            45,
            -1.0 if n == 0 else -0.9,
        )
        for n in range(3)
    )
    plain = made_case()
    case = replace(
        plain,
        facts=replace(plain.facts, outages=(0, 9, 45)),
        kind="overloaded" if right == 1 else "insecure",
        when="Monday 6 August, 14:35" if right == 1 else "Friday 1 May, 03:10",
        loaded=(LineView(20, (4, 7), 103),) if right == 1 else (LineView(31, (2, 5), 85),),
        step=i % 300,
        substations=(),
        cooling_substations=(),
        cooling_lines=(),
        maintenance=(),
        accompany=(),
        dead=(),
        candidates=views,
        bad=None,
    )
    outcomes = {n: Outcome(n == right, 100 if n == right else 20, 8.0 if n == right else 0.7) for n in range(3)}
    return LabelledCase(f"made-{i}", case, views[3 - right], outcomes)


def answer(number: int) -> str:
    """A short reply that names a candidate."""
    return json.dumps({"analysis": "a", "why_bad": "b", "action": {"candidate": number}})


def example(i: int, number: int | None = None) -> Example:
    """The first-round question of decision i with the right answer (or the given one), short enough to learn fast."""
    known = labelled(i)
    case = replace(known.case, bad=BadView(known.played, known.outcomes[known.played.id]))
    return Example(actor_messages(case), answer(1 + i % 2 if number is None else number))


def gate_cases(count: int) -> list[GateCase]:
    """Held-out decisions; their snapshots are never rebuilt."""
    return [GateCase(labelled(1000 + i), NEVER_REBUILT) for i in range(count)]
