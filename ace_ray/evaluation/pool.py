"""Episodes on several processes: plain `spawn` workers, each with an environment of its own, no cluster needed.

This module imports nothing heavy at its top: the thread counts of numeric libraries are read when those are first
imported, and a worker sets them before.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from ace_ray.config.errors import WorkerError

if TYPE_CHECKING:
    from ace_ray.config.grid import GridSettings
    from ace_ray.evaluation.play import Played
    from ace_ray.grid.scenario import Scenario

THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
Job = tuple[str, "GridSettings", "Scenario"]


class Bench:
    """What one process needs to play: environments and agents, made once and used again."""

    def __init__(self) -> None:
        self._envs: dict[str, Any] = {}
        self._agents: dict[tuple[str, str], Any] = {}

    def env(self, settings: GridSettings) -> Any:
        """The environment of these settings."""
        from ace_ray.grid.environment import make_env

        key = settings.model_dump_json()
        if key not in self._envs:
            self._envs[key] = make_env(settings)
        return self._envs[key]

    def agent(self, spec: str, settings: GridSettings) -> Any:
        """The agent `spec` in that environment."""
        from ace_ray.agents import registry

        key = (spec, settings.model_dump_json())
        if key not in self._agents:
            env = self.env(settings)
            env.reset()  # after a blackout an environment has no grid that an engine could be made from
            self._agents[key] = registry.make(spec, env, settings)
        return self._agents[key]

    def play(self, job: Job) -> Played:
        """Plays one job."""
        from ace_ray.evaluation.play import play

        spec, settings, scenario = job
        return play(self.env(settings), self.agent(spec, settings), scenario, settings)


_bench: Bench | None = None


def _start(path: list[str]) -> None:
    """Runs once in each worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    sys.path[:] = path
    for name in THREAD_COUNTS:
        os.environ[name] = "1"


def _play(job: Job) -> Played:
    global _bench
    _bench = _bench or Bench()
    return _bench.play(job)


def play_all(jobs: Sequence[Job], processes: int) -> Iterator[tuple[int, Played]]:
    """Plays jobs `(agent, settings, scenario)` and yields `(index, Played)` as they end, in any order.

    One process means this one.

    Args:
        jobs: what to play; neighbours in the list should be of like length, the longest first.
        processes: worker processes.

    Raises:
        WorkerError: a worker died (out of memory, killed). What an episode itself raises comes through as it is.
    """
    if processes <= 1 or len(jobs) <= 1:
        bench = Bench()
        for index, job in enumerate(jobs):
            yield index, bench.play(job)
        return
    workers = min(processes, len(jobs))
    executor = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start, initargs=(list(sys.path),))
    try:
        futures: dict[Future[Played], int] = {executor.submit(_play, job): i for i, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise WorkerError(
            f"an evaluation worker ({workers} processes on this machine) died: {error}",
            "look for the out-of-memory killer in the system log; lower evaluation.processes",
        ) from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
