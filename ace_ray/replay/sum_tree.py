"""A sum tree over a fixed number of leaves: set values, draw leaves in proportion to them, all vectorised."""

from __future__ import annotations

import numpy as np


class SumTree:
    """Complete binary tree in one array; node i has children 2i and 2i + 1, leaves start at `_base`.

    Parents are recomputed from their children instead of corrected by differences, so rounding never accumulates.

    Args:
        capacity: number of leaves.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a sum tree needs a leaf")
        self.capacity = capacity
        self._depth = max(1, (capacity - 1).bit_length())
        self._base = 1 << self._depth
        self._nodes = np.zeros(2 * self._base, dtype=np.float64)

    @property
    def total(self) -> float:
        """Sum of all leaves."""
        return float(self._nodes[1])

    def set(self, leaves: np.ndarray, values: np.ndarray) -> None:
        """Sets leaves (int [n]) to values (float [n] or a scalar, finite, none negative).

        Raises:
            IndexError: a leaf outside the tree.
            ValueError: a value that is negative or not finite.
        """
        leaves = np.atleast_1d(np.asarray(leaves, dtype=np.int64))
        values = np.broadcast_to(np.asarray(values, dtype=np.float64), leaves.shape)
        if leaves.size == 0:
            return
        if leaves.min() < 0 or leaves.max() >= self.capacity:
            raise IndexError("leaf outside the sum tree")
        if not np.isfinite(values).all() or values.min() < 0:
            raise ValueError("leaves of a sum tree are finite and not negative")
        self._nodes[leaves + self._base] = values
        parents = np.unique((leaves + self._base) >> 1)
        while parents[0] >= 1:
            self._nodes[parents] = self._nodes[2 * parents] + self._nodes[2 * parents + 1]
            if parents[0] == 1:
                break
            parents = np.unique(parents >> 1)

    def get(self, leaves: np.ndarray) -> np.ndarray:
        """Values of leaves (int [n])."""
        return self._nodes[np.asarray(leaves, dtype=np.int64) + self._base]

    def find(self, mass: np.ndarray) -> np.ndarray:
        """The leaf in which each mass (float [n], in [0, total)) falls; a leaf of value 0 is never returned.

        Raises:
            ValueError: if the tree is empty.
        """
        if self.total <= 0.0:
            raise ValueError("drawing from an empty sum tree")
        mass = np.array(mass, dtype=np.float64, copy=True)
        node = np.ones(mass.shape, dtype=np.int64)
        for _ in range(self._depth):
            left = self._nodes[2 * node]
            # Rounding may leave a mass at the very end of a subtree: never walk into one that sums to zero.
            right = ((mass >= left) & (self._nodes[2 * node + 1] > 0.0)) | (left <= 0.0)
            mass = np.where(right, np.maximum(mass - left, 0.0), mass)
            node = 2 * node + right
        return node - self._base

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n leaves drawn with replacement in proportion to their values, int64 [n]."""
        return self.find(rng.random(n) * self.total)
