"""A real vLLM engine that serves each version as merged weights: the labels hold, and so does what is refused."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_service.adapters import AdapterRef, reference, version_dir
from llm_service.client import LocalClient
from llm_service.errors import AdapterError, ReplicaLost
from llm_service.settings import EngineSettings, ServiceSettings
from tests.llm_service.conftest import ALPHA, BRAVO
from tests.llm_service.tiny_model import change_manifest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # inside torch
]

CHAT = [{"role": "user", "content": "who are you?"}]


@pytest.fixture(scope="module")
def client(
    tiny_settings: EngineSettings, adapters_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalClient]:
    log = tmp_path_factory.mktemp("log") / "engine.log"
    engine = tiny_settings.model_copy(update={"adapters": "merged", "log_file": str(log), "max_queued": 64})
    with LocalClient(engine, adapters_dir, ServiceSettings(max_in_flight=64)) as client:
        yield client


def test_versions_and_the_base_model_take_turns_each_under_its_own_label(
    client: LocalClient, alpha: AdapterRef, bravo: AdapterRef
) -> None:
    plain = client.ask(CHAT, max_tokens=24, deadline_s=60).text
    assert plain not in (ALPHA, BRAVO)

    def ask(ref: AdapterRef | None) -> tuple[int, str]:
        reply = client.ask(CHAT, max_tokens=24, deadline_s=60, adapter=ref)
        return reply.version, reply.text

    with ThreadPoolExecutor(48) as pool:
        answers = list(pool.map(ask, [alpha, None, bravo] * 30))
    assert answers == [(1, ALPHA), (0, plain), (2, BRAVO)] * 30


def test_publishing_switches_the_role_under_load(client: LocalClient, alpha: AdapterRef, bravo: AdapterRef) -> None:
    client.publish(alpha)
    with ThreadPoolExecutor(24) as pool:
        futures = [pool.submit(client.ask, CHAT, max_tokens=24, deadline_s=60, role="actor") for _ in range(100)]
        futures[10].result()
        client.publish(bravo)
        replies = [future.result() for future in futures]
    assert {(reply.version, reply.text) for reply in replies} == {(1, ALPHA), (2, BRAVO)}
    assert client.ask(CHAT, max_tokens=24, deadline_s=60, role="actor").text == BRAVO


def test_a_torn_version_is_refused_and_the_published_one_goes_on(client: LocalClient, alpha: AdapterRef) -> None:
    client.publish(alpha)
    directory = version_dir(Path(alpha.path).parent, "actor", 21)
    shutil.copytree(alpha.path, directory)
    ref = change_manifest(reference(directory), version=21)
    weights = directory / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(AdapterError, match="actor-v21.*torn"):
        client.publish(ref)
    assert client.ask(CHAT, max_tokens=24, deadline_s=60, role="actor").text == ALPHA


def test_weights_that_cannot_be_loaded_end_the_engine_instead_of_answering(
    client: LocalClient, alpha: AdapterRef, bravo: AdapterRef
) -> None:
    # The last test of this engine: what was merged vanishes between merging and loading.
    client.ask(CHAT, max_tokens=4, deadline_s=60, adapter=bravo)
    client.ask(CHAT, max_tokens=4, deadline_s=60, adapter=alpha)
    folder = Path(client.engine._versions._folder.name)  # type: ignore[union-attr]
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()
    with pytest.raises(ReplicaLost, match="could not be loaded"):
        client.ask(CHAT, max_tokens=4, deadline_s=60, adapter=bravo)
    with pytest.raises(ReplicaLost):
        client.ask(CHAT, max_tokens=4, deadline_s=60)
