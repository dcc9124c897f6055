"""The processes of a profile and their share of the cluster, checked before anything is started.

Ray would leave an actor that does not fit pending for ever; here the sum is compared with what the cluster has, and the
error names the processes and the setting to lower.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ace_ray.config.errors import ResourceError
from ace_ray.config.run import RunSettings
from llm_service.machine import usable_cpus

# Measured on the 36-substation grid with the embedded model, rounded up. A larger model brings its own check.
MEMORY_MB = {
    "driver": 1000,
    "learner": 1000,
    "replay": 300,
    "rollout worker": 1000,
    "refiner": 800,
    "llm replica": 1900,
    "fine-tuning job": 1500,
}
RAY_MB = 800
STATE_BYTES_PER_SLOT = 320  # float16 features of one slot, about 150, and what goes with them


@dataclass(frozen=True)
class Process:
    """One row of the table: `count` processes of a kind, each with a share of the machine."""

    role: str
    count: int
    cpu: float
    gpu: float
    setting: str


def processes(settings: RunSettings) -> list[Process]:
    """The processes that a run of these settings starts, the driver included."""
    r, refine = settings.resources, settings.refine
    rows = [Process("driver", 1, r.driver_cpu, 0.0, "resources.driver_cpu")]
    if settings.learner.num_learners:
        rows.append(
            Process("learner", settings.learner.num_learners, r.learner_cpu, r.learner_gpu, "resources.learner_cpu")
        )
    rows.append(Process("replay", 1, r.replay_cpu, 0.0, "resources.replay_cpu"))
    rows.append(Process("rollout worker", settings.rollout.workers, r.worker_cpu, 0.0, "resources.worker_cpu"))
    if refine.refiner != "off" and refine.refiners:
        rows.append(Process("refiner", refine.refiners, r.refiner_cpu, 0.0, "resources.refiner_cpu"))
    if refine.refiner == "llm" and not settings.llm.endpoint.url:
        rows.append(Process("llm replica", r.llm_replicas, r.llm_cpu, r.llm_gpu, "resources.llm_cpu"))
        if settings.finetune.enabled:
            rows.append(Process("fine-tuning job", 1, r.finetune_cpu, r.finetune_gpu, "resources.finetune_cpu"))
    return rows


def table(rows: list[Process]) -> str:
    """The table printed at the start of a run."""
    lines = [f"{'process':<16} {'n':>3} {'CPU each':>9} {'GPU each':>9}"]
    lines += [f"{p.role:<16} {p.count:>3} {p.cpu:>9.2f} {p.gpu:>9.2f}" for p in rows]
    cpu, gpu = _sum(rows)
    lines.append(f"{'sum':<16} {'':>3} {cpu:>9.2f} {gpu:>9.2f}")
    return "\n".join(lines)


def check(rows: list[Process], cluster: Mapping[str, float]) -> None:
    """Compares the profile with what the cluster has.

    Args:
        rows: `processes(settings)`.
        cluster: Ray's totals, with 'CPU' and 'GPU'.

    Raises:
        ResourceError: What does not fit, and which settings to lower.
    """
    cpu, gpu = _sum(rows)
    # The driver is no Ray task: its share is a promise about the machine and counts here, but Ray does not know of it.
    for kind, wanted in (("CPU", cpu), ("GPU", gpu)):
        there = float(cluster.get(kind, 0.0))
        if wanted > there + 1e-6:
            share = {p.setting.replace("_cpu", f"_{kind.lower()}"): p.count * getattr(p, kind.lower()) for p in rows}
            worst = ", ".join(f"{k} ({v:g})" for k, v in sorted(share.items(), key=lambda kv: -kv[1])[:3] if v)
            raise ResourceError(
                f"the profile needs {wanted:g} {kind}, the cluster has {there:g}:\n{table(rows)}",
                "lower the counts (rollout.workers, refine.refiners, resources.llm_replicas) or the largest shares: "
                + worst,
            )


def needed_memory_mb(settings: RunSettings) -> float:
    """Memory that a run takes once its replay is full, all processes on one machine."""
    replay = settings.replay.capacity * settings.grid.candidates.slots * STATE_BYTES_PER_SLOT / 1e6
    each = sum(p.count * MEMORY_MB[p.role] for p in processes(settings))
    return RAY_MB + settings.resources.object_store_mb + each + replay


def check_memory(settings: RunSettings, free_mb: float) -> None:
    """Compares what a run on one machine takes with what is free there.

    Raises:
        ResourceError: It would run out of memory sooner or later.
    """
    needed = needed_memory_mb(settings)
    if needed > free_mb:
        raise ResourceError(
            f"the profile needs about {needed:.0f} MB of memory, this machine has {free_mb:.0f} MB free",
            "lower replay.capacity, rollout.workers or refine.refiners, or set refine.refiner=search (no model)",
        )


def announced_cpus() -> int:
    """CPUs that a local Ray announces: what this process may use, at least 2 (all shares are fractions)."""
    return max(2, int(usable_cpus()))


def _sum(rows: list[Process]) -> tuple[float, float]:
    return sum(p.count * p.cpu for p in rows), sum(p.count * p.gpu for p in rows)
