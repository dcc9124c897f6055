"""The data set from the shards: which refinements, which texts, which weights."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ace_ray.config.errors import DataError, ShardError
from ace_ray.finetune.dataset import Known, Said, draw, read_lessons
from ace_ray.language.prompts import actor_messages
from ace_ray.language.view import BadView, CaseView
from ace_ray.replay.shards import ShardLog
from tests.finetune.made import answer, labelled
from tests.finetune.runs import refinement, write_log
from tests.replay.rows import IDENTITY

pytestmark = pytest.mark.unit

GOOD, BAD = answer(2), answer(1)
DEAD, ALIVE = (0, 20, 0.7, 8.0), (1, 100, 8.0, 8.0)


def shown(number: int = 0) -> CaseView:
    """Decision `number` as a refiner asks it."""
    known = labelled(number)
    return replace(known.case, bad=BadView(known.played, known.outcomes[known.played.id]))


def test_the_first_prompt_goes_with_the_finally_accepted_reply(tmp_path):
    write_log(tmp_path, [refinement(5, prompts=["first", "second"], replies=[BAD, GOOD], verdicts=["worse", "better"])])
    (found,) = read_lessons(tmp_path, 1000)
    assert found == Said(5, 1.0, ({"role": "user", "content": "first"},), GOOD, (BAD,))


def test_what_was_not_confirmed_or_not_said_by_a_model_is_left_out(tmp_path):
    write_log(
        tmp_path,
        [
            refinement(1, status="rejected", verdicts=["worse"]),
            refinement(2, verdicts=["tie"]),
            refinement(3, prompts=[""], replies=[""], verdicts=["better"]),
            refinement(4, verdicts=["better"]),
        ],
    )
    assert [r.id for r in read_lessons(tmp_path, 1000)] == [4]


def test_the_latest_window_is_read(tmp_path):
    write_log(tmp_path, [refinement(i) for i in range(1, 8)])
    assert [r.id for r in read_lessons(tmp_path, 3)] == [5, 6, 7]


def test_the_weight_is_that_of_the_refined_transition(tmp_path):
    write_log(tmp_path, [refinement(1, result=11), refinement(2, result=12)], weights={11: 4.0, 12: 0.5})
    assert [r.weight for r in read_lessons(tmp_path, 10)] == [4.0, 0.5]


def test_examples_are_drawn_by_equation_9():
    lessons = [Said(i, w, ({"role": "user", "content": str(i)},), "r") for i, w in enumerate((1.0, 3.0, 0.0))]
    drawn = draw(lessons, 4000, np.random.default_rng(0))
    share = np.bincount([int(e.messages[0]["content"]) for e in drawn], minlength=3) / 4000
    assert share == pytest.approx([0.25, 0.75, 0.0], abs=0.03)


def test_nothing_to_draw_from_is_one_clear_error():
    with pytest.raises(DataError, match="no confirmed refinements"):
        draw([], 4, np.random.default_rng(0))


def test_a_folder_without_a_log_is_one_clear_error(tmp_path):
    with pytest.raises(ShardError, match="no replay log"):
        read_lessons(tmp_path / "none", 10)


def test_where_no_round_lost_the_bad_example_is_the_worse_reply(tmp_path):
    write_log(tmp_path, [refinement(1, replies=[answer(1)], case=shown(0))])
    (lesson,) = read_lessons(tmp_path, 10)
    (worse,) = lesson.worse
    assert json.loads(worse)["action"] == {"candidate": 2}  # decision 0: candidate 2 was played


def test_the_best_known_action_is_learned_even_where_every_round_lost(tmp_path):
    case = shown(0)
    lost = refinement(1, status="rejected", replies=[answer(0)], verdicts=["tie"], case=case)
    lost[1] |= {"catalogue_id": 0, "survived": False, "steps": 20, "ret": 0.7}
    nothing = refinement(2, status="rejected", replies=[answer(0)], verdicts=["tie"], case=case)
    for rows, compared in ((lost, {0: DEAD, 2: DEAD, 1: ALIVE}), (nothing, {0: DEAD, 2: DEAD})):
        rows[1]["compared"] = json.dumps(compared)
    write_log(tmp_path, [lost, nothing])
    assert read_lessons(tmp_path, 10, "reply") == []
    (lesson,) = read_lessons(tmp_path, 10, "best")
    assert isinstance(lesson, Known) and (lesson.id, lesson.best.id) == (1, 1)
    assert {view.id for view in lesson.worse} == {0, 2}


def test_best_falls_back_to_the_reply_where_only_that_names_what_survives(tmp_path):
    case = shown(0)
    outside = '{"analysis":"a","why_bad":"b","action":{"line":3,"status":"out"}}'
    rows = refinement(1, replies=[outside], case=case, compared={0: (0, 30, 1.0, 8.0), 2: DEAD})
    rows[1] |= {"catalogue_id": 77, "survived": True, "steps": 100, "ret": 8.0}
    old = refinement(2, replies=[GOOD])  # written before cases were kept
    write_log(tmp_path, [rows, old])
    assert [(type(one), one.reply) for one in read_lessons(tmp_path, 10, "best")] == [(Said, outside), (Said, GOOD)]


def test_known_lessons_are_shown_in_both_orders_and_their_text_always_fits_the_action():
    case = shown(0)
    lesson = Known(1, 1.0, case, case.candidates[1], (case.candidates[0], case.candidates[2]))
    examples = draw([lesson], 40, np.random.default_rng(0))
    numbers = set()
    for one in examples:
        for said in map(json.loads, (one.reply, one.worse)):
            assert f"candidate {said['action']['candidate']}, " in said["analysis"]
        number, lost = (json.loads(text)["action"]["candidate"] for text in (one.reply, one.worse))
        order = [0, 1, 2] if number == 1 else [0, 2, 1]
        assert one.messages == actor_messages(replace(case, candidates=tuple(case.candidates[i] for i in order)))
        assert (order[number], order[lost] in (0, 2)) == (1, True)
        numbers.add(number)
    assert numbers == {1, 2}


def test_the_prompt_column_holds_the_chat_as_json(tmp_path):
    write_log(tmp_path, [refinement(1)])
    rows = ShardLog(tmp_path).read("refinement", ("prompt",)).to_pylist()
    assert json.loads(next(r["prompt"] for r in rows if r["prompt"]))[0]["role"] == "user"
    assert ShardLog(tmp_path).identity == IDENTITY
