"""A training run as a submitted job: the code travels as a working folder, the run stays in an absolute one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ace_ray.config.load import load_settings
from cluster import head
from tests.cluster.sites import REPO, Site

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]


def submit(site: Site, *settings: str, timeout: float = 500.0) -> subprocess.CompletedProcess[str]:
    command = ["job", "submit", "--address", site.head.dashboard, "--working-dir", ".", "--"]
    train = ["python", "-m", "ace_ray", "train", "--config", "configs/smoke.yaml", *settings]
    environment = site.environment(site.home, "token")
    environment.pop("ACE_RUNS", None)
    environment["PATH"] = head.token_environment()["PATH"]
    return subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *command, *train],
        cwd=REPO, env=environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def test_the_smoke_profile_runs_to_success_as_a_job(site: Site, tmp_path: Path) -> None:
    done = submit(
        site, f"runs_root={tmp_path}", "name=job", "budget.minutes=5", "budget.decisions=60", "evaluation.enabled=false"
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "succeeded" in done.stdout + done.stderr
    run = tmp_path / "job"
    about = json.loads((run / "run.json").read_text())
    assert about["status"] == "finished" and about["decisions"] > 0
    assert load_settings([run / "config.yaml"]).refine.refiner == "llm"
    assert sorted((run / "checkpoints").iterdir())
    assert json.loads((run / "replay" / "manifest.json").read_text())["shards"]
    assert not (REPO / "runs" / "job").exists()


def test_a_relative_runs_root_is_refused_in_a_job(site: Site) -> None:
    done = submit(site, "runs_root=runs", timeout=200)
    assert done.returncode != 0
    assert "relative" in done.stdout and "absolute folder" in done.stdout
    assert not os.path.exists(REPO / "runs" / "job")
