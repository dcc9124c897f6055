"""What the driver hands to the language model's service; the service is a fake."""

import threading
from typing import Any

import pytest

from ace_ray.coevolution import refinement
from ace_ray.coevolution.connect import Cluster
from ace_ray.coevolution.run_folder import open_new
from ace_ray.config.run import RunSettings

pytestmark = pytest.mark.unit


class FakeService:
    """Records what it is asked to deploy, and deploys nothing."""

    def __init__(self) -> None:
        self.deployed: list[tuple[str, dict[str, Any]]] = []
        self.asked = threading.Event()

    def deploy(self, run: str, settings: Any, **options: Any) -> str:
        self.deployed.append((run, options))
        self.asked.set()
        return f"app of {run}"


def test_the_service_is_given_the_file_that_the_run_touches(tmp_path, monkeypatch):
    service = FakeService()
    monkeypatch.setattr(refinement, "service", service)
    settings = RunSettings.model_validate(
        {"name": "one", "runs_root": str(tmp_path), "finetune": {"enabled": False}, "resources": {"llm_replicas": 2}}
    )
    folder = open_new(settings)
    refinement.Refinement(settings, folder, Cluster(local=True, address="", dashboard=""))
    assert service.asked.wait(20)
    folder.close("finished")
    ((run, options),) = service.deployed
    assert run == "one" and options["replicas"] == 2
    assert options["heartbeat"] == folder.path / "heartbeat" and options["heartbeat"].is_file()
