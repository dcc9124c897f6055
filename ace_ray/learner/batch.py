"""Rows of the replay table -> a batch that RLlib's LearnerGroup takes."""

from collections.abc import Mapping

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from ace_ray.schema import NEXT, OBSERVED, STATE_COLUMNS


def learner_batch(rows: Mapping[str, np.ndarray]) -> MultiAgentBatch:
    """Picks and casts the columns that the losses read.

    Args:
        rows: As `ReplayTable.sample` gives them: the columns OBSERVED of both states, and `slot`, `reward`,
            `discount`, `terminated`, `weight` [B]; other columns are left out. Features may be float16.

    Returns:
        A MultiAgentBatch of NumPy columns (a bare SampleBatch would be wrapped, but not turned into tensors). The next
        state of a terminated row may be empty: its slot 0 is made legal, so that no network sees a decision without a
        legal slot; its value is dropped by `terminated`.

    Raises:
        ValueError: A row without a legal slot, one that chose an illegal slot, or one without a next decision that did
            not terminate.
    """
    B = len(rows["slot"])
    columns: dict[str, np.ndarray] = {}
    for prefix in ("", NEXT):
        for key in OBSERVED:
            columns[prefix + key] = np.ascontiguousarray(rows[prefix + key], dtype=STATE_COLUMNS[key].dtype)
    illegal = np.logical_not(columns["mask"].any(1))
    if illegal.any():
        raise ValueError(f"{int(illegal.sum())} of {B} rows have no legal slot; ids: {_ids(rows, illegal)}")
    chosen_illegal = ~columns["mask"][np.arange(B), np.asarray(rows["slot"], dtype=np.int64)]
    if chosen_illegal.any():
        raise ValueError(
            f"{int(chosen_illegal.sum())} of {B} rows chose an illegal slot; ids: {_ids(rows, chosen_illegal)}"
        )
    empty = ~columns[NEXT + "mask"].any(1)
    open_ended = empty & ~np.asarray(rows["terminated"], dtype=bool)
    if open_ended.any():
        raise ValueError(
            f"{int(open_ended.sum())} of {B} rows have no next decision and did not terminate; "
            f"ids: {_ids(rows, open_ended)}"
        )
    if empty.any():
        columns[NEXT + "mask"] = columns[NEXT + "mask"].copy()
        columns[NEXT + "mask"][empty, 0] = True
    columns["slot"] = np.asarray(rows["slot"], dtype=np.int64)
    columns["terminated"] = np.asarray(rows["terminated"], dtype=bool)
    for key in ("reward", "discount", "weight"):
        columns[key] = np.asarray(rows[key], dtype=np.float32)
    return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=B)


def _ids(rows: Mapping[str, np.ndarray], which: np.ndarray) -> list[int]:
    ids = rows.get("id", np.arange(len(which)))
    return ids[np.asarray(which, dtype=bool)][:5].tolist()
