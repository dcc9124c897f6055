"""The whole way, client to engine through Ray Serve: versions, deadlines, and a replica that dies."""

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_service import service
from llm_service.adapters import AdapterRef
from llm_service.client import LLMClient
from llm_service.errors import AdapterError, DeadlineExceeded, LLMServiceError, ModelError, ReplicaLost
from llm_service.protocol import Reply
from llm_service.service import app_name
from llm_service.settings import EngineSettings, ServiceSettings
from tests.llm_service.conftest import ALPHA, BRAVO

pytestmark = [
    pytest.mark.ray,
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # inside ray.serve
]

CHAT = [{"role": "user", "content": "who are you?"}]
RUN = "test run"
ENDLESS = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 400}
"""A schema that keeps the model talking."""


@pytest.fixture(scope="module")
def settings(tiny_settings: EngineSettings) -> ServiceSettings:
    engine = tiny_settings.model_copy(update={"max_queued": 256})
    return ServiceSettings(engine=engine, max_in_flight=200, max_handle_queue=256)


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict]:
    import ray
    from ray import serve

    context = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield dict(context.address_info)
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def app(cluster: dict, settings: ServiceSettings) -> str:
    return service.deploy(RUN, settings, replicas=1, cpus=0.5, gpus=0)


@pytest.fixture(params=["lora", "merged"])
def app_of_either_mode(request: pytest.FixtureRequest, app: str, settings: ServiceSettings) -> Iterator[str]:
    if request.param == settings.engine.adapters:
        yield app
        return
    engine = settings.engine.model_copy(update={"adapters": request.param})
    other = settings.model_copy(update={"engine": engine})
    yield service.deploy(request.param, other, replicas=1, cpus=0.5, gpus=0)
    service.delete(request.param)


@pytest.fixture
def client(app: str, adapters_dir: Path, settings: ServiceSettings) -> LLMClient:
    return LLMClient(app, adapters_dir, settings)


def _answer(client: LLMClient) -> Reply | LLMServiceError:
    """A long reply, or why there is none."""
    try:
        return client.ask(CHAT, max_tokens=450, deadline_s=60, temperature=1.0, schema=ENDLESS)
    except LLMServiceError as error:
        return error


def test_a_model_that_cannot_be_served_is_named_before_anything_starts(cluster: dict) -> None:
    nowhere = ServiceSettings(engine=EngineSettings(model="/no/such/model"))
    with pytest.raises(ModelError, match="model directory /no/such/model is missing"):
        service.deploy("bad", nowhere, replicas=1, cpus=0.1, gpus=0)


def test_replies_come_through_the_client(client: LLMClient) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2, 3]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    reply = client.ask(CHAT, max_tokens=32, deadline_s=60, schema=schema, temperature=1.0)
    assert json.loads(reply.text)["n"] in (1, 2, 3)
    assert (reply.role, reply.version) == (None, 0)


def test_versions_are_switched_under_load_and_the_replica_keeps_its_process(
    app_of_either_mode: str, adapters_dir: Path, settings: ServiceSettings, alpha: AdapterRef, bravo: AdapterRef
) -> None:
    client = LLMClient(app_of_either_mode, adapters_dir, settings)
    pid = client.report().pid
    client.publish(alpha)
    refiner = LLMClient(
        app_of_either_mode, adapters_dir, settings
    )  # another client of the same run: it follows the pointer

    def ask_until_switched(_: int) -> list[Reply]:
        replies: list[Reply] = []
        while not replies or replies[-1].version == 1:
            replies.append(refiner.ask(CHAT, max_tokens=24, deadline_s=120, role="actor"))
        return replies

    with ThreadPoolExecutor(200) as pool:
        futures = [pool.submit(ask_until_switched, number) for number in range(200)]
        until = time.monotonic() + 60
        while client.report().in_flight < 150:  # inside the engine at once; the others are on their way
            assert time.monotonic() < until
        client.publish(bravo)
        replies = [reply for future in futures for reply in future.result()]
    assert {(reply.version, reply.text) for reply in replies} == {(1, ALPHA), (2, BRAVO)}
    assert refiner.ask(CHAT, max_tokens=24, deadline_s=60, role="actor").text == BRAVO
    report = client.report()
    assert report.pid == pid
    assert report.versions == {"actor": 2}


def test_a_refused_version_leaves_the_published_one(client: LLMClient, alpha: AdapterRef, bravo: AdapterRef) -> None:
    client.publish(bravo)
    with pytest.raises(AdapterError, match="actor-v7.*missing"):
        client.publish(AdapterRef("actor", 7, str(Path(alpha.path).parent / "actor-v7"), "0"))
    assert client.ask(CHAT, max_tokens=24, deadline_s=60, role="actor").text == BRAVO


def test_a_client_that_gives_up_ends_its_request_in_the_engine(
    client: LLMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_service.client._GRACE_S", -59.9)  # the replica itself would wait for a minute
    finished = client.report().finished
    with pytest.raises(DeadlineExceeded):
        client.ask(CHAT, max_tokens=450, deadline_s=60, temperature=1.0, schema=ENDLESS)
    until = time.monotonic() + 10
    while client.report().in_flight and time.monotonic() < until:
        time.sleep(0.02)
    report = client.report()
    assert (report.in_flight, report.finished) == (0, finished)


def test_a_caller_that_dies_ends_its_requests_in_the_engine(
    client: LLMClient, app: str, settings: ServiceSettings
) -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Refiner:
        def ask(self) -> None:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(_answer, [LLMClient(app, None, settings)] * 4))

    finished = client.report().finished
    refiner = Refiner.remote()
    refiner.ask.remote()
    while client.report().in_flight < 4:
        time.sleep(0.005)
    ray.kill(refiner)
    until = time.monotonic() + 30
    while client.report().in_flight and time.monotonic() < until:
        time.sleep(0.02)
    report = client.report()
    assert (report.in_flight, report.finished) == (0, finished)


