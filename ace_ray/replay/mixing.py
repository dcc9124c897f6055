"""The mixing rule of ACE (docs/method.md, eqs. 6-9): pure functions of numbers, no table and no Ray.

Two readings of the paper are deliberate and configurable: the temperature of w_r has a name of its own (tau, where the
paper prints beta twice), and r_hat - r is the difference of returns over one common horizon, standardised by a running
scale, because rewards up to the next decision span different lengths and disagree with it (docs/method.md).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ace_ray.domain import Verdict


def p_mix(n_rl: int, priority: np.ndarray, beta: float) -> tuple[float, np.ndarray]:
    """Sampling probabilities of the mixed buffer, eq. (9).

    Args:
        n_rl: number of transitions in D_RL.
        priority: I_v * w_r of each transition in D_LLM, shape [n_llm], none negative.
        beta: share of refined transitions.

    Returns:
        Probability of each transition of D_RL (one number, since it is uniform) and those of D_LLM, shape [n_llm].
        Where one of the two holds nothing that may be drawn, the other takes the whole mass.

    Raises:
        ValueError: if nothing can be drawn at all.
    """
    priority = np.asarray(priority, dtype=np.float64)
    mass = float(priority.sum())
    if n_rl <= 0 and mass <= 0.0:
        raise ValueError("p_mix of an empty buffer")
    if mass <= 0.0:
        return 1.0 / n_rl, np.zeros_like(priority)
    if n_rl <= 0:
        return 0.0, priority / mass
    return (1.0 - beta) / n_rl, beta * priority / mass


def refined_share(n: int, beta: float, u: float) -> int:
    """Rows of a batch of n that come from D_LLM: beta * n, rounded at random (u in [0, 1)) so that its mean is exact.

    The marginal probability of each row is that of eq. (9); the variance is the least that whole numbers allow.
    """
    return int(math.floor(beta * n + u))


def reward_weight(
    advantage: np.ndarray, scale: float, tau: float, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """w_r = exp((r_hat - r) / tau), eq. (8), clipped to [low, high].

    Args:
        advantage: r_hat - r over the common horizon, any shape.
        scale: running scale of the advantage (1 for the paper's unscaled formula).
        tau: temperature.
        low, high: bounds of the weight.

    Returns:
        The weights and a bool array of the same shape that says where the clip changed the value.
    """
    exponent = np.asarray(advantage, dtype=np.float64) / (scale * tau)
    # The exponent is bounded before exp, so that a huge advantage is clipped and not infinite.
    raw = np.exp(np.clip(exponent, math.log(low) - 1.0, math.log(high) + 1.0))
    clipped = np.clip(raw, low, high)
    return clipped, clipped != raw


def ramped(beta: float, valid: int, ramp: int) -> float:
    """The share of D_LLM while it holds few rows: beta in proportion to its valid rows, up to `ramp` of them."""
    return beta * min(1.0, valid / ramp)


def validity(
    mode: Literal["survives", "better", "paper"], verdict: Verdict, survived: bool, reward: float, terminated: bool
) -> bool:
    """I_v of a refined transition.

    Args:
        mode: 'survives': the replay judged it better than the original, and it was alive at the end of the horizon;
            'better': the first of these alone; 'paper': r_hat >= 0 and not d_hat, eq. (7).
        verdict: of the refined action against the played one over the common horizon.
        survived: whether the refined action was alive at the end of the horizon.
        reward: r_hat, original (never a critic's edit).
        terminated: d_hat, whether the refined transition ends in a blackout.
    """
    if mode == "survives":
        return verdict == "better" and survived
    if mode == "better":
        return verdict == "better"
    return reward >= 0.0 and not terminated


class RunningScale:
    """Root mean square of the advantages seen, recent ones counting more: the unit in which w_r measures a gain.

    No mean is subtracted: the sign of an advantage has a meaning. Feeding the same advantages in the same order gives
    the same scale, so it is derived again on resume and never stored.
    """

    def __init__(self, decay: float = 0.99, floor: float = 1e-6) -> None:
        self._decay = decay
        self._floor = floor
        self._sum = 0.0
        self._count = 0.0

    def update(self, advantage: float) -> None:
        """Takes one advantage into account; what is not finite is ignored."""
        if math.isfinite(advantage):
            self._sum = self._decay * self._sum + advantage * advantage
            self._count = self._decay * self._count + 1.0

    @property
    def value(self) -> float:
        """The present scale, 1 before the first advantage."""
        if self._count == 0.0:
            return 1.0
        return max(math.sqrt(self._sum / self._count), self._floor)
