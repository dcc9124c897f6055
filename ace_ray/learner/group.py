"""Builds RLlib's LearnerGroup around the slot networks, without an Algorithm: tests, benchmarks and the Algorithm share
it."""

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from ace_ray.config.learning import LearnerSettings
from ace_ray.config.run import ResourceSettings
from ace_ray.learner.learner import SETTINGS_KEY, SlotLearner


def configure_learner(
    config: AlgorithmConfig, settings: LearnerSettings, resources: ResourceSettings, seed: int | None
) -> AlgorithmConfig:
    """Puts learner class, its settings, number and resources into an AlgorithmConfig, in place.

    Args:
        config: Any AlgorithmConfig.
        settings: Losses and optimisers; `num_learners` 0 learns in the calling process.
        resources: Share of a remote learner.
        seed: Seed of the networks' initial weights.

    Returns:
        The same config.
    """
    return (
        config.framework("torch")
        .training(
            lr=settings.lr,
            grad_clip=settings.grad_clip,
            grad_clip_by="global_norm",
            train_batch_size_per_learner=settings.batch,
        )
        .learners(
            num_learners=settings.num_learners,
            num_cpus_per_learner=resources.learner_cpu,
            num_gpus_per_learner=resources.learner_gpu,
            learner_class=SlotLearner,
            learner_config_dict={SETTINGS_KEY: settings.model_dump()},
        )
        .debugging(seed=seed)
    )
