"""The life of a run's application on Ray Serve: deploy or adopt, and delete; and a service on loopback for a person.

Serve's config path is declarative for the whole cluster: a config that does not name another run's application deletes
it. So every deployment here is "what is there, plus ours".
"""

import contextlib
import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from llm_service.adapters import model_fingerprint
from llm_service.client import LLMClient
from llm_service.errors import ModelError
from llm_service.preflight import check_memory, check_model
from llm_service.settings import ServiceSettings

if TYPE_CHECKING:
    from llm_service.deployment import AppArguments

_log = logging.getLogger(__name__)
_PREFIX = "ace-llm-"
_POLL_S = 0.25


def app_name(run: str) -> str:
    """Name of a run's application. Serve takes few characters, so runs of different names may share one."""
    return _PREFIX + re.sub(r"[^A-Za-z0-9_-]+", "-", run)


SERVE, BENCH = "serve", "bench"  # in the place of a run
OF_NO_RUN = (app_name(SERVE), app_name(BENCH))


def deploy(
    run: str, settings: ServiceSettings, *, replicas: int, cpus: float, gpus: float, heartbeat: Path | None = None
) -> str:
    """Bring the run's application up, or adopt the one that a former process of the same run left running.

    Args:
        cpus, gpus: what each replica reserves.
        heartbeat: file that the run's driver touches while it lives; the application ends itself when it stands still
            for `orphaned_minutes`. None: it is served until it is deleted.

    Returns:
        The application's name, for `LLMClient`.

    Raises:
        ModelError: the model cannot be served; the application is taken down again.
    """
    import ray

    from llm_service.deployment import AppArguments

    directory = check_model(settings.engine)
    pinned = settings.model_copy(update={"engine": settings.engine.model_copy(update={"model": str(directory)})})
    arguments = AppArguments(
        run=run,
        fingerprint=model_fingerprint(directory),
        service=pinned,
        replicas=replicas,
        cpus=cpus,
        gpus=gpus,
        heartbeat=str(heartbeat or ""),
    ).model_dump(mode="json")
    name = app_name(run)
    # Inside a run nothing speaks HTTP; no proxy process is started.
    _start_serve(proxy_location="Disabled", http_options={"host": "127.0.0.1"})
    if _adoptable(name, arguments):
        _log.info("adopting %s", name)
    else:
        if len(ray.nodes()) == 1:  # the replica will be here; on a cluster it checks its own node
            check_memory(settings.engine, directory)
        _apply(name, arguments, route_prefix=None)
    _wait_until_running(name, settings.start_timeout_s)
    return name


def delete(run: str) -> None:
    """Take the run's application down; no error if there is none."""
    take_down(app_name(run))


def take_down(app: str) -> None:
    """Take an application down; no error if there is none."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    with contextlib.suppress(RayServeException):
        if app in serve.status().applications:
            serve.delete(app)


def applications() -> "dict[str, AppArguments | None]":
    """What each of our applications was deployed with; None where that cannot be read (by another version)."""
    from ray import serve

    from llm_service.deployment import AppArguments

    def read(config: dict[str, Any]) -> AppArguments | None:
        try:
            return AppArguments.model_validate(config.get("args"))
        except ValidationError:
            return None

    status = serve.status().applications  # empty where Serve is not started, while the configuration raises
    ours = [name for name, one in status.items() if name.startswith(_PREFIX) and one.status != "DELETING"]
    configured = _configured() if ours else {}
    return {name: read(configured.get(name, {})) for name in ours}


@contextlib.contextmanager
def deployed(
    run: str, adapters_dir: Path | str | None, settings: ServiceSettings, *, replicas: int, cpus: float, gpus: float
) -> Iterator[LLMClient]:
    """The run's application for the length of a block, with a client to it."""
    name = deploy(run, settings, replicas=replicas, cpus=cpus, gpus=gpus)
    try:
        yield LLMClient(name, adapters_dir, settings)
    finally:
        delete(run)


