"""Settings of policy, learner, replay and mixing (docs/method.md)."""

from typing import Literal

from pydantic import Field

from ace_ray.config.base import Settings


class PolicySettings(Settings):
    """The network that scores slots."""

    hidden: int = Field(128, ge=8, description="width of the context and slot embeddings (ACE: 128)")
    heads: int = Field(8, ge=1, description="attention heads over the slots (ACE: 8)")
    layers: int = Field(2, ge=1, description="attention blocks over the slots")
    prior_temperature: float = Field(0.005, gt=0, description="difference in slot score that is worth one nat in pi_0")


class LearnerSettings(Settings):
    """Masked discrete SAC (docs/method.md, eqs. 1-3 and 10)."""

    regulariser: Literal["kl", "entropy"] = Field("kl", description="-KL(pi||pi_0), or the paper's entropy")
    kl_budget: float = Field(0.2, gt=0, description="target KL(pi||pi_0) in nats per state (regulariser=kl)")
    entropy_share: float = Field(
        0.89, gt=0, le=1, description="target entropy as a share of log(legal slots) (regulariser=entropy)"
    )
    lr: float = Field(3e-4, gt=0, description="Adam step size of policy and Q (ACE: 5e-5)")
    alpha_lr: float = Field(3e-3, gt=0, description="Adam step size of the temperature")
    alpha_initial: float = Field(0.1, gt=0, description="temperature at the start")
    batch: int = Field(64, ge=1, description="transitions per update (ACE: 64)")
    target_tau: float = Field(5e-3, gt=0, le=1, description="soft update of the target Q (ACE: 1e-3)")
    target_every: int = Field(1, ge=1, description="updates between two soft updates (ACE: 2)")
    policy_delay: int = Field(200, ge=0, description="updates of Q alone before the policy moves from pi_0")
    grad_clip: float = Field(10.0, gt=0, description="gradients are clipped to this global norm")
    num_learners: int = Field(0, ge=0, description="remote RLlib learners; 0 learns in the driver")


class ReplaySettings(Settings):
    """Replay table and shards."""

    capacity: int = Field(50_000, ge=16, description="transitions in D_RL (ACE: 50,000)")
    refined_capacity: int = Field(256, ge=16, description="refined ring D_LLM (ACE: 256)")
    warmup: int = Field(256, ge=1, description="decisions stored before the first update")
    updates_per_decision: float = Field(1.0, gt=0, description="learner updates per stored decision")
    updates_band: float = Field(64.0, gt=0, description="updates that the learner may run ahead or behind")
    shard_rows: int = Field(512, ge=1, description="rows at which a shard is sealed")
    shard_seconds: float = Field(60.0, gt=0, description="seconds after which a shard with rows is sealed")


class MixingSettings(Settings):
    """p_mix, I_v and w_r (docs/method.md, eqs. 6-10)."""

    beta: float = Field(0.5, ge=0, le=1, description="share of refined rows in a batch (eq. 9)")
    ramp: int = Field(
        256,
        ge=1,
        description="valid refined rows from which D_LLM has its whole share beta; fewer get a share in proportion, or "
        "a handful of rows would be half of every batch (ACE: 1)",
    )
    tau: float = Field(1.0, gt=0, description="temperature of w_r on the standardised advantage; independent of beta")
    weight_min: float = Field(0.1, gt=0, description="lower clip of w_r")
    weight_max: float = Field(10.0, gt=0, description="upper clip of w_r")
    validity: Literal["survives", "better", "paper"] = Field(
        "survives",
        description="I_v: better than the original and alive at the end of the horizon; better in any way; or eq. (7)",
    )
