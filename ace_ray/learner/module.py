"""The RLModule: policy, Q twin, their targets and the temperature, around the plain networks of policy/."""

from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor

from ace_ray.config.learning import PolicySettings
from ace_ray.policy.network import SlotNetwork, SlotQ
from ace_ray.schema import NEXT, OBSERVED, StateShape, observation_space

POLICY_PREFIX = "policy."


class SlotModule(TorchRLModule):
    """Holds everything that an update changes but the optimisers, so one state dict is the whole learner."""

    def setup(self) -> None:
        """Builds the networks from `model_config`, which `module_spec` makes."""
        sizes = self.model_config["context_features"], self.model_config["slot_features"]
        settings = PolicySettings(**self.model_config["policy"])
        self.policy = SlotNetwork(*sizes, settings)
        self.q1, self.q2 = SlotQ(*sizes, settings), SlotQ(*sizes, settings)
        self.target_q1, self.target_q2 = SlotQ(*sizes, settings), SlotQ(*sizes, settings)
        for target, source in self.targets():
            target.load_state_dict(source.state_dict())
            target.requires_grad_(False)
        self.log_alpha = torch.nn.Parameter(torch.tensor(float(np.log(self.model_config["alpha_initial"]))))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def targets(self) -> list[tuple[SlotQ, SlotQ]]:
        """(target, source) of each head of the twin."""
        return [(self.target_q1, self.q1), (self.target_q2, self.q2)]

    def _forward(self, batch: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        return {"action_dist_inputs": self.policy({key: batch[key] for key in OBSERVED})}

    def _forward_train(self, batch: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """Everything that the losses need, one pass a network; all [B, K]."""
        now = {key: batch[key] for key in OBSERVED}
        then = {key: batch[NEXT + key] for key in OBSERVED}
        with torch.no_grad():
            after = {
                "next_logits": self.policy(then),
                "next_prior": self.policy.prior(then),
                "next_q": torch.minimum(self.target_q1(then), self.target_q2(then)),
            }
        return {
            "logits": self.policy(now),
            "prior": self.policy.prior(now),
            "q1": self.q1(now),
            "q2": self.q2(now),
            "log_alpha": self.log_alpha,
        } | after


def module_spec(shape: StateShape, policy: PolicySettings, alpha_initial: float) -> RLModuleSpec:
    """The spec that a LearnerGroup builds `SlotModule` from.

    Args:
        shape: Sizes of a decision state.
        policy: Network settings.
        alpha_initial: Temperature at the start.
    """
    return RLModuleSpec(
        module_class=SlotModule,
        observation_space=observation_space(shape),
        action_space=gymnasium.spaces.Discrete(shape.slots),
        model_config={
            "context_features": shape.context_features,
            "slot_features": shape.slot_features,
            "policy": policy.model_dump(),
            "alpha_initial": alpha_initial,
        },
    )
