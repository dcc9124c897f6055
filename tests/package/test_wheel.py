"""The wheel: what is inside, and that it evaluates and trains where nothing of the checkout can be imported."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("ace_ray", "llm_service")
LIMIT_MB = 20


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, without any path of this process; return what it printed."""
    ours = ("PYTHONPATH", "ACE_RUNS", "RAY_ADDRESS")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the sources, compiled files included, as they lie about in a checkout that was used."""
    source = tmp_path_factory.mktemp("source")
    for folder in (*PACKAGES, "configs", "tests"):
        shutil.copytree(REPO / folder, source / folder, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    run(sys.executable, "-c", build, source / "dist", cwd=source)
    (path,) = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment of its own with the wheel; other packages come from the environment of the tests.

    A line in a .pth file adds that folder only. The editable install of the checkout is a .pth file in it: those are
    not read there.
    """
    home = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    (packages / "tested.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return home / "bin"


def test_the_wheel_holds_code_profiles_weeks_and_model_and_nothing_of_the_checkout_beside_them(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert wheel.stat().st_size < LIMIT_MB * 2**20
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".nbi", ".nbc"))]
    tracked = {path.relative_to(REPO).as_posix() for folder in PACKAGES for path in (REPO / folder).rglob("*.py")}
    profiles = {path.relative_to(REPO / "configs").as_posix() for path in (REPO / "configs").rglob("*.yaml")}
    weeks = {path.relative_to(REPO).as_posix() for path in (REPO / "ace_ray" / "data").rglob("*.xz")}
    banks = {path.relative_to(REPO).as_posix() for path in (REPO / "ace_ray").rglob("banks/*.parquet")}
    model = REPO / "llm_service" / "models"
    wanted = {
        *tracked,
        *(f"ace_ray/profiles/{name}" for name in profiles),
        *weeks,
        *banks,
        *(path.relative_to(REPO).as_posix() for path in model.rglob("*") if path.is_file()),
        *(f"{package}/py.typed" for package in PACKAGES),
    }
    assert weeks and banks and not wanted - names


@pytest.mark.timeout(600)
def test_the_installed_package_evaluates_and_trains_in_an_empty_folder(bin: Path, tmp_path: Path) -> None:
    where = run(bin / "python", "-c", "import ace_ray, llm_service; print(ace_ray.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(bin.parent)
    played = run(
        bin / "ace", "evaluate", "--agent", "greedy", "--config", "grids/l2rpn_case14_sandbox",
        "--scenarios", "chronics=0;seeds=0;steps=20", "--processes", "1", "--json", "greedy.json",
        cwd=tmp_path,
    )  # fmt: skip
    assert "1/1" in played
    (episode,) = json.loads((tmp_path / "greedy.json").read_text())["episodes"]
    assert episode["steps"] == 20
    run(
        bin / "ace", "train", "--config", "smoke", "name=first", "refiner=off", "grid.env=l2rpn_case14_sandbox",
        "budget.decisions=50", "budget.minutes=5", "rollout.workers=1", "evaluation.enabled=false",
        cwd=tmp_path,
    )  # fmt: skip
    about = json.loads((tmp_path / "runs" / "first" / "run.json").read_text())
    assert about["status"] == "finished" and about["decisions"] >= 50 and about["updates"] > 0
