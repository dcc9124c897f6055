"""One decision at a time on the CPU: what agents and rollout workers call. NumPy in, slot number out."""

import os

import numpy as np
import torch

from ace_ray.policy.distribution import log_probabilities
from ace_ray.policy.network import SlotNetwork
from ace_ray.schema import Observed, observation

# Torch's threads do not survive a fork: a child that asks for several waits for them forever (Grid2Op's Runner forks).
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class SlotPolicy:
    """A network that picks slots.

    Args:
        network: The policy network; it is put in evaluation mode.
    """

    def __init__(self, network: SlotNetwork) -> None:
        self.network = network.eval()

    @torch.inference_mode()
    def logits(self, decision: Observed) -> np.ndarray:
        """[K] float32, -inf at illegal slots."""
        return self.network(self._batch(decision)).squeeze(0).numpy()

    def best(self, decision: Observed) -> int:
        """The most probable legal slot; the first of equals, as greedy does."""
        return int(np.argmax(self.logits(decision)))

    @torch.inference_mode()
    def log_probabilities(self, decision: Observed) -> np.ndarray:
        """[K] float64: log pi at legal slots, -inf at illegal ones."""
        batch = self._batch(decision)
        logp = log_probabilities(self.network(batch), batch["mask"]).masked_fill(~batch["mask"], -torch.inf)
        return logp.squeeze(0).double().numpy()

    def sample(self, decision: Observed, rng: np.random.Generator) -> int:
        """A slot drawn from the policy."""
        probability = np.exp(self.log_probabilities(decision))
        return int(rng.choice(len(probability), p=probability / probability.sum()))

    @staticmethod
    def _batch(decision: Observed) -> dict[str, torch.Tensor]:
        return {name: torch.as_tensor(array)[None] for name, array in observation(decision).items()}
