"""The data set from the shards: which refinements, which texts, which weights."""

import json

import numpy as np
import pytest

from ace_ray.config.errors import DataError, ShardError
from ace_ray.finetune.dataset import Refined, draw, read_refined
from ace_ray.replay.shards import ShardLog
from tests.finetune.runs import refinement, write_log
from tests.replay.rows import IDENTITY

pytestmark = pytest.mark.unit


def test_the_first_prompt_goes_with_the_finally_accepted_reply(tmp_path):
    write_log(
        tmp_path, [refinement(5, prompts=["first", "second"], replies=["bad", "good"], verdicts=["worse", "better"])]
    )
    (found,) = read_refined(tmp_path, 1000)
    assert found.id == 5
    assert found.messages == ({"role": "user", "content": "first"},)
    assert found.reply == "good"


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
    assert [r.id for r in read_refined(tmp_path, 1000)] == [4]


def test_the_latest_window_is_read(tmp_path):
    write_log(tmp_path, [refinement(i) for i in range(1, 8)])
    assert [r.id for r in read_refined(tmp_path, 3)] == [5, 6, 7]


def test_the_weight_is_that_of_the_refined_transition(tmp_path):
    write_log(tmp_path, [refinement(1, result=11), refinement(2, result=12)], weights={11: 4.0, 12: 0.5})
    assert [r.weight for r in read_refined(tmp_path, 10)] == [4.0, 0.5]


def test_examples_are_drawn_by_equation_9():
    refined = [Refined(i, ({"role": "user", "content": str(i)},), "r", w) for i, w in enumerate((1.0, 3.0, 0.0))]
    drawn = draw(refined, 4000, np.random.default_rng(0))
    share = np.bincount([int(e.messages[0]["content"]) for e in drawn], minlength=3) / 4000
    assert share == pytest.approx([0.25, 0.75, 0.0], abs=0.03)


def test_nothing_to_draw_from_is_one_clear_error():
    with pytest.raises(DataError, match="no confirmed refinements"):
        draw([], 4, np.random.default_rng(0))


def test_a_folder_without_a_log_is_one_clear_error(tmp_path):
    with pytest.raises(ShardError, match="no replay log"):
        read_refined(tmp_path / "none", 10)


def test_the_prompt_column_holds_the_chat_as_json(tmp_path):
    write_log(tmp_path, [refinement(1)])
    rows = ShardLog(tmp_path).read("refinement", ("prompt",)).to_pylist()
    assert json.loads(next(r["prompt"] for r in rows if r["prompt"]))[0]["role"] == "user"
    assert ShardLog(tmp_path).identity == IDENTITY
