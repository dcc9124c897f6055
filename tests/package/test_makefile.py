"""What `make` would install: it keeps to the device that .venv was set up for."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copy(REPO / "Makefile", tmp_path)
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    shutil.copytree(REPO / "requirements", tmp_path / "requirements")
    return tmp_path


def planned(clone: Path, *arguments: str) -> str:
    """The commands that make would run, without running them.

    The tests themselves run under `make test`, whose variables would have this make announce its folder too.
    """
    of_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "DEVICE")
    environment = {name: value for name, value in os.environ.items() if name not in of_make}
    done = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=clone, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def set_up(clone: Path, device: str) -> None:
    """What a finished `make setup` leaves behind: the interpreter and the marker."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    for path in (clone / ".venv" / "bin" / "python", clone / ".venv" / f".ready-{device}"):
        path.touch()


def test_a_fresh_clone_gets_the_lock_of_the_cpu(clone: Path) -> None:
    commands = planned(clone, "test")
    assert "-r requirements/cpu.txt" in commands and "gpu.txt" not in commands and "rm -rf" not in commands


@pytest.mark.parametrize("target", ["setup", "test", "train", "lint", "format", "docs"])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_nothing_is_installed_over_an_environment_that_is_ready(clone: Path, device: str, target: str) -> None:
    set_up(clone, device)
    commands = planned(clone, target)
    assert "install" not in commands and "rm -rf" not in commands


@pytest.mark.parametrize(("device", "asked"), [("cpu", True), ("gpu", False)])
def test_the_index_of_cpu_builds_is_asked_for_the_cpu_only(clone: Path, device: str, asked: bool) -> None:
    assert ("download.pytorch.org/whl/cpu" in planned(clone, "setup", f"DEVICE={device}")) == asked


def test_a_newer_lock_of_the_gpu_is_installed_and_no_other(clone: Path) -> None:
    set_up(clone, "gpu")
    later = time.time() + 10
    os.utime(clone / "requirements" / "gpu.txt", (later, later))
    commands = planned(clone, "test")
    assert "-r requirements/gpu.txt" in commands and "cpu.txt" not in commands and "rm -rf" not in commands


@pytest.mark.parametrize(("had", "wanted"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_an_environment_of_the_other_device_is_made_anew(clone: Path, had: str, wanted: str) -> None:
    set_up(clone, had)
    commands = planned(clone, "setup", f"DEVICE={wanted}").splitlines()
    removed, installed = commands.index("rm -rf .venv"), [f"-r requirements/{wanted}.txt" in line for line in commands]
    assert removed < installed.index(True) and not any(f"{had}.txt" in line for line in commands)
