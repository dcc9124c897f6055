"""Jobs on several processes: Ray actors, each with an environment and agents of its own. One process needs no Ray."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayTaskError

from ace_ray.config.errors import ResourceError, WorkerError
from ace_ray.evaluation.player import Playable, Player

log = logging.getLogger(__name__)

ATTEMPTS = 2  # Ray gives itself 30 seconds to start, and a busy machine no more
START_S = 300.0  # without a single worker: a busy machine takes a minute to import everything
CPU_SHARE = 0.5  # of a worker, as of a rollout worker: an evaluation has room wherever its run had
STORE_MB = 80  # results are a few kB; Ray takes no less
IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Pool:
    """Evaluation workers, started when the first jobs come. A context manager: leaving it ends them.

    It works in the Ray that this process is connected to, else in the cluster that RAY_ADDRESS or the submitted job
    names, else in a local Ray of its own. The last one ends with this process whatever kills it: its head dies with
    its parent, and workers die with their head. Where it does not start, this process plays alone, and says so: an
    evaluation at the end of a long run should not be lost to a busy machine.

    Args:
        processes: workers at most; 1 plays in this process, without Ray.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._here: Player | None = None
        self._workers: list[Any] = []
        self._connected = False  # by this object, which then has to leave

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            ray.kill(worker)
        self._workers = []
        if self._connected:
            ray.shutdown()

    def run(self, jobs: Sequence[Playable]) -> Iterator[tuple[int, Any]]:
        """Does every job and yields `(its index, what it returned)` as they end, in any order.

        Args:
            jobs: the longest first, so that the last to end is a short one.

        Raises:
            WorkerError: a worker died (out of memory, killed), or none could be started. What a job itself raises
                comes through as it is.
            ResourceError: the cluster that was named is not there.
        """
        wanted = min(self.processes, len(jobs))
        if wanted > 1 and not ray.is_initialized():
            with _own_signals():
                self._connected = _connect(self.processes)
            if not self._connected:
                self.processes = wanted = 1
        if wanted <= 1 and not self._workers:
            self._here = self._here or Player()
            for index, job in enumerate(jobs):
                yield index, job.play(self._here)
            return
        actor = ray.remote(_Worker).options(
            num_cpus=CPU_SHARE, scheduling_strategy="SPREAD", runtime_env={"env_vars": dict.fromkeys(THREADS, "1")}
        )
        self._workers += [actor.remote() for _ in range(wanted - len(self._workers))]
        yield from self._share(jobs)

    def _share(self, jobs: Sequence[Playable]) -> Iterator[tuple[int, Any]]:
        """Gives the next job to whoever is free; a worker that the cluster has no CPU for gets none and harms none."""
        waiting = deque(enumerate(jobs))
        left = len(jobs)
        busy: dict[Any, tuple[int, Any]] = {worker.ready.remote(): (-1, worker) for worker in self._workers}
        timeout: float | None = START_S
        while left:
            done, _ = ray.wait(list(busy), timeout=timeout)
            if not done:
                raise WorkerError(
                    f"no evaluation worker has started within {START_S:.0f} s: no CPU is free",
                    "wait for other work on the cluster to end, or set evaluation.processes=1",
                )
            timeout = None
            index, worker = busy.pop(done[0])
            result = self._result(done[0])
            if waiting:
                following, job = waiting.popleft()
                busy[worker.play.remote(job)] = (following, worker)
            if index >= 0:
                left -= 1
                yield index, result

    def _result(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError as error:
            raise WorkerError(
                f"an evaluation worker (one of {len(self._workers)}) died: {str(error).splitlines()[0]}",
                "look for the out-of-memory killer in the system log; lower evaluation.processes",
            ) from error


class _Worker:
    """The actor."""

    def __init__(self) -> None:
        self.player = Player()

    def ready(self) -> None:
        """Returns once the process is there."""

    def play(self, job: Playable) -> Any:
        return job.play(self.player)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps a handler of SIGTERM, such as a run's that ends in order, where `ray.init` would put its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _connect(processes: int) -> bool:
    """Joins the cluster that is named, or starts a local Ray; False where the latter does not start."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if IN_A_JOB in os.environ or os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(address="auto", **quiet)
        except (ConnectionError, RuntimeError) as error:
            raise ResourceError(
                f"no Ray cluster for the evaluation: {error}", "start one, or unset RAY_ADDRESS"
            ) from error
        return True
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own is 15
    for _ in range(ATTEMPTS):
        try:
            ray.init(
                address="local",
                num_cpus=processes,
                include_dashboard=False,
                object_store_memory=STORE_MB << 20,
                **quiet,
            )
            return True
        except Exception as error:  # Ray raises bare Exceptions here
            ray.shutdown()
            log.warning("Ray did not start for the evaluation: %s", error)
    log.warning("one process plays instead of %d", processes)
    return False
