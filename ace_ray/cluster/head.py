"""A local Ray head with token authentication: start, stop, status.

Ray's own `ray start --head` runs without authentication where no token exists, and `ray stop` ends every Ray process
of the machine. Here a token is made first, dashboard, Jobs API and Serve listen on loopback, and every process of the
head carries the head's folder in its environment, by which these processes, and no others, are found again.

Ray's own ports (GCS, raylet, object manager, workers) listen on all addresses whatever `--node-ip-address` says; the
token guards them.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ace_ray.config.errors import AceError

LOOPBACK = "127.0.0.1"
STATE = "ace-head.json"
MARK = "ACE_HEAD"  # environment variable of every process of a head: its folder
START_S = 120.0
ATTEMPTS = 2  # Ray gives its node 30 s, which a machine under load may overrun
STOP_S = 5.0
STOP_WAIT, STOP_WAIT_S = "RAY_JOB_STOP_WAIT_TIME_S", "60"  # a stopped job's time to end in order; Ray's own is 3 s


class HeadError(AceError):
    """The local head cannot be started, found or stopped."""


@dataclass(frozen=True)
class Head:
    """A running local head, as written into its folder."""

    temp_dir: str
    port: int
    dashboard_port: int
    metrics_port: int
    num_cpus: int
    num_gpus: int
    object_store_mb: int

    @property
    def address(self) -> str:
        """For `ray.init(address=...)` and `RAY_ADDRESS` of drivers."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def dashboard(self) -> str:
        """For the browser, the Jobs API and `ray job submit --address`."""
        return f"http://{LOOPBACK}:{self.dashboard_port}"

    @property
    def metrics(self) -> str:
        """Where Prometheus finds this node's metrics."""
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"


def default_temp_dir() -> Path:
    """Return the folder of the default head; short, because Ray puts sockets (paths of at most 107 bytes) inside."""
    return Path("/tmp") / f"ace-ray-{os.getuid()}"


def token_source() -> str | None:
    """Return where Ray will find its token: a variable, a file, or None."""
    for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(variable):
            return f"${variable}"
    path = _token_file()
    return str(path) if path.is_file() else None


def ensure_token() -> str:
    """Return where the token comes from; make one in ~/.ray/auth_token unless there is one.

    Raises:
        HeadError: Ray could not write it.
    """
    found = token_source()
    if found is not None:
        return found
    path = _token_file()
    made = _ray("get-auth-token", "--generate", timeout=60)
    if made.returncode != 0 or not path.is_file():
        raise HeadError(f"cannot create a token in {path}: {_reason(made.stderr)}", f"make {path.parent} writable")
    path.chmod(0o600)  # Ray leaves it to the umask
    return str(path)


def start(
    temp_dir: Path,
    *,
    num_cpus: int,
    num_gpus: int = 0,
    object_store_mb: int,
    port: int = 6379,
    dashboard_port: int = 8265,
    metrics_port: int = 8080,
) -> Head:
    """Start a head in `temp_dir` and return it once it answers.

    Raises:
        HeadError: One runs there already, a port is taken, or Ray does not start; with Ray's last words.
    """
    if is_running(temp_dir):
        raise HeadError(
            f"a head is running in {temp_dir} already", "use it (ace cluster status), or `ace cluster stop` first"
        )
    ensure_token()
    head = Head(str(temp_dir), port, dashboard_port, metrics_port, num_cpus, num_gpus, object_store_mb)
    for name in ("port", "dashboard_port", "metrics_port"):
        if not _is_free(getattr(head, name)):
            option = "--" + name.replace("_", "-")
            raise HeadError(f"port {getattr(head, name)} is taken", f"choose another one with {option}")
    temp_dir.mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        done = _ray("start", *_options(head), timeout=START_S, mark=str(temp_dir))
        if done.returncode == 0:
            break
        _end(_processes(temp_dir))
    else:
        reason = _reason(done.stderr or done.stdout)
        raise HeadError(f"Ray did not start: {reason}", f"read {temp_dir}/session_latest/logs")
    (temp_dir / STATE).write_text(json.dumps(asdict(head), indent=1) + "\n", encoding="utf-8")
    return head


def _options(head: Head) -> list[str]:
    return [
        "--head",
        f"--node-ip-address={LOOPBACK}",
        f"--port={head.port}",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={head.dashboard_port}",
        "--dashboard-agent-listen-port=0",
        "--min-worker-port=0",  # any free ones: Ray's default range collides with a second head's
        "--max-worker-port=0",
        f"--ray-client-server-port={_free_port()}",
        f"--metrics-export-port={head.metrics_port}",
        f"--num-cpus={head.num_cpus}",
        f"--num-gpus={head.num_gpus}",
        f"--object-store-memory={head.object_store_mb * 2**20}",
        f"--temp-dir={head.temp_dir}",
        "--disable-usage-stats",
    ]


def stop(temp_dir: Path) -> int:
    """End all processes of the head in `temp_dir`, its jobs included; return how many there were."""
    found = _processes(temp_dir)
    _end(found)
    (temp_dir / STATE).unlink(missing_ok=True)
    return len(found)


def is_running(temp_dir: Path) -> bool:
    """Return whether processes of a head in `temp_dir` are alive."""
    return bool(_processes(temp_dir))


def find(temp_dir: Path) -> Head:
    """Return the head that runs in `temp_dir`.

    Raises:
        HeadError: None does.
    """
    try:
        head = Head(**json.loads((temp_dir / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        head = None
    if head is None or not is_running(temp_dir):
        raise HeadError(f"no head is running in {temp_dir}", "start one: ace cluster start")
    return head


def status(temp_dir: Path) -> tuple[Head, str]:
    """Return the head and what Ray says about its nodes, resources and pending demands.

    Raises:
        HeadError: None runs, or it does not answer (another token, say).
    """
    head = find(temp_dir)
    told = _ray("status", f"--address={head.address}", timeout=60)
    if told.returncode != 0:
        raise HeadError(f"the head does not answer: {_reason(told.stderr)}", "use the token that it was started with")
    return head, told.stdout.strip()


def token_environment() -> Mapping[str, str]:
    """Return the environment in which Ray's commands use the token, and find this Python first."""
    here = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "")
    return {**os.environ, "RAY_AUTH_MODE": "token", "PATH": path if path.startswith(here) else f"{here}:{path}"}


def _ray(*arguments: str, timeout: float, mark: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", *arguments]
    environment = {STOP_WAIT: STOP_WAIT_S, **token_environment(), **({MARK: mark} if mark else {})}
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise HeadError(
            f"`ray {arguments[0]}` did not end within {timeout:.0f} s", "stop the head and start it again"
        ) from None


def _processes(temp_dir: Path) -> list[psutil.Process]:
    """The head's processes: those that carry its mark in their environment, and everything below them.

    A process that rewrites its title (a Ray worker does) may overwrite its environment too; but then it has a parent
    that does not.
    """
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(temp_dir):
                found |= {process.pid: process, **{child.pid: child for child in process.children(recursive=True)}}
        except psutil.Error:
            continue  # gone, or another user's
    found.pop(os.getpid(), None)
    return list(found.values())


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.terminate()
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(processes, timeout=STOP_S)
    for process in alive:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(alive, timeout=STOP_S)


def _token_file() -> Path:
    return Path.home() / ".ray" / "auth_token"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _reason(text: str) -> str:
    """The line that says what went wrong: a Python error's, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or ["it said nothing"])[-1]
