"""The columns of decision states and transitions: one set of names from the rollout to the learner to the shards.

A decision state has K slots, each of which holds an action: F features a slot, and C features of the state as a whole.
A transition is one decision that was played and what followed until the next one. A batch of transitions holds the
columns of the next state under the same names with `next_` before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Protocol, Self, get_type_hints

import gymnasium
import numpy as np
from numpy.typing import NDArray

NEXT = "next_"
NO_STATE = -1
_FLOAT16_MAX = float(np.finfo(np.float16).max)


class Sizes(Protocol):
    """Whatever names K, F and C; the specification of a decision engine does."""

    @property
    def slots(self) -> int: ...
    @property
    def slot_features(self) -> int: ...
    @property
    def context_features(self) -> int: ...


@dataclass(frozen=True)
class StateShape:
    """Sizes of a decision state: K slots of F features each, and C context features."""

    slots: int
    slot_features: int
    context_features: int

    @classmethod
    def of(cls, sizes: Sizes) -> Self:
        """The sizes alone, without what else the object has."""
        return cls(sizes.slots, sizes.slot_features, sizes.context_features)


@dataclass(frozen=True)
class Column:
    """How one column is computed and kept.

    Attributes:
        dtype: Where it is made, and where networks read it.
        axes: Of one row: 'C', 'K', 'KF'; '' for a number.
        stored: In the table and the shards, where that differs from `dtype`.
        fill: Value where a row gives none; None: every row has to give one.
    """

    dtype: type[np.generic]
    axes: str = ""
    stored: type[np.generic] | None = None
    fill: Any = None

    @property
    def kept(self) -> type[np.generic]:
        """The type in the table and the shards."""
        return self.stored or self.dtype

    def keep(self, values: np.ndarray) -> np.ndarray:
        """Values in the kept type; those beyond its range take its largest."""
        values = np.asarray(values)
        if self.kept is np.float16 and values.dtype != np.float16:
            values = np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX)
        return values.astype(self.kept, copy=False)

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """Shape of one row."""
        axes = {"C": sizes.context_features, "K": sizes.slots, "F": sizes.slot_features}
        return tuple(axes[axis] for axis in self.axes)


class Observed(Protocol):
    """The part of a decision that a policy reads; columns as in `States`, one row."""

    @property
    def context(self) -> np.ndarray: ...
    @property
    def slots(self) -> np.ndarray: ...
    @property
    def mask(self) -> np.ndarray: ...
    @property
    def score(self) -> np.ndarray: ...


class Decided(Observed, Protocol):
    """The part of a decision that is stored."""

    @property
    def ids(self) -> np.ndarray: ...


@dataclass(frozen=True)
class States:
    """n decision states as columns.

    Attributes:
        id: [n] number of the state in its run.
        context: [n, C] features of the state.
        slots: [n, K, F] features of the slots.
        mask: [n, K] slots that may be played; slot 0 always.
        score: [n, K] of the decision engine: higher is better, the largest is greedy's.
        ids: [n, K] action in each slot by its number in the action catalogue; -1 where the slot is empty.
    """

    id: Annotated[NDArray[np.int64], Column(np.int64)]
    context: Annotated[NDArray[np.floating], Column(np.float32, "C", stored=np.float16)]
    slots: Annotated[NDArray[np.floating], Column(np.float32, "KF", stored=np.float16)]
    mask: Annotated[NDArray[np.bool_], Column(np.bool_, "K")]
    score: Annotated[NDArray[np.float32], Column(np.float32, "K")]
    ids: Annotated[NDArray[np.int32], Column(np.int32, "K")]

    @classmethod
    def of(cls, state_id: int, decision: Decided) -> Self:
        """One state: its number and the decision that was to be made there."""
        arrays = (np.asarray(getattr(decision, name))[None] for name in STATE_COLUMNS)
        return cls(np.array([state_id], np.int64), *arrays)

    @classmethod
    def none(cls) -> Self:
        """No state."""
        empty = (np.empty((0,) * (1 + len(column.axes)), column.dtype) for column in STATE_COLUMNS.values())
        return cls(np.empty(0, np.int64), *empty)

    @classmethod
    def concat(cls, parts: Sequence[States]) -> Self:
        """All states of the parts, in order."""
        if not parts:
            return cls.none()
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))

    def __len__(self) -> int:
        return len(self.id)


STATE_COLUMNS: dict[str, Column] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(States, include_extras=True).items()
    if hint.__metadata__[0].axes
}
"""The columns of `States` that hold an array a state: all but `id`."""

OBSERVED = ("context", "slots", "mask", "score")
"""The columns that networks read."""

TRANSITION_COLUMNS: dict[str, Column] = {
    "id": Column(np.int64),
    "state_id": Column(np.int64),
    "next_id": Column(np.int64, fill=NO_STATE),  # of the next state; -1 after a blackout
    "parent_id": Column(np.int64, fill=-1),  # of a refiner's row: the original transition
    "source": Column(np.int8, fill=0),  # who chose, as a number; the shards hold the name
    "slot": Column(np.int16, fill=0),  # that was chosen
    "catalogue_id": Column(np.int32, fill=0),  # of the action in it
    "steps": Column(np.int32, fill=1),  # k environment steps until the next decision
    "reward": Column(np.float32, fill=0.0),  # sum of gamma^i r_i over the k steps, edits included
    "original_reward": Column(np.float32, fill=np.nan),  # without edits
    "discount": Column(np.float32, fill=1.0),  # gamma^k
    "terminated": Column(np.bool_, fill=False),  # by a blackout
    "truncated": Column(np.bool_, fill=False),  # by the end of the scenario
    "policy_version": Column(np.int32, fill=-1),  # learner updates behind the policy that chose; -1: not the policy
    "valid": Column(np.bool_, fill=False),  # I_v
    "advantage": Column(np.float32, fill=np.nan),  # of a refined action over the original, by replay
}
"""What the replay table keeps of a transition; the shards keep more (replay/records.py)."""


def observation(decision: Observed) -> dict[str, np.ndarray]:
    """What a network reads of one decision, in the types that it reads."""
    return {name: np.asarray(getattr(decision, name), STATE_COLUMNS[name].dtype) for name in OBSERVED}


def no_observation(sizes: Sizes) -> dict[str, np.ndarray]:
    """The observation where there is nothing to decide: zeros, slot 0 legal."""
    empty = {name: np.zeros(STATE_COLUMNS[name].shape(sizes), STATE_COLUMNS[name].dtype) for name in OBSERVED}
    empty["mask"][0] = True
    return empty


def observation_space(sizes: Sizes) -> gymnasium.spaces.Dict:
    """The space of `observation`."""
    spaces: dict[str, gymnasium.Space] = {}
    for name in OBSERVED:
        column = STATE_COLUMNS[name]
        shape = column.shape(sizes)
        if column.dtype is np.bool_:
            spaces[name] = gymnasium.spaces.MultiBinary(shape[0])
        else:
            spaces[name] = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
    return gymnasium.spaces.Dict(spaces)
