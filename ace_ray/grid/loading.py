"""Loadings as whole percent, as prompts and the comparison of effects use them."""

import numpy as np
from numpy.typing import NDArray

COLLAPSE = 500
"""Percent from which a prediction means a collapse: no power flow solution, or a part of the grid cut off."""


def percent(rho: float) -> int:
    """A loading (1.0 = thermal limit) as whole percent; what has no power flow, or is as bad, counts as a collapse."""
    return COLLAPSE if not np.isfinite(rho) else min(COLLAPSE, round(100 * float(rho)))


def worst(rho: NDArray) -> int:
    """Index of the highest entry (no solution counts as highest), -1 for an empty row."""
    return int(np.argmax(np.nan_to_num(rho, nan=np.inf))) if rho.size else -1
