"""The replay table: D_RL and the refined ring D_LLM over one pool of states, drawn from by eq. (9).

Rows [0, capacity) are D_RL, drawn uniformly; rows [capacity, capacity + refined_capacity) are D_LLM, drawn by
I_v * w_r. A transition names its state and its next state by id; the next state is the state row of the next decision,
so each state is stored once, in float16. Original rewards decide validity and weight; only `reward`, which the Q target
sees, carries the critic's edits.

Eviction: D_LLM forgets its oldest; D_RL forgets its oldest row that nothing pins. The original of a refined row, and
that of a refinement still pending, are pinned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ace_ray.config.learning import MixingSettings, ReplaySettings
from ace_ray.replay.mixing import RunningScale, p_mix, ramped, refined_share, reward_weight
from ace_ray.replay.states import StatePool
from ace_ray.replay.sum_tree import SumTree
from ace_ray.schema import NEXT, NO_STATE, OBSERVED, TRANSITION_COLUMNS, States, StateShape


class ReplayTable:
    """See the module.

    Args:
        shape: sizes of a state.
        replay: capacities.
        mixing: beta, tau, clips.
        seed: of the draws.
    """

    def __init__(self, shape: StateShape, replay: ReplaySettings, mixing: MixingSettings, seed: int = 0) -> None:
        self.capacity = replay.capacity
        self.refined_capacity = replay.refined_capacity
        self.mixing = mixing
        total = self.capacity + self.refined_capacity
        # A row refers to at most two states; the margin holds a fragment that arrives before old rows leave.
        self.states = StatePool(shape, 2 * total + 4096)
        self.columns: dict[str, np.ndarray] = {
            name: np.full(total, column.fill or 0, column.kept) for name, column in TRANSITION_COLUMNS.items()
        }
        self._state_row = np.full(total, NO_STATE, np.int64)
        self._next_row = np.full(total, NO_STATE, np.int64)
        self._pins = np.zeros(total, np.int32)
        self._weight = np.ones(total, np.float32)
        self._row: dict[int, int] = {}
        self._size = 0
        self._cursor = 0
        self._refined_size = 0
        self._refined_cursor = 0
        self._tree = SumTree(self.refined_capacity)
        self._scale = RunningScale()
        self._clipped = 0.0
        self._rng = np.random.default_rng(seed)
        self.lost = 0

    def append(self, states: States, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Stores states and ordinary transitions (rollout's own, and losing or tied rounds of a refinement).

        Args:
            states: What the transitions refer to; a state that came before need not come again.
            transitions: columns of TRANSITION_COLUMNS, each [n]; 'id', 'state_id', 'slot' and 'reward' at least.

        Returns:
            Ids stored, in order. A transition whose state or next state is not here is left out and counted in `lost`;
            one that is here already is not stored twice.
        """
        kept, state_rows, next_rows = self._link(states, transitions)
        # In parts, so that more rows at once than there is room for leave the newest instead of failing.
        part = max(1, self.capacity // 2)
        for start in range(0, len(kept), part):
            chosen = slice(start, start + part)
            rows = self._claim(len(kept[chosen]))
            self._write(rows, transitions, kept[chosen], state_rows[chosen], next_rows[chosen])
        self._drop_orphans(states)
        return np.asarray(transitions["id"], np.int64)[kept]

    def add_refinement(self, states: States, transition: dict[str, np.ndarray]) -> bool:
        """Stores one refined transition in D_LLM (columns of length 1, 'valid' and 'advantage' among them).

        Its original, when it is still here, is kept as long as the refined row. Returns False when a state is missing.
        """
        kept, state_rows, next_rows = self._link(states, transition)
        if len(kept) != 1:
            self._drop_orphans(states)
            return False
        row = self.capacity + self._refined_cursor
        self._refined_cursor = (self._refined_cursor + 1) % self.refined_capacity
        if self.refined_full:
            self._evict(np.array([row]))
        else:
            self._refined_size += 1
        self._write(np.array([row]), transition, kept, state_rows, next_rows)
        self.pin(int(self.columns["parent_id"][row]))
        self._scale.update(float(self.columns["advantage"][row]))
        self._reweigh()
        self._drop_orphans(states)
        return True

    def apply_edit(self, transition_id: int, delta: float) -> bool:
        """The critic's edit: reward = original reward + delta, in place. Returns False when the row is gone."""
        row = self._row.get(int(transition_id))
        if row is None:
            return False
        self.columns["reward"][row] = self.columns["original_reward"][row] + delta
        return True

    def pin(self, transition_id: int) -> bool:
        """Keeps a row from eviction until `unpin`; False when it is not here."""
        row = self._row.get(int(transition_id))
        if row is None:
            return False
        self._pins[row] += 1
        return True

    def unpin(self, transition_id: int) -> None:
        """Undoes one `pin`."""
        row = self._row.get(int(transition_id))
        if row is not None and self._pins[row] > 0:
            self._pins[row] -= 1

    def get(self, transition_id: int) -> dict[str, Any] | None:
        """All columns of one transition, 'weight' included, None when it is gone."""
        row = self._row.get(int(transition_id))
        if row is None:
            return None
        found = {name: column[row].item() for name, column in self.columns.items()}
        found["weight"] = float(self._weight[row])
        found["refined"] = row >= self.capacity
        return found

    def sample(self, n: int, beta: float | None = None) -> dict[str, np.ndarray]:
        """n transitions drawn with replacement by eq. (9).

        Returns:
            The columns OBSERVED of the state, in the types that networks read, [n, ...] each; the same of the next
            state with `next_` before them (zeros with slot 0 legal after a blackout); and [n] each: 'id', 'slot' int64,
            'reward', 'discount' (gamma^k), 'terminated' bool, 'truncated' bool, 'weight' (w_r; 1 in D_RL),
            'policy_version' int64, 'source' int8, 'refined' bool.

        Raises:
            ValueError: nothing to draw from.
        """
        beta = self.share if beta is None else beta
        mass = self._tree.total
        if self._size == 0 and mass <= 0.0:
            raise ValueError("replay: sample of an empty table")
        k = refined_share(n, beta, float(self._rng.random())) if mass > 0.0 else 0
        if self._size == 0:
            k = n
        plain = self._rng.integers(0, self._size, n - k) if n > k else np.empty(0, np.int64)
        refined = self._tree.sample(k, self._rng) + self.capacity if k else np.empty(0, np.int64)
        return self._gather(np.concatenate([plain, refined]))

    def probabilities(self, beta: float | None = None) -> tuple[float, np.ndarray]:
        """Eq. (9) of the present table: of each row of D_RL, and of each filled row of D_LLM in ring order."""
        leaves = np.arange(self._refined_size)
        return p_mix(self._size, self._tree.get(leaves), self.share if beta is None else beta)

    def pairs(self) -> dict[str, np.ndarray]:
        """What was played and what a refinement found better, in one state each.

        Returns:
            OBSERVED of the states, [n, ...] each, `slot` int64 [n] of the refined action and `played` int64 [n] of the
            original one; n valid rows of D_LLM whose original has a legal slot there and is still in the table.
        """
        rows, played = [], []
        for row in range(self.capacity, self.capacity + self._refined_size):
            parent = self._row.get(int(self.columns["parent_id"][row]))
            if parent is None or not self.columns["valid"][row]:
                continue
            action = self.states.columns["ids"][self._state_row[parent]][self.columns["slot"][parent]]
            state = self._state_row[row]
            slots = np.flatnonzero((self.states.columns["ids"][state] == action) & self.states.columns["mask"][state])
            if slots.size:
                rows.append(row)
                played.append(int(slots[0]))
        state = self._state_row[np.array(rows, np.int64)]
        found = {name: _widen(self.states.columns[name][state]) for name in OBSERVED}
        return found | {
            "slot": self.columns["slot"][rows].astype(np.int64) if rows else np.zeros(0, np.int64),
            "played": np.array(played, np.int64),
        }

    @property
    def valid(self) -> int:
        """Rows of D_LLM that may be drawn."""
        return int(self.columns["valid"][self.capacity : self.capacity + self._refined_size].sum())

    @property
    def share(self) -> float:
        """The share of D_LLM in a batch, beta of eq. (9), which grows with it (`mixing.ramped`)."""
        return ramped(self.mixing.beta, self.valid, self.mixing.ramp)

    @property
    def refined(self) -> int:
        """Rows of D_LLM."""
        return self._refined_size

    @property
    def refined_full(self) -> bool:
        """Whether D_LLM has been filled."""
        return self._refined_size == self.refined_capacity

    def stats(self) -> dict[str, float]:
        """Sizes, valid share, w_r and its clipped share, pinned rows, lost rows."""
        refined = slice(self.capacity, self.capacity + self._refined_size)
        n = max(1, self._refined_size)
        return {
            "transitions": self._size,
            "refined": self._refined_size,
            "refined_full": float(self.refined_full),
            "refined_valid_share": self.valid / n,
            "refined_share": self.share,
            "states": len(self.states),
            "pinned": int((self._pins > 0).sum()),
            "weight_mean": float(self._weight[refined].mean()) if self._refined_size else 1.0,
            "weight_clipped_share": self._clipped,
            "advantage_scale": self._scale.value,
            "lost": self.lost,
        }

    # --- inside ---------------------------------------------------------------------------------------------------

    def _link(self, states: States, transitions: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stores the states, holds what the transitions refer to: indices that can be stored, their state and next
        rows."""
        self.states.add(states)
        ids = np.asarray(transitions["state_id"], np.int64)
        next_ids = np.asarray(transitions.get("next_id", np.full(len(ids), NO_STATE)), np.int64)
        state_rows = np.array([self._lookup(i) for i in ids], np.int64)
        next_rows = np.array([self._lookup(i) for i in next_ids], np.int64)
        linked = (state_rows != NO_STATE) & ((next_rows != NO_STATE) | (next_ids == NO_STATE))
        self.lost += int((~linked).sum())
        known = np.array([int(i) in self._row for i in transitions["id"]], np.bool_)
        kept = np.flatnonzero(linked & ~known)
        state_rows, next_rows = state_rows[kept], next_rows[kept]
        # Held before anything is evicted: the row that leaves may be the last that refers to one of these states.
        self.states.hold(state_rows)
        self.states.hold(next_rows)
        return kept, state_rows, next_rows

    def _lookup(self, state_id: int) -> int:
        row = self.states.row(state_id)
        return NO_STATE if row is None else row

    def _drop_orphans(self, states: States) -> None:
        rows = np.array([self._lookup(i) for i in states.id.tolist()], np.int64)
        self.states.free_unreferenced(np.unique(rows[rows != NO_STATE]))

    def _claim(self, n: int) -> np.ndarray:
        """Rows of D_RL for n transitions, the oldest that nothing pins evicted where needed."""
        fresh = min(n, self.capacity - self._size)
        rows = list(range(self._size, self._size + fresh))
        self._size += fresh
        looked = 0
        evicted: list[int] = []
        while len(rows) + len(evicted) < n:
            if looked == self.capacity:
                raise MemoryError("replay: every row is pinned by a refinement; raise replay.capacity")
            if self._pins[self._cursor] == 0 and self._cursor not in rows:
                evicted.append(self._cursor)
            self._cursor = (self._cursor + 1) % self.capacity
            looked += 1
        if evicted:
            self._evict(np.array(evicted))
        return np.array(rows + evicted, np.int64)

    def _evict(self, rows: np.ndarray) -> None:
        for row in rows.tolist():
            del self._row[int(self.columns["id"][row])]
            if row >= self.capacity:
                self.unpin(int(self.columns["parent_id"][row]))
                self._tree.set(np.array([row - self.capacity]), np.zeros(1))
        self._pins[rows] = 0
        self.states.release(np.concatenate([self._state_row[rows], self._next_row[rows]]))

    def _write(
        self,
        rows: np.ndarray,
        transitions: dict[str, np.ndarray],
        kept: np.ndarray,
        state_rows: np.ndarray,
        next_rows: np.ndarray,
    ) -> None:
        for name, column in TRANSITION_COLUMNS.items():
            values = transitions.get(name)
            self.columns[name][rows] = column.fill if values is None else column.keep(values)[kept]
        if "original_reward" not in transitions:
            self.columns["original_reward"][rows] = self.columns["reward"][rows]
        self._state_row[rows] = state_rows
        self._next_row[rows] = next_rows
        self._weight[rows] = 1.0
        for row in rows.tolist():
            self._row[int(self.columns["id"][row])] = row

    def _reweigh(self) -> None:
        """w_r and priority of the whole refined ring: the scale moved for all of them."""
        rows = np.arange(self.capacity, self.capacity + self._refined_size)
        advantage = np.nan_to_num(self.columns["advantage"][rows])
        m = self.mixing
        weight, clipped = reward_weight(advantage, self._scale.value, m.tau, m.weight_min, m.weight_max)
        self._weight[rows] = weight
        self._clipped = float(clipped.mean())
        self._tree.set(rows - self.capacity, weight * self.columns["valid"][rows])

    def _gather(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        state, following = self._state_row[rows], self._next_row[rows]
        ends = following == NO_STATE
        batch: dict[str, np.ndarray] = {}
        for name in OBSERVED:
            column = self.states.columns[name]
            batch[name] = _widen(column[state])
            batch[NEXT + name] = _widen(column[np.where(ends, 0, following)])
            batch[NEXT + name][ends] = 0
        batch[f"{NEXT}mask"][ends, 0] = True
        for name in ("id", "reward", "discount", "terminated", "truncated", "source"):
            batch[name] = self.columns[name][rows]
        batch["slot"] = self.columns["slot"][rows].astype(np.int64)
        batch["policy_version"] = self.columns["policy_version"][rows].astype(np.int64)
        batch["weight"] = self._weight[rows]
        batch["refined"] = rows >= self.capacity
        return batch


# Every float16 as float32: a look-up is three times as fast as NumPy's own conversion, which runs bit by bit.
_FLOAT32 = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _widen(values: np.ndarray) -> np.ndarray:
    """float16 as float32; anything else as it is."""
    return np.take(_FLOAT32, values.view(np.uint16)) if values.dtype == np.float16 else values
