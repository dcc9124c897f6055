"""Fine-tuning as a job of its own: submitted through Ray's Jobs API when enough refinements were confirmed.

The job (`ace finetune RUN`) has its own log and status in the dashboard. It publishes an accepted version itself, by
the run's `adapters/LATEST.json`, which refiners look at before every request: the driver only starts it and tells what
came of it.
"""

import json
import logging
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import ray

from ace_ray.config.run import RunSettings

log = logging.getLogger(__name__)

LOG_TAIL = 12
AGAIN_SECONDS = 15.0
CONNECT_SECONDS, READ_SECONDS = 5.0, 20.0
# RuntimeError: the head's job agent is starting or busy; OSError: every error of `requests` (refused, no answer, ...).
NO_ANSWER = (RuntimeError, OSError)
PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class Jobs(Protocol):
    """What of Ray's JobSubmissionClient is used."""

    def submit_job(self, *, entrypoint: str, **options: Any) -> str: ...
    def get_job_status(self, job_id: str) -> Any: ...
    def get_job_logs(self, job_id: str) -> str: ...
    def stop_job(self, job_id: str) -> bool: ...


class Finetuning:
    """At most one fine-tuning job at a time, every `finetune.every` newly confirmed refinements.

    Args:
        settings: Of the run.
        folder: Of the run.
        jobs: Ray's Jobs API.
        address: Of the cluster that the jobs belong to, `host:port`.
        tuned_at: Confirmed refinements when the last job was submitted; kept in the checkpoints.
        clock: Seconds; injected by tests.
    """

    def __init__(
        self,
        settings: RunSettings,
        folder: Path,
        jobs: Jobs,
        address: str,
        tuned_at: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.tuned_at = tuned_at
        self.outcomes = {"published": 0, "refused": 0, "failed": 0}
        self._jobs = jobs
        self._address = address
        self._clock = clock
        self._job: str | None = None
        self._records = self._count_records()
        self._again = 0.0

    @property
    def running(self) -> bool:
        """Whether a job is under way."""
        return self._job is not None

    def poll(self, confirmed: int) -> None:
        """Looks after the job at hand, or submits the next one.

        Args:
            confirmed: Accepted refinements over the whole run.
        """
        if self._clock() < self._again:
            return
        try:
            if self._job is None:
                if self._due(confirmed):
                    self._submit(confirmed)
            elif (status := self._jobs.get_job_status(self._job)).is_terminal():
                self._ended(self._job, str(status))
        except NO_ANSWER as error:
            if self._again == 0.0:
                log.warning("the Jobs API does not answer, it is asked again: %s", error)
            self._again = self._clock() + AGAIN_SECONDS  # asking holds the loop up for some seconds
        else:
            self._again = 0.0

    def finish(self, wait_s: float) -> None:
        """At the end of a run: lets the job at hand come to its gate, then stops what is left."""
        until = self._clock() + wait_s
        if self._job is not None and wait_s > 0:
            log.info("waiting for the fine-tuning job (at most %.0f s)", wait_s)
        while self._job is not None and self._clock() < until:
            self.poll(self.tuned_at)
            time.sleep(0.5)
        if self._job is not None:
            log.warning("fine-tuning job %s is stopped", self._job)
            try:
                self._jobs.stop_job(self._job)
            except NO_ANSWER as error:
                log.warning("the Jobs API does not answer, the job may go on: %s", error)
            self._job = None

    def _due(self, confirmed: int) -> bool:
        tune = self.settings.finetune
        return confirmed >= tune.least and confirmed - self.tuned_at >= tune.every

    def _submit(self, confirmed: int) -> None:
        resources = self.settings.resources
        command = [sys.executable, "-m", "ace_ray", "finetune", str(self.folder)]
        # Ray looks for the job's cluster by itself and may find another one on the same machine: it is told.
        environment = ["env", f"RAY_ADDRESS={self._address}"]
        self._job = self._jobs.submit_job(
            entrypoint=shlex.join([*environment, *command]),
            entrypoint_num_cpus=resources.finetune_cpu,
            entrypoint_num_gpus=resources.finetune_gpu,
            runtime_env=runtime_env(),
        )
        new = confirmed - self.tuned_at
        self.tuned_at = confirmed
        log.info("fine-tuning job %s: %d newly confirmed refinements", self._job, new)

    def _ended(self, job: str, status: str) -> None:
        record = self._latest_record()
        tail = "" if record else "\n".join(self._jobs.get_job_logs(job).splitlines()[-LOG_TAIL:])
        self._job = None
        if record is None:
            self.outcomes["failed"] += 1
            log.warning("fine-tuning job %s ended as %s without a decision:\n%s", job, status, tail)
            return
        outcome = "published" if record["published"] else "refused"
        self.outcomes[outcome] += 1
        gate = record["gate"]
        log.info(
            "fine-tuning: %s-v%d %s; survival regret %.3f -> %.3f on %d held-out decisions, %.0f s",
            record["role"],
            record["version"],
            outcome,
            gate["present_regret"],
            gate["new_regret"],
            gate["states"],
            record["seconds"],
        )

    def _count_records(self) -> int:
        return len(list((self.folder / "adapters").glob("finetune-*.json")))

    def _latest_record(self) -> dict[str, Any] | None:
        """The record that the job wrote, None if it wrote none."""
        count = self._count_records()
        if count == self._records:
            return None
        self._records = count
        return json.loads((self.folder / "adapters" / f"finetune-{count:03d}.json").read_text())


def connect_jobs(dashboard: str) -> Jobs:
    """Ray's Jobs API behind a dashboard address."""
    from ray.job_submission import JobSubmissionClient

    class PatientClient(JobSubmissionClient):
        """Ray's client waits for an answer without end."""

        def _do_request(self, *args: Any, **kwargs: Any) -> Any:
            return super()._do_request(*args, **{"timeout": (CONNECT_SECONDS, READ_SECONDS), **kwargs})

    return PatientClient(dashboard)


def runtime_env() -> dict[str, Any]:
    """The code of this process for a job that it submits.

    Inside a submitted job it must be passed on, or the new job runs in the head's start folder without our code.
    """
    own = ray.get_runtime_context().runtime_env
    env: dict[str, Any] = {key: own[key] for key in ("working_dir", "py_modules", "env_vars") if own.get(key)}
    if "working_dir" not in env:
        variables = dict(env.get("env_vars", {}))
        variables["PYTHONPATH"] = ":".join(filter(None, (str(PACKAGE_ROOT), variables.get("PYTHONPATH"))))
        env["env_vars"] = variables
    return env
