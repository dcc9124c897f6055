"""The pool of decision states: each state is stored once and lives as long as a transition refers to it."""

from __future__ import annotations

import numpy as np

from ace_ray.schema import STATE_COLUMNS, States, StateShape


class StatePool:
    """Columnar rows [capacity, ...] with reference counts and a free list.

    Freed rows are reused last-in first-out, so that memory is touched (and therefore committed) only as far as
    states were alive at once.
    """

    def __init__(self, shape: StateShape, capacity: int) -> None:
        self.shape = shape
        self.capacity = capacity
        self.columns: dict[str, np.ndarray] = {
            name: np.zeros((capacity, *column.shape(shape)), column.kept) for name, column in STATE_COLUMNS.items()
        }
        self.id = np.full(capacity, -1, np.int64)
        self.references = np.zeros(capacity, np.int32)
        self._row: dict[int, int] = {}
        self._free: list[int] = []
        self._used = 0

    def __len__(self) -> int:
        return len(self._row)

    def row(self, state_id: int) -> int | None:
        """Row of a state, None when it is not (or no longer) here."""
        return self._row.get(int(state_id))

    def add(self, states: States) -> None:
        """Stores states; an id that is already here is overwritten in place (the latest record wins).

        Raises:
            ValueError: a column of the wrong shape.
            MemoryError: more states alive than the pool holds.
        """
        if len(states) == 0:
            return
        for name, target in self.columns.items():
            shape = getattr(states, name).shape
            if shape != (len(states), *target.shape[1:]):
                raise ValueError(f"state column {name} has shape {shape}, not {target.shape[1:]} a row")
        rows = np.empty(len(states), np.int64)
        for i, state_id in enumerate(states.id.tolist()):
            row = self._row.get(state_id)
            if row is None:
                row = self._claim()
                self._row[state_id] = row
                self.id[row] = state_id
            rows[i] = row
        for name, column in STATE_COLUMNS.items():
            self.columns[name][rows] = column.keep(getattr(states, name))

    def hold(self, rows: np.ndarray) -> None:
        """Adds one reference to each row (repeats count); negative rows stand for 'no state'."""
        np.add.at(self.references, rows[rows >= 0], 1)

    def release(self, rows: np.ndarray) -> None:
        """Takes one reference from each row and frees those that nothing refers to any more."""
        rows = rows[rows >= 0]
        np.subtract.at(self.references, rows, 1)
        self.free_unreferenced(np.unique(rows))

    def free_unreferenced(self, rows: np.ndarray) -> None:
        """Frees those of the rows that nothing refers to."""
        for row in rows[self.references[rows] <= 0].tolist():
            del self._row[int(self.id[row])]
            self.id[row] = -1
            self.references[row] = 0
            self._free.append(row)

    def _claim(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used == self.capacity:
            raise MemoryError("replay: more states alive than the pool holds; raise replay.capacity")
        self._used += 1
        return self._used - 1
