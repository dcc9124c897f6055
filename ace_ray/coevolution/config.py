"""`ACEConfig`: RLlib's AlgorithmConfig, made from our settings in this one place."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_runner import EnvRunner

from ace_ray.config.grid import GridSettings
from ace_ray.config.run import RunSettings
from ace_ray.learner.group import configure_learner
from ace_ray.learner.module import module_spec
from ace_ray.replay.shards import LogIdentity
from ace_ray.schema import StateShape


@dataclass(frozen=True)
class Grid:
    """What the learner's side has to know of the grid: names and sizes, no simulator.

    Attributes:
        env: Environment name.
        catalogue: Content hash of the action catalogue.
        spec: Engine spec as plain integers (slots, slot_features, context_features, ...).
    """

    env: str
    catalogue: str
    spec: dict[str, int]

    @classmethod
    def describe(cls, settings: GridSettings) -> Self:
        """Builds environment and engine once, reads their sizes and lets them go.

        Raises:
            DataError, GridMismatchError: No such environment or data; better here than in a worker.
        """
        # Imported here: every learner and runner unpickles the config, and a learner needs no simulator.
        from ace_ray.grid.engine import DecisionEngine
        from ace_ray.grid.scenarios.environment import make_env

        env = make_env(settings)
        try:
            engine = DecisionEngine(env, settings)
            return cls(settings.env, engine.catalogue.hash, asdict(engine.spec))
        finally:
            env.close()

    @property
    def identity(self) -> LogIdentity:
        """What rows of this grid have in common in the replay log."""
        return LogIdentity(self.env, self.catalogue, self.shape)

    @property
    def shape(self) -> StateShape:
        """Sizes of a decision state."""
        return StateShape(self.spec["slots"], self.spec["slot_features"], self.spec["context_features"])


class ACEConfig(AlgorithmConfig):
    """Configuration of `ACE`; use `from_settings`.

    A rollout runner is built by RLlib as `Runner(config=ACEConfig, worker_index=1.., ...)` and reads from the config:
        run: RunSettings
        grid: Grid (environment, catalogue hash, engine spec)
        replay: handle of the replay actor
        folder: Path of the run
        start: 1 for the first start of the run, 2 after the first resume, ...: part of the runner's seed, so that a
            resumed run does not play the same scenarios again.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class)
        self.run: RunSettings = RunSettings()
        self.grid: Grid | None = None
        self.replay: Any = None
        self.folder: Path | None = None
        self.start = 1

    @classmethod
    def from_settings(
        cls,
        algo_class: type,
        settings: RunSettings,
        *,
        grid: Grid,
        replay: Any,
        runner: type[EnvRunner],
        folder: Path,
        start: int = 1,
    ) -> Self:
        """The configuration of one start of a run.

        Args:
            algo_class: `ACE`.
            settings: Of the run.
            grid: Sizes and names.
            replay: Handle of the replay actor.
            runner: Class of the rollout runners.
            folder: Of the run.
            start: Number of this start.
        """
        config = cls(algo_class)
        config.run, config.grid, config.replay, config.folder, config.start = settings, grid, replay, folder, start
        configure_learner(config, settings.learner, settings.resources, settings.seed)
        spec = config.get_default_rl_module_spec()
        config.environment(observation_space=spec.observation_space, action_space=spec.action_space)
        config.env_runners(
            env_runner_cls=runner,
            num_env_runners=settings.rollout.workers,
            num_cpus_per_env_runner=settings.resources.worker_cpu,
            # No environment in the driver: it would cost the memory of a worker and never play.
            create_local_env_runner=False,
            # One request that runs and one that waits, so that a worker has work while the driver learns.
            max_requests_in_flight_per_env_runner=2,
        )
        # The probe blocks the loop, and a runner that is building its environment does not answer for a while.
        config.fault_tolerance(restart_failed_env_runners=True, env_runner_health_probe_timeout_s=0.5)
        # Runners have no connectors whose state could be merged; weights go out with `ACE._publish`.
        config.env_runners(merge_env_runner_states=False, broadcast_env_runner_states=False)
        config._dont_auto_sync_env_runner_states = True
        config.debugging(log_level="ERROR")
        config.reporting(min_time_s_per_iteration=None, metrics_num_episodes_for_smoothing=20)
        return config

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The module that RLlib builds: `SlotModule` with the sizes of this grid."""
        assert self.grid is not None
        return module_spec(self.grid.shape, self.run.policy, self.run.learner.alpha_initial)
