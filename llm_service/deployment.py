"""The Ray Serve deployment: one engine a replica.

Deployed through Serve's config path by `import_path: llm_service.deployment:build` (service.py writes that config, and
so may `serve deploy` with a YAML file). Which adapter answers is in every request, so nothing here is configured at run
time: a new version costs no redeployment and the replica keeps its process.

A replica whose engine died ends itself at once: Serve starts another, which a replica that answers every request with
an error would prevent. Requests that were inside get the reason, with the tail of the engine's log, before it goes.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from llm_service import logtail
from llm_service.engine import Engine
from llm_service.errors import LLMServiceError
from llm_service.heartbeat import Heartbeat
from llm_service.metrics import ReplicaMetrics
from llm_service.protocol import Failure, ReplicaReport, Reply, Request
from llm_service.settings import ServiceSettings

DEPLOYMENT = "llm"
_WATCH_S = 0.5  # how soon a dead engine is noticed while nobody asks
_FAREWELL_S = 0.3  # for the answers of the requests that were inside

_log = logging.getLogger("ray.serve")


class AppArguments(BaseModel):
    """`args` of the application in Serve's config; two runs or base models never share one application."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(description="run that the application belongs to")
    fingerprint: str = Field(description="of the base model, as the deploying process saw it")
    service: ServiceSettings = Field(description="settings of engine and deployment")
    replicas: int = Field(ge=1, description="number of replicas")
    cpus: float = Field(ge=0, description="CPUs that a replica reserves")
    gpus: float = Field(ge=0, description="GPUs that a replica reserves")
    heartbeat: str = Field("", description="file that the run's driver touches while it lives; empty: served for ever")


class Replica:
    """One engine and its counts; all methods run in the replica's event loop."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, run: str, settings: ServiceSettings, heartbeat: str = ""
    ) -> None:
        node = ray.util.get_node_ip_address()
        engine = settings.engine
        if not engine.log_file and (own := logtail.stderr_file()):
            # Beside the worker's own log, where Ray's dashboard lists it; the driver's terminal stays readable.
            engine = engine.model_copy(update={"log_file": str(own.parent / f"ace-llm-engine-{os.getpid()}.log")})
        self._engine = Engine(engine, name=f"llm replica of {run} (pid {os.getpid()})", node=node)
        await self._engine.start()
        self._metrics = ReplicaMetrics(run)
        self._run = Heartbeat(Path(heartbeat), settings.orphaned_minutes * 60) if heartbeat else None
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def ask(self, request: Request) -> Reply | Failure:
        """Answer one request; errors come back as data."""
        try:
            reply = await self._engine.generate(request)
        except LLMServiceError as error:
            self._metrics.finished(type(error).__name__)
            return Failure.of(error)
        self._metrics.finished("ok")
        return reply

    async def report(self) -> ReplicaReport:
        """Pid, node, base model, counts and served versions."""
        return self._engine.report()

    async def check_health(self) -> None:
        """Called by Serve; raising replaces the replica."""
        if dead := self._engine.dead:
            raise RuntimeError(str(dead))

    async def __call__(self, http: Any) -> Any:
        """`POST /` with the fields of a Request as JSON, for `ace llm serve`; the adapter is the base model's."""
        from starlette.responses import JSONResponse

        from llm_service.http import answer

        status, content = await answer(http, self.ask)
        return JSONResponse(content, status)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            self._metrics.update(self._engine.report())
            if self._run is not None and await asyncio.to_thread(self._run.gone):
                _log.error("the run of this deployment is gone; it ends")
                name = serve.get_replica_context().app_name
                await asyncio.to_thread(serve.delete, name, _blocking=False)
                self._run = None
            if dead := self._engine.dead:
                _log.error("%s", dead)
                await asyncio.sleep(_FAREWELL_S)
                os._exit(1)


def build(args: dict[str, Any]) -> serve.Application:
    """The application of one run; `args` as in `AppArguments`."""
    arguments = AppArguments.model_validate(args)
    service = arguments.service
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=arguments.replicas,
        # The engine refuses above max_queued with a reason; a few more places let that refusal be heard.
        max_ongoing_requests=service.engine.max_queued + 16,
        max_queued_requests=service.max_handle_queue,
        health_check_period_s=service.health_period_s,
        health_check_timeout_s=service.health_timeout_s,
        graceful_shutdown_timeout_s=5.0,
        logging_config={"log_level": "WARNING", "enable_access_log": False},
        ray_actor_options={"num_cpus": arguments.cpus, "num_gpus": arguments.gpus},
    )(Replica)
    return deployment.bind(arguments.run, service, arguments.heartbeat)


def package_root() -> Path:
    """The directory that has to be importable for `import_path`."""
    return Path(__file__).resolve().parent.parent
