"""`ace cluster clean` on a real head: its applications wait for CPUs that nobody has, and load nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from ace_ray.coevolution.run_folder import open_new
from ace_ray.config.run import RunSettings
from tests.cluster.sites import REPO, Site

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DEPLOY = """
import sys
from pathlib import Path
import ray
from ray import serve
from llm_service import service
from llm_service.deployment import AppArguments
from llm_service.settings import ServiceSettings

ray.init(address=sys.argv[1], log_to_driver=False)
serve.start(proxy_location="Disabled")
for name in ("ended", "living", "bench"):
    heartbeat = "" if name == "bench" else str(Path(sys.argv[2]) / name / "heartbeat")
    arguments = AppArguments(
        run=name, fingerprint="", service=ServiceSettings(), replicas=1, cpus=100, gpus=0, heartbeat=heartbeat
    )
    service._apply(service.app_name(name), arguments.model_dump(mode="json"), route_prefix=None)
print(*service.applications())
"""


def test_only_the_model_of_the_run_that_ended_is_removed(site: Site, tmp_path: Path) -> None:
    def ask(*command: str) -> str:
        environment = site.environment(site.home, "token") | {"ACE_RUNS": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, *command], cwd=REPO, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def clean(*options: str) -> list[str]:
        told = ask("-m", "ace_ray", "cluster", "clean", "--temp-dir", site.head.temp_dir, *options)
        return [" ".join(line.split()[:2]).removesuffix(":") for line in told.splitlines()]

    assert clean() == []  # Serve is not started yet
    ended, living = (open_new(RunSettings(runs_root=str(tmp_path), name=name)) for name in ("ended", "living"))
    ended.close("failed")
    ask("-c", DEPLOY, site.head.address, str(tmp_path))
    assert clean("--unknown") == ["kept ace-llm-bench", "removed ace-llm-ended", "kept ace-llm-living"]
    assert clean() == ["kept ace-llm-bench", "kept ace-llm-living"]
    living.close("finished")
    assert clean() == ["kept ace-llm-bench", "removed ace-llm-living"]
