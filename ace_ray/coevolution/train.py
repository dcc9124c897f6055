"""The driver of `ace train`: from settings to a trained, evaluated run folder."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from ace_ray.coevolution import checkpoint, refinement, resources
from ace_ray.coevolution.algorithm import ACE
from ace_ray.coevolution.config import ACEConfig, Grid
from ace_ray.coevolution.connect import Cluster, check_resources, check_visible, connect
from ace_ray.coevolution.ending import final_table
from ace_ray.coevolution.loop import TrainingLoop
from ace_ray.coevolution.remote import ask
from ace_ray.coevolution.run_folder import RunFolder, Status, open_new, read_about, reopen, saved_settings
from ace_ray.coevolution.signals import Stopped, StopSignals
from ace_ray.config.errors import ConfigError, RunFolderError
from ace_ray.config.load import load_settings
from ace_ray.config.paper import differences_text
from ace_ray.config.paths import ABOUT, locate, runs_root
from ace_ray.config.run import RunSettings
from ace_ray.finetune.held_out import Seed
from ace_ray.monitoring.logging import log_to_file
from ace_ray.refine.builder import domain_of
from ace_ray.replay.actor import start_replay
from ace_ray.rollout.runner import RolloutRunner

log = logging.getLogger(__name__)


def train(profiles: Sequence[Path | str] = (), overrides: Sequence[str] = (), resume: str | None = None) -> int:
    """`ace train [--config FILE] [--resume RUN] [dotted.key=value ...]`.

    Args:
        profiles: YAML files of settings; not used together with `resume`, whose run has its own.
        overrides: `dotted.key=value`, on top of either.
        resume: Folder or name of a run to continue; 'auto': the run that the settings name. It is started where it is
            not there yet and left alone where it is finished, so that the same command line may be repeated.

    Returns:
        Exit code: 0, or 130 / 143 after Ctrl-C / SIGTERM.

    Raises:
        AceError: Anything that a user can fix.
    """
    if resume is None:
        return run(load_settings(profiles, overrides))
    if resume == "auto":
        return _start_or_continue(load_settings(profiles, overrides), overrides)
    path = locate(resume, load_settings((), [o for o in overrides if o.startswith("runs_root=")]))
    return run(saved_settings(path, list(overrides)), path)


def _start_or_continue(settings: RunSettings, overrides: Sequence[str]) -> int:
    if not settings.name:
        raise ConfigError("--resume auto needs the name of the run", "add name=...")
    path = runs_root(settings) / settings.name
    if not (path / ABOUT).is_file():
        return run(settings)
    if read_about(path).get("status") == "finished":
        _say(f"{path} is finished: nothing to do")
        return 0
    return run(saved_settings(path, list(overrides)), path)


def run(settings: RunSettings, resume: Path | None = None) -> int:
    """One start of a run; see `train`."""
    try:
        plan = Plan.check(settings)  # before the folder: a run that cannot start takes no name
    except BaseException:
        ray.shutdown()
        raise
    folder = open_new(settings) if resume is None else reopen(resume, settings)
    status: Status = "failed"
    handler = log_to_file(folder.path / "train.log")
    try:
        with StopSignals() as signals:
            code = _run(settings, folder, plan, signals, resumed=resume is not None)
        status = "finished" if code == 0 else "interrupted"
        return code
    except Stopped as stopped:
        status = "interrupted"
        log.warning("stopped by %s", stopped)
        return stopped.code
    finally:
        ray.shutdown()
        folder.close(status)
        logging.getLogger().removeHandler(handler)
        handler.close()


@dataclass(frozen=True)
class Plan:
    """What is known of a run before anything is made or started."""

    grid: Grid
    seeds: list[Seed]

    @classmethod
    def check(cls, settings: RunSettings) -> "Plan":
        """Checks settings, model and resources.

        Raises:
            AceError, llm_service.errors.ModelError: The run cannot start.
        """
        check_resources(settings)
        grid = Grid.describe(settings.grid)
        return cls(grid, refinement.preflight(settings, grid))


def _run(settings: RunSettings, folder: RunFolder, plan: Plan, starting: StopSignals, resumed: bool) -> int:
    log.info("run %s (start %d)", folder.path, folder.about["starts"])
    log.info("%s", differences_text(settings))
    log.info("%s", resources.table(resources.processes(settings)))
    torch.set_num_threads(max(1, int(settings.resources.driver_cpu)))
    with starting.held():
        cluster = connect(settings)
    check_visible(folder.path)
    with StopSignals() as signals:  # again, since ray.init installs a handler of its own
        loop = start(settings, folder, plan.grid, cluster, plan.seeds if not resumed else [])
        code = -1
        try:
            code = loop.run(signals)
        finally:
            loop.close(in_order=code == 0)
        if cluster.local:
            ray.shutdown()  # its memory and CPUs are for the evaluation now
        if code == 0 and settings.evaluation.enabled:
            _say(final_table(settings, folder))
    _say(f"run folder: {folder.path}")
    return code


def start(
    settings: RunSettings, folder: RunFolder, grid: Grid, cluster: Cluster, seeds: Sequence[Seed]
) -> TrainingLoop:
    """Starts replay, runners, learner and refiners; continues from the last checkpoint if the run has one."""
    refining = refinement.Refinement(settings, folder, cluster)
    try:
        return _start(settings, folder, grid, refining, seeds)
    except BaseException:
        refining.stop(in_order=False)  # the model's service would outlive this process on a cluster
        raise


def _start(
    settings: RunSettings, folder: RunFolder, grid: Grid, refining: refinement.Refinement, seeds: Sequence[Seed]
) -> TrainingLoop:
    replay = start_replay(folder.replay, settings, grid.identity, domain_of(settings.grid))
    for line in ask(replay, "report"):
        log.warning("replay: %s", line)
    config = ACEConfig.from_settings(
        ACE,
        settings,
        grid=grid,
        replay=replay,
        runner=RolloutRunner,
        folder=folder.path,
        start=int(folder.about["starts"]),
    )
    algorithm = ACE(config)
    counters: dict[str, Any] = {}
    saved = checkpoint.find(folder.checkpoints)
    while saved:
        try:
            counters = algorithm.read_checkpoint(saved[-1])
            log.info("continues from checkpoint %s (%d updates)", saved[-1].path.name, algorithm.updates)
            break
        except RunFolderError as error:
            if len(saved) == 1:
                raise RunFolderError(error.problem, "no earlier checkpoint is left: start a new run") from error
            log.warning("%s; it is set aside, and an earlier checkpoint is used", error.problem)
            saved.pop().set_aside()
    if seeded := refinement.seed_queue(replay, list(seeds), settings.refine.queue):
        log.info("%d shipped salvageable decisions wait for refinement", seeded)
    refining.start(replay, counters)
    loop = TrainingLoop(settings, folder, algorithm, refining, counters)
    if not saved:
        loop.checkpoint()
    return loop


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
