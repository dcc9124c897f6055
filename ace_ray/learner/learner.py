"""The Learner: one gradient step of masked discrete SAC on a batch of the mix (docs/method.md, Algorithm 1)."""

from typing import Any

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from ace_ray.config.learning import LearnerSettings
from ace_ray.learner import losses
from ace_ray.learner.module import SlotModule
from ace_ray.policy import distribution
from ace_ray.schema import NEXT

SETTINGS_KEY = "learner"


class SlotLearner(TorchLearner):
    """Q from the first update on; policy and temperature only after `policy_delay` updates, so that pi_0 is not lost to
    a random Q.

    The three losses reach disjoint parameters (Q inside the policy loss, the policy inside the temperature loss and all
    targets are detached), so their sum needs one backward pass, also under DDP. Settings come as
    `config.learner_config_dict["learner"]`, the dump of a `LearnerSettings`.
    """

    def build(self) -> None:
        """Reads the settings, then builds module and optimisers."""
        self.settings = LearnerSettings(**self.config.learner_config_dict[SETTINGS_KEY])
        super().build()

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """One Adam each for policy, Q twin and temperature."""
        module = self.module[module_id].unwrapped()
        groups = {
            "policy": (list(module.policy.parameters()), self.settings.lr),
            "q": ([*module.q1.parameters(), *module.q2.parameters()], self.settings.lr),
            "alpha": ([module.log_alpha], self.settings.alpha_lr),
        }
        for name, (params, lr) in groups.items():
            # lr is handed to Adam and not to RLlib's scheduler: it is constant, and so it is part of the optimiser's
            # saved state.
            self.register_optimizer(
                module_id=module_id, optimizer_name=name, optimizer=torch.optim.Adam(params, lr=lr), params=params
            )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Tensor], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Sum of the Q, policy and temperature losses; logs them with what explains them."""
        out, mask, next_mask = fwd_out, batch["mask"], batch[f"{NEXT}mask"]
        alpha = out["log_alpha"].exp()
        reference = losses.log_reference(out["prior"], mask, self.settings.regulariser)
        next_reference = losses.log_reference(out["next_prior"], next_mask, self.settings.regulariser)

        with torch.no_grad():
            next_value = losses.soft_value(out["next_logits"], next_reference, out["next_q"], next_mask, alpha)
            target = losses.td_target(batch["reward"], batch["discount"], batch["terminated"], next_value)
        q = losses.q_loss(out["q1"], batch["slot"], target) + losses.q_loss(out["q2"], batch["slot"], target)

        q_min = torch.minimum(out["q1"], out["q2"])
        policy = losses.policy_loss(out["logits"], reference, q_min, mask, alpha, batch["weight"])
        spent = losses.regularisation(out["logits"], reference, mask)
        temperature = losses.temperature_loss(out["log_alpha"], spent, losses.budget(mask, self.settings))

        total = q + policy + temperature
        if not torch.isfinite(total):
            updates = int(self.module[module_id].unwrapped().updates)
            raise FloatingPointError(
                f"loss is not finite at update {updates}: Q {float(q)}, policy {float(policy)}, "
                f"temperature {float(temperature)}"
            )
        chosen = q_min.gather(-1, batch["slot"].unsqueeze(-1)).squeeze(-1)
        self.metrics.log_dict(
            {
                "q_loss": q,
                "policy_loss": policy,
                "alpha": alpha,
                "kl_to_prior": distribution.kl(out["logits"], out["prior"], mask).mean(),
                "entropy": distribution.entropy(out["logits"], mask).mean(),
                "q_mean": chosen.mean(),
                "target_mean": target.mean(),
                "td_error": (chosen - target).abs().mean(),
                "not_greedy": (out["logits"].argmax(-1) != out["prior"].argmax(-1)).float().mean(),
                "weight_mean": batch["weight"].mean(),
            },
            key=module_id,
            window=1,
        )
        return total

    def compute_gradients(self, loss_per_module: dict[str, Tensor], **kwargs: Any) -> dict[Any, Tensor]:
        """The policy delay: without gradients, policy, temperature and their Adam moments stay as they are."""
        gradients = super().compute_gradients(loss_per_module, **kwargs)
        for module in self._slot_modules():
            if module.updates < self.settings.policy_delay:
                for parameter in (*module.policy.parameters(), module.log_alpha):
                    parameter.grad = None
                    gradients.pop(parameter, None)
        return gradients

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Counts the update; every `target_every` of them moves the targets by `target_tau`."""
        super().after_gradient_based_update(timesteps=timesteps)
        for module in self._slot_modules():
            module.updates += 1
            if int(module.updates) % self.settings.target_every == 0:
                soft_update(module, self.settings.target_tau)

    def _slot_modules(self) -> list[SlotModule]:
        return [self.module[module_id].unwrapped() for module_id, _ in self.module.items()]


@torch.no_grad()
def soft_update(module: SlotModule, tau: float) -> None:
    """Moves both target networks towards their sources by the share `tau`."""
    for target, source in module.targets():
        for old, new in zip(target.parameters(), source.parameters(), strict=True):
            old.lerp_(new, tau)
