"""Where a run finds its Ray: the cluster that it is inside of, or a local head of its own.

A local head has the dashboard (and with it the Jobs API, which fine-tuning is submitted through) on loopback, and Ray's
token authentication stays on. A run inside a submitted job, or with RAY_ADDRESS set, attaches to that cluster.
"""

import contextlib
import inspect
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.parameter import RayParams

from ace_ray.coevolution import resources
from ace_ray.config.errors import ResourceError
from ace_ray.config.paths import ABOUT, inside_job
from ace_ray.config.run import RunSettings
from llm_service.machine import available_memory

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
QUIET = logging.ERROR  # Ray's and RLlib's own lines; what concerns a run is said by the run


@dataclass(frozen=True)
class Cluster:
    """The Ray that this process is connected to.

    Attributes:
        local: Started by this process, and ends with it.
        address: `host:port` of the head.
        dashboard: `http://host:port` of dashboard and Jobs API; '' where there is none.
    """

    local: bool
    address: str
    dashboard: str


def check_resources(settings: RunSettings) -> None:
    """Checks that the profile fits: this machine, or the cluster that this process attaches to here.

    Raises:
        ResourceError: The cluster cannot be reached, or the profile does not fit.
    """
    rows = resources.processes(settings)
    if _attached():
        attach()
        resources.check(rows, ray.cluster_resources())
        return
    resources.check(rows, {"CPU": resources.announced_cpus(), "GPU": _gpus()})
    free = available_memory()
    if free is not None:
        resources.check_memory(settings, free / 2**20)


def connect(settings: RunSettings) -> Cluster:
    """Attaches to a cluster or starts a local head, once `check_resources` has found that the profile fits.

    Raises:
        ResourceError: The cluster cannot be reached, or no head can be started.
    """
    attached = _attached()
    if attached:
        context = attach()
    else:
        # Ray starts workers at niceness 15: beside a learner in the driver they would stand still on a small machine.
        os.environ.setdefault("RAY_worker_niceness", "0")
        context = _start_head(settings)
    for noisy in ("ray", "ray.rllib", "ray.tune"):
        logging.getLogger(noisy).setLevel(QUIET)
    url = getattr(context, "dashboard_url", "") or ""
    address = ray.get_runtime_context().gcs_address
    return Cluster(local=not attached, address=address, dashboard=f"http://{url}" if url else "")


def _attached() -> bool:
    """Whether this process belongs to a cluster that runs already: of a submitted job, or named by RAY_ADDRESS."""
    return inside_job() or bool(os.environ.get("RAY_ADDRESS"))


def attach() -> Any:
    """Attaches to the cluster that this process belongs to.

    Raises:
        ResourceError: It cannot be reached.
    """
    try:
        return ray.init(address="auto", ignore_reinit_error=True, log_to_driver=False, logging_level=QUIET)
    except (ConnectionError, RuntimeError) as error:
        address = os.environ.get("RAY_ADDRESS", "auto")
        raise ResourceError(
            f"no Ray cluster at {address}: {error}", "start one (`ace cluster start`), or unset RAY_ADDRESS"
        ) from error


def _start_head(settings: RunSettings) -> Any:
    """A local head that ends with this process; tried twice, since Ray gives a busy machine 30 seconds and no more."""
    problem = ""
    for _ in range(2):
        try:
            with _any_agent_port():
                return ray.init(
                    address="local",
                    num_cpus=resources.announced_cpus(),
                    object_store_memory=settings.resources.object_store_mb << 20,
                    include_dashboard=True,
                    dashboard_host=LOOPBACK,
                    log_to_driver=False,
                    logging_level=QUIET,
                )
        except Exception as error:  # Ray raises bare Exceptions here
            ray.shutdown()
            problem = str(error)
            log.warning("Ray did not start: %s", problem)
    raise ResourceError(
        f"Ray does not start on this machine: {problem}", "is it overloaded? see /tmp/ray/session_latest"
    )


def check_visible(folder: Path) -> None:
    """Checks that every node of the cluster sees the run's folder.

    Raises:
        ResourceError: Naming the nodes that do not.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return

    @ray.remote(num_cpus=0)
    def sees(path: str) -> bool:
        return os.path.isfile(path)

    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    answers = ray.get(
        [
            sees.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(str(folder / ABOUT))
            for node in nodes
        ]
    )
    blind = [node["NodeManagerHostname"] for node, seen in zip(nodes, answers, strict=True) if not seen]
    if blind:
        raise ResourceError(
            f"{folder} is not visible from {', '.join(blind)}", "set runs_root (or $ACE_RUNS) to a shared folder"
        )


@contextlib.contextmanager
def _any_agent_port() -> Iterator[None]:
    """Lets the head's agent, which runs submitted jobs, take any free port.

    Its default port is fixed and `ray.init` does not offer to change it (`ray start` does), so a second Ray on the
    machine would have a dashboard that takes no job.
    """
    function = RayParams.__init__
    before = function.__defaults__
    names = list(inspect.signature(function).parameters)[-len(before or ()) :]
    changed = dict(zip(names, before or (), strict=True)) | {"dashboard_agent_listen_port": 0}
    function.__defaults__ = tuple(changed[name] for name in names)
    try:
        yield
    finally:
        function.__defaults__ = before


def _gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([d for d in visible.split(",") if d.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
