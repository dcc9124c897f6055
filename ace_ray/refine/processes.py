"""Refiner processes: the Ray actor around `Refiner` and `Critic`, and the group that keeps them running.

A refiner asks the replay for the next pending decisions, refines them and hands every result back at once, so a refiner
that dies loses one decision's work at most: the replay gives out again what it had taken. Nothing else waits for a
refiner, and a refiner waits for nobody but the model's deadline.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from ace_ray.config.errors import WorkerError
from ace_ray.config.run import RunSettings
from ace_ray.refine.builder import Workbench, domain_of
from ace_ray.refine.case import Proposer
from ace_ray.refine.critic import Critic
from ace_ray.refine.proposers import LanguageProposer, replay_free_proposer
from ace_ray.refine.refiner import Refiner

log = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
FAILURES_IN_A_ROW = 3


@dataclass(frozen=True)
class ModelAddress:
    """Where a refiner finds the language model of the run: Serve application and adapters folder.

    `app` is empty where an endpoint serves the model (`llm.endpoint`).
    """

    app: str
    adapters: Path


class RefinerLoop:
    """One refiner process: environment, comparator, proposer, critic.

    Args:
        settings: of the run.
        replay: handle of the replay actor.
        index: number of the refiner, from 0.
        model: of the run when `refine.refiner` is llm, else None.
        start: how often the run was started; part of the seed.
    """

    def __init__(
        self, settings: RunSettings, replay: Any, index: int, model: ModelAddress | None = None, start: int = 1
    ) -> None:
        self.name = f"refiner-{index}"
        self._replay = replay
        self._stop = threading.Event()
        domain, bench = domain_of(settings.grid), Workbench(settings.grid, settings.language)
        rng = np.random.default_rng([settings.seed, 1000 + index, start])
        self._critic: Critic | None = None
        proposer: Proposer
        if model is None:
            proposer = replay_free_proposer(settings.refine, int(rng.integers(2**31)))
        else:
            from llm_service.client import LLMClient
            from llm_service.endpoint import EndpointClient

            served = LLMClient(model.app, model.adapters, settings.llm) if model.app else None
            client = served or EndpointClient(settings.llm)
            proposer = LanguageProposer(client, bench.actor, settings.language, int(rng.integers(2**31)))
            if settings.critic.source != "off":
                seed = lambda: int(rng.integers(2**31))  # noqa: E731
                simulator = bench.comparator.simulator
                self._critic = Critic(client, domain, simulator, bench.actor, settings.critic, settings.language, seed)
        self._refiner = Refiner(
            domain,
            bench.comparator,
            proposer,
            settings,
            reserve=lambda n: ray.get(replay.reserve.remote(n)),
            stopped=self._stop.is_set,
        )

    def run(self) -> int:
        """Refines until `stop`; returns the number of decisions thought over."""
        done = 0
        while not self._stop.is_set():
            items = ray.get(self._replay.pop.remote(self.name))
            for result in self._refiner.refine(items):
                ray.get(self._replay.finish.remote(self.name, result))
                done += 1
            judged = self._judge()
            if not items and not judged:
                self._stop.wait(IDLE_SECONDS)
        return done

    def stop(self) -> None:
        """Ends `run` after the replay at hand; what is unfinished stays pending in the shards."""
        self._stop.set()

    def _judge(self) -> bool:
        """One episode for the critic, if one waits."""
        if self._critic is None or self._stop.is_set():
            return False
        episode = ray.get(self._replay.take_episode.remote())
        if not episode:
            return False
        criticism = self._critic.judge(episode)
        if criticism.error:
            log.warning("%s: critic of episode %s: %s", self.name, criticism.episode, criticism.error)
        lost = {name: count for name, count in ((criticism.error, 1), ("dropped", criticism.dropped)) if name and count}
        ray.get(self._replay.edit.remote(criticism.episode, criticism.edits, **lost))
        return True


class Refiners:
    """The refiner processes of a run, from the driver's side.

    Args:
        settings: of the run; `refine.refiner` off, or no refiners, starts none.
        replay: handle of the replay actor.
        model: where the language model is; needed when `refine.refiner` is llm.
        start: how often the run was started.
    """

    def __init__(self, settings: RunSettings, replay: Any, model: ModelAddress | None = None, start: int = 1) -> None:
        count = 0 if settings.refine.refiner == "off" else settings.refine.refiners
        remote = ray.remote(RefinerLoop)
        options = {"num_cpus": settings.resources.refiner_cpu, "max_concurrency": 2, "max_restarts": -1}
        self._actors = [remote.options(**options).remote(settings, replay, i, model, start) for i in range(count)]
        self._runs = {actor.run.remote(): i for i, actor in enumerate(self._actors)}
        self._failures = [0] * count
        self._since = [time.monotonic()] * count

    def check(self) -> list[str]:
        """Starts again what ended; call it now and then.

        Returns:
            One sentence for each refiner that had failed.

        Raises:
            WorkerError: a refiner failed several times in a row (within a minute each), with its last error.
        """
        told = []
        done, _ = ray.wait(list(self._runs), num_returns=len(self._runs), timeout=0) if self._runs else ([], [])
        for ref in done:
            index = self._runs.pop(ref)
            try:
                ray.get(ref)
            except ray.exceptions.RayError as error:
                quick = time.monotonic() - self._since[index] < 60.0
                self._failures[index] = self._failures[index] + 1 if quick else 1
                told.append(f"refiner {index} failed ({self._failures[index]} in a row): {error}")
                if self._failures[index] >= FAILURES_IN_A_ROW:
                    raise WorkerError(
                        f"refiner {index} failed {self._failures[index]} times in a row:\n{error}",
                        "fix the cause and resume the run, or train with refine.refiner=off",
                    ) from error
            self._since[index] = time.monotonic()
            self._runs[self._actors[index].run.remote()] = index
        return told

    def stop(self, wait_s: float = 10.0) -> None:
        """Ends the refiners: lets the replay at hand finish, then kills what is left."""
        if not self._actors:
            return
        for actor in self._actors:
            actor.stop.remote()
        ray.wait(list(self._runs), num_returns=len(self._runs), timeout=wait_s)
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._runs = [], {}
