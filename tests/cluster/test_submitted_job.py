"""The whole loop as a submitted job: the smoke profile with the language model, watched at the metrics endpoint."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ace_ray.cluster import head
from ace_ray.config.load import load_settings
from tests.cluster.sites import REPO, Site

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

WANTED = {
    "ace_decisions_per_second", "ace_decisions_total", "ace_policy_staleness", "ace_refinements_asked_total",
    "ace_refinements_accepted_total", "ace_adapter_version", "ace_llm_requests_in_flight", "ace_llm_mean_batch",
}  # fmt: skip


def submit(site: Site, output: Path, *settings: str) -> subprocess.Popen[str]:
    command = ["job", "submit", "--address", site.head.dashboard, "--working-dir", ".", "--"]
    train = ["python", "-m", "ace_ray", "train", "--config", "smoke", *settings]
    environment = site.environment(site.home, "token")
    environment.pop("ACE_RUNS", None)
    environment["PATH"] = head.token_environment()["PATH"]
    with output.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command, *train],
            cwd=REPO, env=environment, stdout=file, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def metrics(site: Site) -> set[str]:
    """Our own names at the head's metrics endpoint, without Ray's prefix."""
    try:
        with urllib.request.urlopen(site.head.metrics, timeout=10) as reply:
            return set(re.findall(r"^ray_(ace_\w+)\{", reply.read().decode(), flags=re.MULTILINE))
    except (urllib.error.URLError, TimeoutError):
        return set()


def test_the_smoke_profile_runs_to_success_as_a_job_and_shows_its_metrics(site: Site, tmp_path: Path) -> None:
    run, output = tmp_path / "job", tmp_path / "output"
    job = submit(site, output, f"runs_root={tmp_path}", "name=job")
    seen: set[str] = set()
    deadline = time.monotonic() + 720
    while job.poll() is None and time.monotonic() < deadline:
        seen |= metrics(site)
        time.sleep(2.0)
    if job.poll() is None:
        job.kill()
    told = output.read_text()
    assert job.wait() == 0 and "succeeded" in told, told[-5000:]
    about = json.loads((run / "run.json").read_text())
    assert about["status"] == "finished" and about["decisions"] > 0
    assert load_settings([run / "config.yaml"]).refine.refiner == "llm"
    assert len(list((run / "checkpoints").iterdir())) >= 2
    assert json.loads((run / "replay" / "manifest.json").read_text())["shards"]
    tuned = json.loads((run / "adapters" / "finetune-001.json").read_text())
    assert tuned["role"] == "actor" and isinstance(tuned["accepted"], bool) and tuned["gate"]["states"] == 8
    agents = [one["agent"] for one in json.loads((run / "evaluation" / "table.json").read_text())["agents"]]
    assert agents[:4] == ["do-nothing", "reconnect", "greedy", "policy@0"]
    assert seen >= WANTED, f"never at the endpoint: {WANTED - seen}"
    asked = subprocess.run(
        [sys.executable, "-m", "ace_ray", "replay", "show", str(run), "--last", "1"], capture_output=True, text=True
    )
    rounds = re.search(r"rounds (\d+)", asked.stdout)
    assert rounds and int(rounds.group(1)) > 0, asked.stdout


def test_a_relative_runs_root_is_refused_in_a_job(site: Site, tmp_path: Path) -> None:
    job = submit(site, tmp_path / "output", "runs_root=runs")
    assert job.wait(timeout=200) != 0
    told = (tmp_path / "output").read_text()
    assert "relative" in told and "absolute folder" in told
