"""Examples from labels: the target is the best of what is listed, and the prompt is what a refiner asks."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ace_ray.domain import Outcome, verdict
from ace_ray.finetune.examples import DEPLOYED, LabelledCase, Variation, clearly_worse, make_example
from ace_ray.lab.embedded.synthetic import SyntheticCases
from ace_ray.language.prompts import actor_messages
from ace_ray.language.reply import parse_actor
from ace_ray.language.view import CandidateView
from tests.finetune.made import labelled
from tests.language.cases import CANDIDATES, made_case

pytestmark = pytest.mark.unit


def case_with(outcomes: dict[int, Outcome], played: int = 0) -> LabelledCase:
    case = made_case()
    by_id = {c.id: c for c in case.candidates}
    return LabelledCase("k", case, by_id[played], outcomes)


def chosen(known: LabelledCase, seed: int = 0, variation: Variation = DEPLOYED) -> CandidateView:
    """The candidate that the example's reply names, found by its text in the example's own prompt."""
    example = make_example(known, np.random.default_rng(seed), variation)
    parsed = parse_actor(example.reply)
    assert parsed is not None
    line = next(
        t for t in example.messages[1]["content"].split("\n") if t.startswith(f"{parsed.action['candidate']}: ")
    )
    return next(c for c in known.case.candidates if f"{c.text}." in line)


DEAD, ALIVE = Outcome(False, 20, 0.7), Outcome(True, 100, 8.0)


def test_survival_goes_before_the_slot_score():
    assert chosen(case_with({0: DEAD, 700: DEAD, 800: ALIVE, 226: DEAD})).id == 800


def with_danger(known: LabelledCase, dangers: dict[int, int]) -> LabelledCase:
    shown = tuple(replace(c, danger=dangers[c.id]) for c in known.case.candidates)
    return replace(known, case=replace(known.case, candidates=shown))


def test_of_survivors_within_a_tie_the_least_danger_is_taught_and_beyond_it_the_return_decides():
    tie = case_with({0: DEAD, 700: Outcome(True, 100, 8.01), 800: Outcome(True, 100, 8.02), 226: DEAD})
    for less, more in ((700, 800), (800, 700)):
        dangers = {0: 1, 226: 0, less: 20, more: 30}
        assert {chosen(with_danger(tie, dangers), seed).id for seed in range(20)} == {less}
    apart = case_with({0: DEAD, 700: Outcome(True, 100, 7.0), 800: Outcome(True, 100, 8.0), 226: DEAD})
    assert {chosen(with_danger(apart, {0: 1, 226: 0, 700: 2, 800: 90}), seed).id for seed in range(20)} == {800}


def test_without_replays_the_least_danger_that_was_neither_bad_nor_tried_is_the_target():
    danger = {0: 50, 700: 10, 800: 20, 226: 30}
    seen = set()
    for seed in range(200):
        known = with_danger(case_with({}), danger)
        example = make_example(known, np.random.default_rng(seed), Variation(0.5, 0.0, 0.5, 0.0, alone=0.0))
        shown, _, after = example.messages[1]["content"].partition("Bad example: ")
        failed = {c.id for c in CANDIDATES if c.text in after}
        reply = parse_actor(example.reply)
        assert reply is not None
        line = next(t for t in shown.split("\n") if t.startswith(f"{reply.action['candidate']}: "))
        target = next(c.id for c in CANDIDATES if f"{c.text}." in line)
        assert target == min(danger.keys() - failed, key=lambda i: danger[i])
        assert f"is left: candidate {reply.action['candidate']}, danger {danger[target]}." in reply.analysis
        seen.add(target)
    assert seen >= {700, 800, 226}


def test_where_all_die_the_longest_survivor_is_the_target():
    outcomes = {0: DEAD, 700: Outcome(False, 5, 0.1), 800: Outcome(False, 60, 4.0), 226: DEAD}
    assert chosen(case_with(outcomes)).id == 800


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Outcome(False, 31, 1.42, 8.0), Outcome(False, 30, 1.4, 8.0)),  # a step apart, within a tie
        (Outcome(False, 30, 1.9, 8.0), Outcome(False, 30, 1.4, 8.0)),  # at the same step, with more reward
        (Outcome(True, 100, 8.0, 8.0), Outcome(True, 100, 7.0, 8.0)),
        (Outcome(True, 100, 7.0, 8.0), Outcome(False, 99, 9.0, 8.0)),
    ],
)
def test_a_lesson_judges_two_outcomes_as_a_run_does(a, b):
    labelled = case_with({700: a, 800: b})
    views = {c.id: c for c in CANDIDATES}
    assert clearly_worse(labelled, views[800], views[700]) == (verdict(a, b, labelled.tie) == "better")


def test_the_target_is_never_the_bad_example_and_always_the_best_of_the_rest_under_any_variation():
    rank = {800: 3, 700: 2, 226: 1, 0: 0}
    outcomes = {
        0: Outcome(False, 5, 0.1),
        226: Outcome(False, 20, 0.7),
        700: Outcome(False, 60, 4.0),
        800: Outcome(True, 100, 8.0),
    }
    for seed in range(200):
        rng = np.random.default_rng(seed)
        example = make_example(case_with(outcomes), rng, Variation(0.5, 0.5, 0.5))
        text = example.messages[1]["content"]
        parsed = parse_actor(example.reply)
        assert parsed is not None
        by_number = {
            int(line.split(":")[0]): next(c.id for c in CANDIDATES if c.text in line)
            for line in text.split("Candidates (")[1].split("Bad example")[0].splitlines()[1:]
            if line
        }
        shown = text.partition("Bad example: ")[2].split(" It was played")[0]
        bad = next((c.id for c in CANDIDATES if shown and c.text in shown), None)
        tried = [c.id for c in CANDIDATES if "Tried since" in text and c.text in text.split("Tried since")[1]]
        left = [i for i in by_number.values() if i != bad and i not in tried]
        assert by_number[parsed.action["candidate"]] == max(left, key=lambda i: rank[i])


def test_a_deployed_example_has_the_running_systems_prompt():
    known = labelled(3)
    example = make_example(known, np.random.default_rng(0), DEPLOYED)
    assert example.messages == actor_messages(known.case.with_bad(known.played, known.outcomes[0]))


def test_some_examples_ask_without_a_bad_example_as_the_model_in_control_is_asked():
    outcomes = dict.fromkeys((0, 700, 226), DEAD) | {800: ALIVE}
    example = make_example(case_with(outcomes), np.random.default_rng(0), Variation(0.0, 0.0, 0.0, 0.0, alone=1.0))
    assert "Bad example" not in example.messages[1]["content"]
    reply = parse_actor(example.reply)
    assert reply is not None and reply.why_bad == "There is no bad example."
    assert CANDIDATES[reply.action["candidate"]].id == 800


def test_order_and_length_vary():
    outcomes = dict.fromkeys((0, 700, 800, 226), DEAD) | {800: ALIVE}
    prompts = {
        make_example(case_with(outcomes), np.random.default_rng(s), Variation(1.0, 0.0, 0.0)).messages[1]["content"]
        for s in range(30)
    }
    assert len(prompts) > 6


def test_made_up_cases_parse_and_repeat_with_the_seed():
    def texts(seed):
        rng = np.random.default_rng(seed)
        source = SyntheticCases(rng)
        return [make_example(source.draw(), rng, Variation()) for _ in range(40)]

    first, again = texts(5), texts(5)
    assert [e.reply for e in first] == [e.reply for e in again]
    for example in first:
        parsed = parse_actor(example.reply)
        assert parsed is not None
        assert f"\n{parsed.action['candidate']}: " in example.messages[1]["content"]
        assert json.loads(example.reply).keys() == {"analysis", "why_bad", "action"}
        assert all(len(parsed_text) <= 240 for parsed_text in (parsed.analysis, parsed.why_bad))
