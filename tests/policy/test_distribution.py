"""Masked distributions against NumPy in double precision: any mask with a legal slot, no NaN, finite gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ace_ray.policy import distribution

pytestmark = pytest.mark.unit

K = 6
logits_rows = hnp.arrays(np.float64, (3, K), elements=st.floats(-60, 60))
masks = hnp.arrays(bool, (3, K)).map(lambda m: np.where(m.any(1, keepdims=True), m, np.arange(K) == K - 1))
one_legal = st.integers(0, K - 1).map(lambda i: np.tile(np.arange(K) == i, (3, 1)))
all_legal = st.just(np.ones((3, K), bool))
any_mask = st.one_of(masks, one_legal, all_legal)


def reference(logits: np.ndarray, mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per row: probabilities and log-probabilities of the legal slots alone."""
    rows = []
    for row, legal in zip(logits, mask, strict=True):
        x = row[legal]
        logp = x - x.max() - np.log(np.exp(x - x.max()).sum())
        rows.append((np.exp(logp), logp))
    return rows


@given(logits_rows, any_mask)
@settings(max_examples=150, deadline=None)
def test_probabilities_and_entropy_match_numpy(logits, mask):
    t, m = torch.as_tensor(np.where(mask, logits, -np.inf)), torch.as_tensor(mask)
    p, logp = distribution.probabilities(t, m).numpy(), distribution.log_probabilities(t, m).numpy()
    h = distribution.entropy(t, m).numpy()
    for i, (p_ref, logp_ref) in enumerate(reference(logits, mask)):
        np.testing.assert_allclose(p[i][mask[i]], p_ref, atol=1e-12)
        np.testing.assert_allclose(logp[i][mask[i]], logp_ref, atol=1e-10)
        assert (p[i][~mask[i]] == 0).all() and (logp[i][~mask[i]] == 0).all()
        np.testing.assert_allclose(h[i], -(p_ref * logp_ref).sum(), atol=1e-9)


@given(logits_rows, logits_rows, any_mask)
@settings(max_examples=150, deadline=None)
def test_kl_matches_numpy_and_is_zero_on_itself(logits, other, mask):
    t, o = (torch.as_tensor(np.where(mask, x, -np.inf)) for x in (logits, other))
    m = torch.as_tensor(mask)
    got = distribution.kl(t, o, m).numpy()
    for i, ((p, logp), (_, logq)) in enumerate(zip(reference(logits, mask), reference(other, mask), strict=True)):
        np.testing.assert_allclose(got[i], (p * (logp - logq)).sum(), atol=1e-8)
    assert (got > -1e-9).all()
    np.testing.assert_allclose(distribution.kl(t, t, m).numpy(), 0.0, atol=1e-12)


@given(logits_rows, any_mask)
@settings(max_examples=100, deadline=None)
def test_gradients_are_finite_and_zero_at_illegal_slots(logits, mask):
    m = torch.as_tensor(mask)
    t = torch.as_tensor(np.where(mask, logits, -np.inf), dtype=torch.float32).requires_grad_()
    reference_logits = torch.zeros_like(t).masked_fill(~m, -torch.inf)
    value = torch.full_like(t, 3.0).masked_fill(~m, torch.nan)  # an illegal slot's value must not leak
    loss = (
        distribution.entropy(t, m)
        + distribution.kl(t, reference_logits, m)
        + distribution.expectation(distribution.probabilities(t, m), value, m)
    ).sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(t.grad).all()
    assert (t.grad[~m] == 0).all()


def test_one_legal_slot_is_certain():
    mask = torch.tensor([[False, True, False]])
    logits = torch.tensor([[9.0, -4.0, 2.0]])
    assert distribution.probabilities(logits, mask).tolist() == [[0.0, 1.0, 0.0]]
    assert distribution.entropy(logits, mask).item() == 0.0
