"""Masked discrete SAC, as pure functions (docs/method.md, eqs. 1-3 and 10).

Notation: s a decision, a one of its legal slots, pi the policy, Q the minimum of the twin. Both regularisers are one
    formula with a *reference* log-probability (`log_reference`): log pi_0 for `kl`, 0 for `entropy`,

    regularisation(s) = sum_a pi(a|s) (log pi(a|s) - log_reference(a|s))     = KL(pi || pi_0)   or   -H(pi)

All expectations run over legal slots only (policy.distribution); every function takes and returns tensors with the
batch first.
"""

from typing import Literal

import torch
from torch import Tensor

from ace_ray.config.learning import LearnerSettings
from ace_ray.policy import distribution


def log_reference(prior: Tensor, mask: Tensor, regulariser: Literal["kl", "entropy"]) -> Tensor:
    """What the policy is held to: log pi_0 from the prior's logits, or 0 (uniform, up to a constant). [B, K]."""
    if regulariser == "entropy":
        return torch.zeros_like(prior)
    return distribution.log_probabilities(prior, mask)


def regularisation(logits: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """sum_a pi (log pi - log_reference); [B, K] -> [B] in nats."""
    gap = distribution.log_probabilities(logits, mask) - reference
    return distribution.expectation(distribution.probabilities(logits, mask), gap, mask)


def soft_value(logits: Tensor, reference: Tensor, q: Tensor, mask: Tensor, alpha: Tensor) -> Tensor:
    """V(s) = sum_a pi Q - alpha regularisation(s): the bracket of eq. (2) in expectation over slots. [B, K] -> [B]."""
    mean_q = distribution.expectation(distribution.probabilities(logits, mask), q, mask)
    return mean_q - alpha * regularisation(logits, reference, mask)


def td_target(reward: Tensor, discount: Tensor, terminated: Tensor, next_value: Tensor) -> Tensor:
    """y of eq. (2) over k environment steps: reward + gamma^k V(s'), without V after a blackout.

    Args:
        reward: [B], sum of gamma^i r_i over the k steps of the transition.
        discount: [B], gamma^k.
        terminated: [B] bool. A truncated row (end of the scenario) bootstraps.
        next_value: [B], soft value of the next decision under the target networks.
    """
    return reward + discount * next_value.masked_fill(terminated, 0.0)


def q_loss(q: Tensor, slot: Tensor, target: Tensor) -> Tensor:
    """Eq. (2) of one network: squared error at the chosen slot, refined rows unweighted. [B, K], [B], [B] -> []."""
    chosen = q.gather(-1, slot.unsqueeze(-1)).squeeze(-1)
    return (chosen - target).square().mean()


def policy_loss(logits: Tensor, reference: Tensor, q: Tensor, mask: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """Eq. (10): mean of w_r (alpha regularisation - E_pi Q). No gradient flows into `q` or `alpha`.

    Args:
        logits: [B, K].
        reference: [B, K].
        q: [B, K], minimum of the twin.
        mask: [B, K] bool.
        alpha: [], temperature.
        weight: [B], w_r; 1 for rows of the agent's own.
    """
    return -(weight * soft_value(logits, reference, q.detach(), mask, alpha.detach())).mean()


def budget(mask: Tensor, settings: LearnerSettings) -> Tensor:
    """The per-state level at which the temperature holds the regularisation; [B, K] -> [B].

    `kl`: `kl_budget` nats, 0 where one slot is legal (no policy can differ there).
    `entropy`: minus `entropy_share` log(number of legal slots).
    """
    legal = mask.sum(-1)
    if settings.regulariser == "kl":
        return torch.where(legal > 1, settings.kl_budget, 0.0)
    return -settings.entropy_share * torch.log(legal.to(torch.float32))


def temperature_loss(log_alpha: Tensor, spent: Tensor, allowed: Tensor) -> Tensor:
    """Dual step of the temperature: more than allowed raises alpha, less lowers it.

    Args:
        log_alpha: [].
        spent: [B], regularisation of the present policy (no gradient flows into it).
        allowed: [B], `budget`.
    """
    return log_alpha * (allowed - spent.detach()).mean()
