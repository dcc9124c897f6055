"""SAC losses against an independent NumPy reference: loops over rows and legal slots, no masks, double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ace_ray.config.learning import LearnerSettings
from ace_ray.learner import losses

pytestmark = pytest.mark.unit


def batch(seed: int, legal: str, B: int = 5, K: int = 7) -> dict[str, np.ndarray]:
    """Random losses' inputs; `legal`: 'one', 'all' or 'some' slots a row."""
    rng = np.random.default_rng(seed)
    masks = {
        "one": np.arange(K) == rng.integers(K, size=(B, 1)),
        "all": np.ones((B, K), bool),
        "some": rng.random((B, K)) < 0.5,
    }
    rows = {"mask": masks[legal], "next_mask": masks[legal][::-1].copy()}
    for key in ("mask", "next_mask"):
        rows[key][np.arange(B), rng.integers(K, size=B)] |= legal == "some"
    for key in ("logits", "prior", "next_logits", "next_prior"):
        rows[key] = np.where(rows["next_mask" if "next" in key else "mask"], rng.normal(0, 8, (B, K)), -np.inf)
    for key in ("q1", "q2", "next_q1", "next_q2"):
        rows[key] = rng.normal(0, 3, (B, K))
    rows |= {
        "slot": np.array([rng.choice(np.flatnonzero(m)) for m in rows["mask"]]),
        "reward": rng.normal(size=B),
        "discount": 0.995 ** rng.integers(1, 300, B),
        "terminated": rng.random(B) < 0.4,
        "weight": rng.uniform(0.1, 10, B),
    }
    return rows


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def reference(r: dict[str, np.ndarray], alpha: float, kind: str) -> dict[str, float]:
    """Eqs. (2), (3), (10) written out row by row."""
    q_errors, policy_terms, spent = [], [], []
    for i in range(len(r["slot"])):
        nm = r["next_mask"][i]
        pi, pi0 = softmax(r["next_logits"][i][nm]), softmax(r["next_prior"][i][nm])
        ratio = np.log(pi / pi0) if kind == "kl" else np.log(pi)
        q = np.minimum(r["next_q1"][i], r["next_q2"][i])[nm]
        y = r["reward"][i]
        if not r["terminated"][i]:
            y += r["discount"][i] * sum(p * (q_a - alpha * g) for p, q_a, g in zip(pi, q, ratio, strict=True))
        a = r["slot"][i]
        q_errors.append((r["q1"][i, a] - y) ** 2 + (r["q2"][i, a] - y) ** 2)
        m = r["mask"][i]
        pi, pi0 = softmax(r["logits"][i][m]), softmax(r["prior"][i][m])
        ratio = np.log(pi / pi0) if kind == "kl" else np.log(pi)
        q = np.minimum(r["q1"][i], r["q2"][i])[m]
        policy_terms.append(r["weight"][i] * sum(p * (alpha * g - q_a) for p, q_a, g in zip(pi, q, ratio, strict=True)))
        spent.append(float((pi * ratio).sum()))
    return {"q": np.mean(q_errors), "policy": np.mean(policy_terms), "spent": np.array(spent)}


def ours(r: dict[str, np.ndarray], alpha: float, kind: str) -> dict[str, torch.Tensor]:
    t = {k: torch.as_tensor(v) for k, v in r.items()}
    a = torch.tensor(alpha, dtype=torch.float64)
    for key in ("logits", "q1", "q2"):
        t[key].requires_grad_()
    ref = losses.log_reference(t["prior"], t["mask"], kind)
    next_ref = losses.log_reference(t["next_prior"], t["next_mask"], kind)
    value = losses.soft_value(t["next_logits"], next_ref, torch.minimum(t["next_q1"], t["next_q2"]), t["next_mask"], a)
    y = losses.td_target(t["reward"], t["discount"], t["terminated"], value)
    q = losses.q_loss(t["q1"], t["slot"], y) + losses.q_loss(t["q2"], t["slot"], y)
    policy = losses.policy_loss(t["logits"], ref, torch.minimum(t["q1"], t["q2"]), t["mask"], a, t["weight"])
    return {"q": q, "policy": policy, "spent": losses.regularisation(t["logits"], ref, t["mask"]), "inputs": t}


@given(
    st.integers(0, 10_000),
    st.sampled_from(["one", "all", "some"]),
    st.floats(1e-3, 5.0),
    st.sampled_from(["kl", "entropy"]),
)
@settings(max_examples=120, deadline=None)
def test_losses_match_numpy(seed, legal, alpha, kind):
    rows = batch(seed, legal)
    got, expected = ours(rows, alpha, kind), reference(rows, alpha, kind)
    np.testing.assert_allclose(got["q"].item(), expected["q"], rtol=1e-6)
    np.testing.assert_allclose(got["policy"].item(), expected["policy"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(got["spent"].detach().numpy(), expected["spent"], rtol=1e-6, atol=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(["one", "all", "some"]), st.sampled_from(["kl", "entropy"]))
@settings(max_examples=60, deadline=None)
def test_gradients_are_finite_and_each_loss_reaches_only_its_own_parameters(seed, legal, kind):
    got = ours(batch(seed, legal), 0.3, kind)
    logits, q1 = got["inputs"]["logits"], got["inputs"]["q1"]
    got["policy"].backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[~got["inputs"]["mask"]] == 0).all()
    assert q1.grad is None, "the policy loss must not move Q"
    got["q"].backward()
    assert torch.isfinite(q1.grad).all()
    chosen = torch.zeros_like(q1).scatter(1, got["inputs"]["slot"][:, None], 1).bool()
    assert (q1.grad[~chosen] == 0).all() and (q1.grad[chosen] != 0).all()


def test_a_blackout_ends_the_return_and_the_end_of_a_scenario_does_not():
    reward, discount, value = torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.9]), torch.tensor([10.0, torch.nan])
    y = losses.td_target(reward, discount, torch.tensor([False, True]), value)
    assert y.tolist() == [10.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "spent", "direction"), [("kl", 0.5, 1), ("kl", 0.05, -1), ("entropy", -0.1, 1), ("entropy", -2.0, -1)]
)
def test_the_temperature_moves_towards_the_budget(kind, spent, direction):
    """Too far from pi_0 (or too little entropy) raises alpha; too close (too much) lowers it."""
    settings = LearnerSettings(regulariser=kind, kl_budget=0.2, entropy_share=0.5)
    mask = torch.ones(3, 10, dtype=bool)
    log_alpha = torch.tensor(0.0, requires_grad=True)
    losses.temperature_loss(log_alpha, torch.full((3,), spent), losses.budget(mask, settings)).backward()
    assert np.sign(-log_alpha.grad.item()) == direction


def test_the_budget_is_per_state():
    mask = torch.tensor([[True, False, False, False], [True, True, True, True]])
    entropy = losses.budget(mask, LearnerSettings(regulariser="entropy", entropy_share=0.89))
    np.testing.assert_allclose(entropy.numpy(), [0.0, -0.89 * np.log(4)], rtol=1e-6)
    assert losses.budget(mask, LearnerSettings(kl_budget=0.3)).tolist() == pytest.approx([0.0, 0.3])
