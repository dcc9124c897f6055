"""Whether what refiners find reaches the learner: Q of the refined action against Q of the one that was played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ace_ray.config.learning import PolicySettings
from ace_ray.policy.network import SlotQ
from ace_ray.schema import OBSERVED


@dataclass(frozen=True)
class Transmission:
    """Over the states of D_LLM, in each of which a replay showed the refined action to be better.

    Attributes:
        states: how many.
        share: of them in which Q ranks the refined action above the played one, 0 to 1; 0.5 is chance.
        gap: mean of Q(refined) - Q(played), in discounted reward; `error` its standard error.
    """

    states: int
    share: float
    gap: float
    error: float

    def __str__(self) -> str:
        return (
            f"Q ranks the refined action above the played one in {100 * self.share:.0f} % of {self.states} refined "
            f"states (gap {self.gap:+.2f} ± {self.error:.2f})"
        )


def transmission(
    module: Mapping[str, np.ndarray], policy: PolicySettings, pairs: Mapping[str, np.ndarray]
) -> Transmission | None:
    """Compares by the smaller of the Q twin, as the policy's loss does.

    Args:
        module: the learner's state dict (`state.module_state`).
        policy: settings of its networks.
        pairs: `ReplayTable.pairs`.

    Returns:
        None where there is no pair.
    """
    states = len(pairs["slot"])
    if states == 0:
        return None
    batch = {name: torch.as_tensor(pairs[name]) for name in OBSERVED}
    rows = np.arange(states)
    found = []
    for head in ("q1.", "q2."):
        network = SlotQ(pairs["context"].shape[1], pairs["slots"].shape[2], policy)
        weights = {k.removeprefix(head): torch.as_tensor(v) for k, v in module.items() if k.startswith(head)}
        network.load_state_dict(weights)
        with torch.no_grad():
            found.append(network(batch).numpy())
    q = np.minimum(*found)
    gaps = q[rows, pairs["slot"]] - q[rows, pairs["played"]]
    error = float(gaps.std(ddof=1) / np.sqrt(states)) if states > 1 else 0.0
    return Transmission(states, float((gaps > 0).mean()), float(gaps.mean()), error)