def test_the_same_run_adopts_its_application_and_another_runs_is_left_alone(
    client: LLMClient, app: str, settings: ServiceSettings
) -> None:
    from ray import serve

    pid = client.report().pid
    start = time.monotonic()
    assert service.deploy(RUN, settings, replicas=1, cpus=0.5, gpus=0) == app
    assert client.report().pid == pid
    assert time.monotonic() - start < 10
    service._apply("ace-llm-other", {**service._configured()[app]["args"], "run": "other", "cpus": 100.0}, None)
    assert set(serve.status().applications) == {app, "ace-llm-other"}
    service.delete("other")
    assert client.report().pid == pid


def test_metrics_are_at_rays_endpoint(client: LLMClient, cluster: dict, bravo: AdapterRef) -> None:
    import ray

    client.publish(bravo)
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = {"ray_ace_llm_requests_in_flight", "ray_ace_llm_mean_batch", "ray_ace_llm_requests_total"}
    version = re.compile(r'^ray_ace_llm_adapter_version\{[^}]*[Rr]ole="actor"[^}]*\} 2\.0$', re.M)
    until, text = time.monotonic() + 40, ""
    while time.monotonic() < until:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        if version.search(text) and all(name in text for name in wanted):
            return
        time.sleep(0.5)
    raise AssertionError("\n".join(line for line in text.splitlines() if "ace_llm" in line))


def test_a_killed_replica_comes_back_and_its_requests_are_told(
    client: LLMClient, alpha: AdapterRef, bravo: AdapterRef
) -> None:
    import psutil

    client.publish(alpha)
    client.publish(bravo)
    before = client.report()
    replica = psutil.Process(before.pid)
    engine = replica.children(recursive=True)
    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(_answer, client) for _ in range(16)]
        while client.report().in_flight < 8:
            time.sleep(0.005)
        replica.kill()
        answers = [future.result(timeout=60) for future in waiting]
    lost = [answer for answer in answers if not isinstance(answer, Reply)]
    assert len(lost) >= 8
    assert all(isinstance(error, ReplicaLost) and app_name(RUN) in error.problem for error in lost)
    reply = client.ask(CHAT, max_tokens=24, deadline_s=120, role="actor")
    assert (reply.text, reply.version) == (BRAVO, 2)
    assert client.ask(CHAT, max_tokens=24, deadline_s=60, adapter=alpha).text == ALPHA
    assert client.report().pid != before.pid
    _, alive = psutil.wait_procs(engine, timeout=10)
    assert not alive  # the engine of a replica that was killed does not stay behind


def test_a_killed_engine_ends_its_replica_and_the_next_one_serves_the_published_version(
    client: LLMClient, cluster: dict, bravo: AdapterRef
) -> None:
    import psutil

    client.publish(bravo)
    before = client.report()
    log = Path(cluster["session_dir"]) / "logs" / f"ace-llm-engine-{before.pid}.log"
    with log.open("a") as file:  # the engine's own: where vLLM would have written why it dies
        file.write("RuntimeError: the last words\n")
    (core,) = [child for child in psutil.Process(before.pid).children() if "EngineCore" in child.name()]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(_answer, client) for _ in range(4)]
        while client.report().in_flight < 4:
            time.sleep(0.005)
        core.kill()
        lost = [future.result(timeout=15) for future in waiting]
    assert all(isinstance(error, ReplicaLost) for error in lost)
    who = f"llm replica of {RUN} (pid {before.pid}) on {before.node}"
    assert lost[0].problem.startswith(f"{who}: its engine died; the end of its log:\n")
    assert lost[0].problem.endswith("RuntimeError: the last words")

    until = time.monotonic() + 5
    while os.path.exists(f"/proc/{before.pid}") and time.monotonic() < until:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{before.pid}")
    reply = client.ask(CHAT, max_tokens=24, deadline_s=120, role="actor")
    assert (reply.text, reply.version) == (BRAVO, 2)
    assert client.report().pid != before.pid


def test_a_deleted_application_refuses(client: LLMClient) -> None:
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(_answer, client) for _ in range(4)]
        while client.report().in_flight < 4:
            time.sleep(0.005)
        service.delete(RUN)
        for future in waiting:
            assert isinstance(future.result(timeout=30), Reply | ReplicaLost)  # answered before it goes, or told
    service.delete(RUN)  # nothing there is no error
    with pytest.raises(ReplicaLost):
        client.ask(CHAT, max_tokens=4, deadline_s=10)


def test_a_deployment_whose_run_is_gone_ends_itself(cluster: dict, settings: ServiceSettings, tmp_path: Path) -> None:
    from ray import serve

    heartbeat = tmp_path / "heartbeat"
    heartbeat.touch()  # by a driver that does not touch it again
    brief = settings.model_copy(update={"orphaned_minutes": 0.02})
    name = service.deploy("gone", brief, replicas=1, cpus=0.5, gpus=0, heartbeat=heartbeat)
    until = time.monotonic() + 60
    while name in serve.status().applications and time.monotonic() < until:
        time.sleep(0.5)
    assert name not in serve.status().applications
