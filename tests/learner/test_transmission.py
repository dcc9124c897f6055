"""Transmission: 0.5 before anything is learned of the refined actions, 1 once Q has taken them up."""

import numpy as np
import pytest
import torch

from ace_ray.config.learning import PolicySettings
from ace_ray.learner.transmission import transmission
from ace_ray.policy.network import SlotQ

pytestmark = pytest.mark.unit

POLICY = PolicySettings(hidden=16, heads=2, layers=1)
N, K, F, C = 64, 4, 3, 2


@pytest.fixture()
def pairs():
    rng = np.random.default_rng(0)
    played = rng.integers(0, K, N)
    return {
        "context": rng.normal(size=(N, C)).astype(np.float32),
        "slots": rng.normal(size=(N, K, F)).astype(np.float32),
        "mask": np.ones((N, K), bool),
        "score": rng.normal(size=(N, K)).astype(np.float32),
        "slot": (played + 1) % K,
        "played": played,
    }


def state_of(*networks):
    return {
        f"q{i}.{name}": value.detach().numpy()
        for i, network in enumerate(networks, 1)
        for name, value in network.state_dict().items()
    }


def test_fitted_q_ranks_the_refined_actions_above_and_fresh_q_does_not(pairs):
    torch.manual_seed(0)
    twin = SlotQ(C, F, POLICY), SlotQ(C, F, POLICY)
    before = transmission(state_of(*twin), POLICY, pairs)
    assert before is not None and 0.3 < before.share < 0.7 and before.states == N
    batch = {name: torch.as_tensor(pairs[name]) for name in ("context", "slots", "mask", "score")}
    target = torch.zeros(N, K).scatter_(1, torch.as_tensor(pairs["slot"])[:, None], 1.0)
    for network in twin:
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(150):
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(network(batch), target).backward()
            optimiser.step()
    after = transmission(state_of(*twin), POLICY, pairs)
    assert after is not None and after.share > 0.9 and after.gap > 0.3
    assert f"{100 * after.share:.0f} % of {N} refined states" in str(after)


def test_without_a_pair_there_is_no_figure(pairs):
    assert transmission({}, POLICY, {name: value[:0] for name, value in pairs.items()}) is None
