"""The whole of one run: what `ace train` reads."""

from pydantic import Field

from ace_ray.config.base import Settings
from ace_ray.config.drills import DrillSettings
from ace_ray.config.grid import GridSettings
from ace_ray.config.learning import LearnerSettings, MixingSettings, PolicySettings, ReplaySettings
from ace_ray.config.refine import CriticSettings, FinetuneSettings, LanguageSettings, RefineSettings
from llm_service.settings import ServiceSettings


class RolloutSettings(Settings):
    """Rollout workers."""

    workers: int = Field(1, ge=1, description="rollout worker processes")
    weights_every_s: float = Field(2.0, gt=0, description="seconds between two pulls of the policy weights")
    hard_starts: float = Field(
        0.5, ge=0, le=1, description="share of episodes that start shortly before an earlier blackout"
    )
    fragment: int = Field(16, ge=1, description="decisions that a worker collects between two reports")
    fragment_s: float = Field(2.0, gt=0, description="seconds after which it reports with fewer decisions")
    stalled_s: float = Field(300.0, gt=0, description="seconds without any decision after which the run fails")


class BudgetSettings(Settings):
    """When the run ends: at whichever limit is reached first."""

    decisions: int | None = Field(None, ge=1, description="decisions collected")
    minutes: float | None = Field(15.0, gt=0, description="minutes of training")


class CheckpointSettings(Settings):
    """Checkpoints of the learner."""

    every_s: float = Field(120.0, gt=0, description="seconds between two checkpoints")
    keep: int = Field(3, ge=1, description="checkpoints kept, besides the first")


class ResourceSettings(Settings):
    """CPU and GPU share of each process (Ray's logical resources), checked against the cluster at start."""

    driver_cpu: float = Field(0.2, ge=0, description="CPUs of the driver (learner included when num_learners=0)")
    learner_cpu: float = Field(0.5, ge=0, description="CPUs of a remote learner")
    learner_gpu: float = Field(0.0, ge=0, description="GPUs of a remote learner")
    replay_cpu: float = Field(0.1, ge=0, description="CPUs of the replay actor")
    worker_cpu: float = Field(0.5, gt=0, description="CPUs of a rollout worker")
    refiner_cpu: float = Field(0.5, gt=0, description="CPUs of a refiner")
    llm_cpu: float = Field(0.5, ge=0, description="CPUs of a model replica")
    llm_gpu: float = Field(0.0, ge=0, description="GPUs of a model replica")
    llm_replicas: int = Field(1, ge=1, description="model replicas")
    finetune_cpu: float = Field(0.2, ge=0, description="CPUs of the fine-tuning job")
    finetune_gpu: float = Field(0.0, ge=0, description="GPUs of the fine-tuning job")
    object_store_mb: int = Field(512, ge=80, description="Ray object store of a head started by ace, in MB")


class EvaluationSettings(Settings):
    """The table that ends `make train`."""

    enabled: bool = Field(True, description="evaluate at the end of the run")
    scenarios: str = Field("test:16", description="scenario set, as for ace evaluate")
    processes: int = Field(
        2,
        ge=1,
        description="evaluation processes, each with an environment; 1: in this process, without Ray",
    )
    scores: bool = Field(False, description="also compute the L2RPN scores, which takes two more episodes per scenario")


class RunSettings(Settings):
    """One training run."""

    name: str = Field("", description="run name; empty: made from the date and the refiner")
    runs_root: str = Field("runs", description="folder of runs; absolute inside a submitted job (or $ACE_RUNS)")
    seed: int = Field(0, description="seed of scenarios, exploration and networks")
    grid: GridSettings = GridSettings()
    policy: PolicySettings = PolicySettings()
    learner: LearnerSettings = LearnerSettings()
    replay: ReplaySettings = ReplaySettings()
    mixing: MixingSettings = MixingSettings()
    rollout: RolloutSettings = RolloutSettings()
    refine: RefineSettings = RefineSettings()
    critic: CriticSettings = CriticSettings()
    language: LanguageSettings = LanguageSettings()
    llm: ServiceSettings = ServiceSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    budget: BudgetSettings = BudgetSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    resources: ResourceSettings = ResourceSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    drills: DrillSettings = DrillSettings()
