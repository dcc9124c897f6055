"""The slot networks: greedy at iteration 0, blind to illegal slots, gradients that reach every part."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ace_ray.config.errors import ConfigError
from ace_ray.config.learning import PolicySettings
from ace_ray.policy.distribution import log_probabilities
from ace_ray.policy.network import SlotNetwork, SlotQ, prior_logits, score_gap

pytestmark = pytest.mark.unit

C, F, K = 7, 5, 8
SMALL = PolicySettings(hidden=16, heads=2, layers=1)


def decisions(rng: np.random.Generator, B: int) -> dict[str, torch.Tensor]:
    """Random decisions with at least one legal slot each; features span several orders of magnitude."""
    mask = rng.random((B, K)) < 0.6
    mask[np.arange(B), rng.integers(K, size=B)] = True
    score = np.where(mask, -np.abs(rng.normal(1.0, 0.3, (B, K))), -1e9)
    return {
        "context": torch.as_tensor(rng.normal(size=(B, C)) * 10 ** rng.uniform(-2, 3, (B, C)), dtype=torch.float32),
        "slots": torch.as_tensor(rng.normal(size=(B, K, F)) * 10 ** rng.uniform(-2, 3, (B, K, F)), dtype=torch.float32),
        "score": torch.as_tensor(score, dtype=torch.float32),
        "mask": torch.as_tensor(mask),
    }


scores = hnp.arrays(np.float32, (4, K), elements=st.floats(-3.0, 0.0, width=32))
masks = hnp.arrays(bool, (4, K)).map(lambda m: np.where(m.any(1, keepdims=True), m, np.arange(K) == 0))


@given(scores, masks, st.floats(1e-3, 2.0))
@settings(max_examples=200, deadline=None)
def test_at_iteration_0_the_argmax_is_greedy_on_every_state(score, mask, temperature):
    torch.manual_seed(0)
    network = SlotNetwork(C, F, SMALL.model_copy(update={"prior_temperature": temperature}))
    batch = decisions(np.random.default_rng(0), 4) | {"score": torch.as_tensor(score), "mask": torch.as_tensor(mask)}
    with torch.no_grad():
        logits = network(batch).numpy()
    assert (logits.argmax(1) == np.where(mask, score, -np.inf).argmax(1)).all()


def test_scores_one_ulp_apart_stay_apart_in_the_logits():
    """Dividing the raw score by the temperature would merge some of these pairs."""
    best = -np.random.default_rng(0).random(20_000).astype(np.float32)
    pair = torch.as_tensor(np.stack([np.nextafter(best, np.float32(-2)), best], 1))
    merged = pair / 3.0
    assert (merged[:, 0] == merged[:, 1]).any()
    assert (prior_logits(pair, torch.ones_like(pair, dtype=bool), 3.0).argmax(1) == 1).all()


def test_at_iteration_0_the_policy_is_the_softmax_of_the_score():
    network, batch = SlotNetwork(C, F, SMALL), decisions(np.random.default_rng(1), 16)
    with torch.no_grad():
        assert torch.equal(network(batch), network.prior(batch))
    gap = score_gap(batch["score"], batch["mask"]).double().numpy() / SMALL.prior_temperature
    expected = np.where(batch["mask"], np.exp(np.maximum(gap, -50.0)), 0.0)
    expected /= expected.sum(1, keepdims=True)
    got = np.exp(log_probabilities(network.prior(batch), batch["mask"]).numpy()) * batch["mask"].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("network_class", [SlotNetwork, SlotQ])
def test_what_illegal_slots_hold_changes_nothing(network_class):
    torch.manual_seed(0)
    network = trained(network_class)
    batch = decisions(np.random.default_rng(2), 32)
    mask = batch["mask"]
    noisy = dict(batch)
    noisy["slots"] = torch.where(mask.unsqueeze(-1), batch["slots"], torch.full_like(batch["slots"], torch.nan))
    noisy["score"] = torch.where(mask, batch["score"], torch.full_like(batch["score"], 7.0))
    with torch.no_grad():
        clean, dirty = network(batch), network(noisy)
    assert torch.equal(clean[mask], dirty[mask])


@pytest.mark.parametrize("network_class", [SlotNetwork, SlotQ])
def test_slots_are_a_set(network_class):
    """Permuting the slots permutes the outputs: no slot number is special."""
    torch.manual_seed(0)
    network, batch = trained(network_class), decisions(np.random.default_rng(3), 8)
    order = torch.randperm(K)
    moved = {k: (v[:, order] if k != "context" else v) for k, v in batch.items()}
    with torch.no_grad():
        a, b = network(batch)[:, order], network(moved)
    legal = moved["mask"]
    torch.testing.assert_close(a[legal], b[legal], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network_class", [SlotNetwork, SlotQ])
def test_gradients_are_finite_and_reach_every_parameter(network_class):
    torch.manual_seed(0)
    network, batch = trained(network_class), decisions(np.random.default_rng(4), 32)
    out = network(batch)
    out[batch["mask"]].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0 or "query_key_value.bias" in name, name


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match=r"policy\.hidden=16 is not a multiple of policy\.heads=3"):
        SlotNetwork(C, F, PolicySettings(hidden=16, heads=3))


def trained(network_class: type) -> SlotNetwork | SlotQ:
    """A network moved away from its initial zero head."""
    network = network_class(C, F, SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network
