"""Prompts: right, in words with units, and the constant part first."""

from dataclasses import replace

import pytest

from ace_ray.domain import Outcome
from ace_ray.language.prompts import AttemptView, actor_messages, effect_text, state_text, what_is_left
from ace_ray.language.view import CaseView, FlowView, SubstationView
from tests.language.cases import CANDIDATES, made_case

pytestmark = pytest.mark.unit


def test_the_system_message_is_the_same_for_every_state_of_a_grid():
    other = replace(made_case(), when="Friday 1 May, 00:00", kind="insecure", dead=(), candidates=CANDIDATES[:2])
    assert actor_messages(made_case())[0] == actor_messages(other)[0]


def test_a_later_round_only_adds_to_the_first_rounds_text():
    case = made_case()
    tried = AttemptView(CANDIDATES[2], Outcome(False, 23, 1.0), "worse")
    first, later = actor_messages(case)[1]["content"], actor_messages(case, [tried])[1]["content"]
    assert later.startswith(first)
    added = later[len(first) :]
    assert "candidate 2" in added
    assert "the grid went black after 23 of 100 steps: worse than the bad example" in added


def test_the_state_names_loadings_outages_constraints_and_the_bad_example():
    text = state_text(made_case())
    for part in (
        "Monday 6 August, 14:35, step 1,174. Demand 2,431 MW.",
        "line 20 (4-7) 103 %, above 100 % for 2 steps; line 18 (9-16) 96 %.",
        "Out of service: line 56 (30-26), locked for 8 steps.",
        "line 45 lost: 163 %; line 9 lost: collapse.",
        "Substation 16: lines 18, 19, load 17. On bus 2: line 19.",
        "substation 23 for 1 step; line 3 for 2 steps.",
        "Maintenance: line 5 goes out in 40 steps for 96 steps.",
        "With every action but a line switch, line 12 is reconnected in the same step.",
        "1: substation 16: line 18, load 17 to bus 2. 88 % on line 20; 101 % after losing line 45",
        "Bad example: candidate 0, do nothing. It was played, and the grid went black after 37 of 100 steps.",
    ):
        assert part in text


def test_a_bad_example_outside_the_list_is_written_out_with_its_effect():
    listed = replace(made_case(bad=2), candidates=CANDIDATES[:2])
    assert (
        "Bad example: substation 7: lines 6, 8 to bus 2 (95 % on line 20; 120 % after losing line 45)."
        in state_text(listed)
    )


def test_a_limit_that_no_line_reaches_is_not_a_rule():
    assert "20000" not in actor_messages(made_case())[0]["content"]
    strict = replace(made_case(), facts=replace(made_case().facts, trip_percent=200))
    assert "above 200 % once" in actor_messages(strict)[0]["content"]


def test_an_outage_that_ends_all_is_a_collapse_and_the_others_are_told():
    view = replace(CANDIDATES[3], else_percent=104)
    assert effect_text(view) == "97 % on line 20; collapse after losing line 45, else 104 % at most"


def test_flows_are_told_with_direction_unit_and_far_end():
    flows = (FlowView(9, 31, 45), FlowView(9, -20, 80), FlowView(-1, 12, -1))
    view = replace(made_case().substations[0], flows=flows)
    text = state_text(replace(made_case(), substations=(view,)))
    assert "Substation 16: line 18 to 9 (31 MW out, 45 %), line 19 to 9 (20 MW in, 80 %), load 17 (12 MW). On" in text


def test_a_case_survives_json():
    case = replace(made_case(), substations=(SubstationView(2, ("line 1",), (1,), 3, (FlowView(4, -7, 30),)),))
    assert CaseView.from_json(case.to_json()) == case
    assert CaseView.from_json(replace(case, bad=None).to_json()) == replace(case, bad=None)


def dangerous(effects):
    """A case of candidates 0, 1, ... with (danger, percent, outage percent); number 0 is the bad example."""
    shown = tuple(
        replace(CANDIDATES[0], id=i, text=f"move {i}", danger=danger, percent=percent, outage_percent=outage)
        for i, (danger, percent, outage) in enumerate(effects)
    )
    return replace(made_case(), candidates=shown).with_bad(shown[0], None)


def test_what_is_left_is_unlike_what_failed_by_danger_and_all_that_was_not_tried_where_nothing_else_is():
    case = dangerous([(9, 90, 120), (1, 90, 120), (5, 90, 119), (3, 80, 110), (4, 80, 110)])

    def tried(*numbers):
        return [AttemptView(case.candidates[i], Outcome(False, 3, 0.1), "worse") for i in numbers]

    assert what_is_left(case) == [3, 4, 2]  # 1 is predicted to do what the bad example did
    assert what_is_left(case, tried(3)) == [2]
    assert what_is_left(case, tried(3, 2)) == [1, 4]
    assert what_is_left(case, tried(3, 2, 1, 4)) == []
    assert what_is_left(replace(case, bad=None)) == [1, 3, 4, 2, 0]
    assert actor_messages(case)[1]["content"].endswith("\nLeast danger of what is left: candidate 3, then 4, 2.")


def test_without_danger_nothing_is_said_of_what_is_left():
    case = dangerous([(-1, 90, 120), (-1, 80, 110)])
    assert what_is_left(case) == [] and "what is left" not in actor_messages(case)[1]["content"]
