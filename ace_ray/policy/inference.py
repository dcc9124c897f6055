"""One decision at a time on the CPU: what agents and rollout workers call. NumPy in, slot number out."""

from typing import Protocol

import numpy as np
import torch

from ace_ray.policy.distribution import log_probabilities
from ace_ray.policy.network import SlotNetwork


class DecisionArrays(Protocol):
    """The part of a decision that a policy reads: `context` [C], `slots` [K, F], `score` [K], `mask` [K]."""

    @property
    def context(self) -> np.ndarray: ...
    @property
    def slots(self) -> np.ndarray: ...
    @property
    def score(self) -> np.ndarray: ...
    @property
    def mask(self) -> np.ndarray: ...


class SlotPolicy:
    """A network that picks slots.

    Args:
        network: The policy network; it is put in evaluation mode.
    """

    def __init__(self, network: SlotNetwork) -> None:
        self.network = network.eval()

    @torch.inference_mode()
    def logits(self, decision: DecisionArrays) -> np.ndarray:
        """[K] float32, -inf at illegal slots."""
        return self.network(self._batch(decision)).squeeze(0).numpy()

    def best(self, decision: DecisionArrays) -> int:
        """The most probable legal slot; the first of equals, as greedy does."""
        return int(np.argmax(self.logits(decision)))

    @torch.inference_mode()
    def log_probabilities(self, decision: DecisionArrays) -> np.ndarray:
        """[K] float64: log pi at legal slots, -inf at illegal ones."""
        batch = self._batch(decision)
        logp = log_probabilities(self.network(batch), batch["mask"]).masked_fill(~batch["mask"], -torch.inf)
        return logp.squeeze(0).double().numpy()

    def sample(self, decision: DecisionArrays, rng: np.random.Generator) -> int:
        """A slot drawn from the policy."""
        probability = np.exp(self.log_probabilities(decision))
        return int(rng.choice(len(probability), p=probability / probability.sum()))

    @staticmethod
    def _batch(decision: DecisionArrays) -> dict[str, torch.Tensor]:
        return {
            "context": torch.as_tensor(np.asarray(decision.context, np.float32))[None],
            "slots": torch.as_tensor(np.asarray(decision.slots, np.float32))[None],
            "score": torch.as_tensor(np.asarray(decision.score, np.float32))[None],
            "mask": torch.as_tensor(np.asarray(decision.mask, bool))[None],
        }
