"""Thinking twice, seen from the driver: the language model's service, the refiner processes, fine-tuning.

Everything here runs beside the loop and never holds it up. What a refiner finds goes to the replay by itself.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ace_ray.coevolution.config import Grid
from ace_ray.coevolution.connect import Cluster
from ace_ray.coevolution.finetuning import Finetuning, connect_jobs
from ace_ray.coevolution.remote import ask
from ace_ray.coevolution.run_folder import RunFolder
from ace_ray.config.errors import ConfigError, ResourceError
from ace_ray.config.paths import HEARTBEAT
from ace_ray.config.run import RunSettings
from ace_ray.finetune.held_out import Seed, read_seeds, warn_if_aged
from ace_ray.language.schema import ACTOR_SCHEMA, PAPER_SCHEMA
from ace_ray.refine.builder import domain_of
from ace_ray.refine.processes import ModelAddress, Refiners
from ace_ray.replay.pending import PendingRefinement
from llm_service import service
from llm_service.endpoint import check_endpoint, first_answer
from llm_service.preflight import check_model
from llm_service.published import PublishedVersions
from llm_service.settings import EMBEDDED

log = logging.getLogger(__name__)

FINETUNE_WAIT_S = 300.0
LEAST_PROMPT = 512  # tokens; the prompts of a grid of 14 substations and more are longer


def preflight(settings: RunSettings, grid: Grid) -> list[Seed]:
    """Checks what refinement will need, before anything is started; returns the snapshots that may seed the queue.

    Raises:
        llm_service.errors.ModelError: The model is missing or cannot be served here, or its endpoint does not answer.
        ConfigError: Fine-tuning of a model behind an endpoint is asked for, or a reply leaves no room for a prompt.
        DataError, GridMismatchError: Seeds are wanted and missing, or of another grid.
    """
    if settings.refine.refiner == "off":
        return []
    if settings.refine.refiner == "llm" and settings.llm.endpoint.url:
        check_endpoint(settings.llm)
        if settings.finetune.enabled:
            raise ConfigError(
                "a model behind llm.endpoint.url is not tuned here", "set finetune.enabled=false, or llm.engine.model"
            )
        schema = PAPER_SCHEMA if settings.language.prompt == "paper" else ACTOR_SCHEMA
        language = settings.language
        first_answer(settings.llm, schema, max_tokens=language.max_tokens, deadline_s=language.deadline_s)
    elif settings.refine.refiner == "llm":
        check_model(settings.llm.engine)
        check_lengths(settings)
    if not settings.refine.seed_queue:
        return []
    domain = domain_of(settings.grid)
    warn_if_aged(EMBEDDED, domain)
    return read_seeds(settings.grid, grid.catalogue, domain)


def check_lengths(settings: RunSettings) -> None:
    """Raises `ConfigError` where thought and reply leave no room for a prompt: every request would be refused."""
    engine, language = settings.llm.engine, settings.language
    room = engine.max_model_len - engine.thinking_tokens - language.max_tokens
    if room < LEAST_PROMPT:
        thought = f" and llm.engine.thinking_tokens={engine.thinking_tokens}" if engine.thinking_tokens else ""
        raise ConfigError(
            f"llm.engine.max_model_len={engine.max_model_len} leaves {max(0, room)} tokens for a prompt beside "
            f"language.max_tokens={language.max_tokens}{thought}",
            "raise llm.engine.max_model_len (for a longer context, take a larger model), or lower the other",
        )


class Refinement:
    """The refining side of one run; with refiner 'off' nothing is started.

    The model takes half a minute and more to load: its service is deployed in a thread while workers and learner start,
    and `start` waits for it.

    Args:
        settings: Of the run.
        folder: Of the run.
        cluster: Where the run is; its Jobs API takes the fine-tuning jobs.

    Raises:
        ResourceError: Fine-tuning is wanted, and the cluster has no Jobs API.
    """

    def __init__(self, settings: RunSettings, folder: RunFolder, cluster: Cluster) -> None:
        self.settings = settings
        self.folder = folder
        self.finetuning: Finetuning | None = None
        self._published: PublishedVersions | None = None
        self._refiners: Refiners | None = None
        self._deployment: Future[str] | None = None
        if settings.refine.refiner != "llm":
            return
        if settings.finetune.enabled:
            if not cluster.dashboard:
                raise ResourceError(
                    "fine-tuning needs the Jobs API, and this cluster has no dashboard",
                    "start the head with its dashboard, or set finetune.enabled=false",
                )
            self.finetuning = Finetuning(settings, folder.path, connect_jobs(cluster.dashboard), cluster.address)
        self._published = PublishedVersions(folder.adapters)
        if settings.llm.endpoint.url:
            log.info("the language model is %s at %s", settings.llm.endpoint.model, settings.llm.endpoint.url)
            return
        self._published.begin_with(settings.llm.engine.shipped())
        log.info("starting the language model (%s)", settings.llm.engine.model)
        pool = ThreadPoolExecutor(1, thread_name_prefix="deploy")
        r = settings.resources
        self._deployment = pool.submit(
            service.deploy,
            folder.about["name"],
            settings.llm,
            replicas=r.llm_replicas,
            cpus=r.llm_cpu,
            gpus=r.llm_gpu,
            heartbeat=folder.path / HEARTBEAT,
        )
        pool.shutdown(wait=False)

    def start(self, replay: Any, counters: dict[str, Any]) -> None:
        """Waits for the model and starts the refiners.

        Args:
            replay: Handle of the replay actor.
            counters: From the checkpoint of a resumed run.

        Raises:
            llm_service.errors.ModelError: The model does not start.
        """
        if self.finetuning is not None:
            self.finetuning.tuned_at = int(counters.get("tuned_at", 0))
        model = None
        if self._published is not None:
            app = "" if self._deployment is None else self._deployment.result()
            model = ModelAddress(app, self.folder.adapters)
        self._refiners = Refiners(self.settings, replay, model, int(self.folder.about["starts"]))

    def check(self, stats: dict[str, Any]) -> None:
        """Restarts what failed and submits fine-tuning when it is due; call it every few seconds.

        Args:
            stats: `ReplayCore.stats()`.

        Raises:
            WorkerError: A refiner fails again and again.
        """
        for line in self._refiners.check() if self._refiners else ():
            log.warning("%s", line)
        if self.finetuning is not None:
            self.finetuning.poll(int(stats["refinement"]["accepted"]))

    @property
    def adapters(self) -> dict[str, int]:
        """Role -> version that it is served with, 0 for the base model; {} without a language model."""
        if self._published is None:
            return {}
        return {"actor": 0} | {role: ref.version for role, ref in self._published.all().items()}

    @property
    def counters(self) -> dict[str, Any]:
        """What a resume has to know."""
        return {} if self.finetuning is None else {"tuned_at": self.finetuning.tuned_at}

    def stop(self, in_order: bool) -> None:
        """Ends refiners, fine-tuning and the model's service.

        Args:
            in_order: The budget is spent: a fine-tuning under way may come to its gate. Otherwise it is stopped.
        """
        if self._refiners is not None:
            self._refiners.stop()
        if self.finetuning is not None:
            self.finetuning.finish(FINETUNE_WAIT_S if in_order else 0.0)
        if self._deployment is not None:
            service.delete(self.folder.about["name"])


def seed_queue(replay: Any, seeds: list[Seed], capacity: int) -> int:
    """Fills the queue of a new run with shipped salvageable decisions; returns how many."""
    chosen = seeds[:capacity]
    if not chosen:
        return 0
    first = ask(replay, "reserve", len(chosen))
    pending = [
        PendingRefinement(
            id=first + i,
            parent_id=-1,
            snapshot=seed.snapshot,
            played=seed.played,
            reason="seed",
            distance=seed.distance,
        )
        for i, seed in enumerate(chosen)
    ]
    ask(replay, "push", pending)
    return len(chosen)