def serve_forever(settings: ServiceSettings, *, port: int, say: Callable[[str], None]) -> None:
    """Serve the model on 127.0.0.1 until interrupted: `POST /` with {"messages": [...], ...} (http.py).

    Starts a Ray of its own, so that it disturbs no run on this machine.

    Args:
        say: prints a line.
    """
    import ray
    from ray import serve

    from llm_service.deployment import AppArguments

    directory = check_model(settings.engine)
    pinned = settings.model_copy(update={"engine": settings.engine.model_copy(update={"model": str(directory)})})
    check_memory(settings.engine, directory)
    threads = float(settings.engine.threads) if settings.engine.device == "cpu" else 1.0
    gpus = float(settings.engine.tensor_parallel) if settings.engine.device == "cuda" else 0.0
    ray.init(address="local", num_cpus=max(1, int(threads)), include_dashboard=False, log_to_driver=False)
    stop = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _start_serve(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        arguments = AppArguments(
            run=SERVE,
            fingerprint=model_fingerprint(directory),
            service=pinned,
            replicas=1,
            cpus=threads,
            gpus=gpus,
        ).model_dump(mode="json")
        _apply(app_name(SERVE), arguments, route_prefix="/")
        say(f"starting {directory} ...")
        _wait_until_running(app_name(SERVE), settings.start_timeout_s, stop)
        if not stop.is_set():
            say(f"serving {directory.name} on http://127.0.0.1:{port}/ (Ctrl-C ends it)")
        stop.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        serve.shutdown()
        ray.shutdown()


def _start_serve(proxy_location: str, http_options: dict[str, Any]) -> None:
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # a run's terminal shows the run
    serve.start(proxy_location=proxy_location, http_options=http_options, logging_config={"log_level": "WARNING"})


def _adoptable(name: str, arguments: dict[str, Any]) -> bool:
    """Is an application of this run with this base model and these settings up?"""
    from ray import serve

    status = serve.status().applications.get(name)
    if status is None or status.status not in ("RUNNING", "DEPLOYING"):
        return False
    config = _configured().get(name)
    return config is not None and config.get("args") == arguments


def _configured() -> dict[str, dict[str, Any]]:
    """Config of every application on the cluster that came by the config path."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    applications = client.get_serve_details()["applications"] if client is not None else {}
    return {
        name: details["deployed_app_config"]
        for name, details in applications.items()
        if details.get("deployed_app_config") and details["status"] != "DELETING"
    }


def _apply(name: str, arguments: dict[str, Any], route_prefix: str | None) -> None:
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

    ours = ServeApplicationSchema(
        name=name,
        route_prefix=route_prefix,
        import_path="llm_service.deployment:build",
        runtime_env=_runtime_env(),
        args=arguments,
    )
    others = [ServeApplicationSchema.model_validate(c) for other, c in _configured().items() if other != name]
    _get_global_client().deploy_apps(ServeDeploySchema(applications=[*others, ours]))


def _runtime_env() -> dict[str, Any]:
    """The code of the process that deploys, for the processes that serve."""
    import ray

    from llm_service.deployment import package_root

    own = ray.get_runtime_context().runtime_env
    env = {key: own[key] for key in ("working_dir", "py_modules", "env_vars") if own.get(key)}
    if "working_dir" not in env:  # not a submitted job: the checkout, or wherever the package is installed
        variables = dict(env.get("env_vars", {}))
        variables["PYTHONPATH"] = ":".join(filter(None, (str(package_root()), variables.get("PYTHONPATH"))))
        env["env_vars"] = variables
    return env


def _wait_until_running(name: str, timeout_s: float, stop: threading.Event | None = None) -> None:
    from ray import serve

    until = time.monotonic() + timeout_s
    message = ""
    while time.monotonic() < until and not (stop is not None and stop.is_set()):
        status = serve.status().applications.get(name)
        if status is not None:
            if status.status == "RUNNING":
                return
            message = "\n".join([status.message, *(d.message for d in status.deployments.values())]).strip()
            if problem := _model_error(message):
                serve.delete(name)
                raise ModelError(*problem)
            if status.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                serve.delete(name)
                raise ModelError(f"{name} does not start: {_last_line(message)}", "see the dashboard's Serve page")
        time.sleep(_POLL_S)
    if stop is None or not stop.is_set():
        serve.delete(name)
        raise ModelError(
            f"{name} is not running after {timeout_s:g} s: {_last_line(message) or 'no status'}",
            "check for free CPUs (ray status), or raise llm.start_timeout_s",
        )


def _model_error(message: str) -> tuple[str, str] | None:
    """Problem and remedy of a ModelError in a replica's constructor, found in Serve's status message."""
    match = re.search(r"llm_service\.errors\.ModelError: (.+?)(?:\n\s*remedy: (.+?))?(?:\n|$)", message)
    return (match[1], match[2] or "") if match else None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
