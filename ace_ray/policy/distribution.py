"""Distributions over the legal slots of a decision.

Illegal slots have probability 0 and log-probability -inf; stock code then multiplies 0 by -inf and learns NaN. Every
sum here runs over legal slots only: masked entries are replaced *before* the product, so values and gradients stay
finite. All functions take `logits` [..., K] (illegal entries ignored, may be -inf) and `mask` [..., K] bool with a
legal slot in each row.
"""

import torch
from torch import Tensor


def log_probabilities(logits: Tensor, mask: Tensor) -> Tensor:
    """log pi at legal slots, 0 at illegal ones (safe to multiply); [..., K]."""
    # The fill happens before log_softmax as well: -inf minus a maximum has no finite gradient.
    finite = logits.masked_fill(~mask, torch.finfo(logits.dtype).min / 2)
    return torch.log_softmax(finite, -1).masked_fill(~mask, 0.0)


def probabilities(logits: Tensor, mask: Tensor) -> Tensor:
    """pi, 0 at illegal slots; [..., K]."""
    return torch.exp(log_probabilities(logits, mask)).masked_fill(~mask, 0.0)


def expectation(probability: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Sum over legal slots of pi(a) value(a), whatever `value` holds at illegal ones; [..., K] -> [...]."""
    return (probability * value.masked_fill(~mask, 0.0)).sum(-1)


def entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """H(pi) in nats; [..., K] -> [...]."""
    return -expectation(probabilities(logits, mask), log_probabilities(logits, mask), mask)


def kl(logits: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """KL(pi || pi_ref) in nats, both over the same legal slots; [..., K] -> [...]."""
    gap = log_probabilities(logits, mask) - log_probabilities(reference, mask)
    return expectation(probabilities(logits, mask), gap, mask)
