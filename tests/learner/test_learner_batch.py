"""Rows that could only teach nonsense are refused with their ids; the next state of a blackout is made harmless."""

import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from ace_ray.learner.batch import learner_batch

pytestmark = pytest.mark.unit


def rows(B: int = 3, K: int = 4) -> dict[str, np.ndarray]:
    state = {
        "context": np.zeros((B, 2), np.float16),
        "slots": np.zeros((B, K, 3), np.float16),
        "mask": np.ones((B, K), bool),
        "score": np.zeros((B, K), np.float32),
    }
    return (
        {k: v.copy() for k, v in state.items()}
        | {"next_" + k: v.copy() for k, v in state.items()}
        | {
            "slot": np.zeros(B, np.int16),
            "reward": np.zeros(B),
            "discount": np.ones(B),
            "terminated": np.zeros(B, bool),
            "weight": np.ones(B),
            "id": np.arange(100, 100 + B),
            "policy_version": np.zeros(B, np.int64),
        }
    )


def test_features_are_widened_and_other_columns_left_out():
    columns = learner_batch(rows()).policy_batches[DEFAULT_MODULE_ID]
    assert columns["slots"].dtype == np.float32 and columns["slot"].dtype == np.int64
    assert "policy_version" not in columns and "id" not in columns


def test_the_empty_next_state_of_a_blackout_gets_a_legal_slot():
    r = rows()
    r["next_mask"][1] = False
    r["terminated"][1] = True
    columns = learner_batch(r).policy_batches[DEFAULT_MODULE_ID]
    assert columns["next_mask"].any(1).all() and columns["next_mask"][1].tolist() == [True, False, False, False]
    assert not r["next_mask"][1].any(), "the caller's rows stay as they were"


@pytest.mark.parametrize("case", ["no legal slot", "illegal slot", "no next decision"])
def test_impossible_rows_are_named(case):
    r = rows()
    if case == "no legal slot":
        r["mask"][2] = False
    elif case == "illegal slot":
        r["mask"][2, 0] = False
    else:
        r["next_mask"][2] = False
    with pytest.raises(ValueError, match=rf"{case}.*\[102\]"):
        learner_batch(r)
