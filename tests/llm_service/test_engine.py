"""A real vLLM engine on a tiny model: what it answers, what it refuses, and that nothing a caller sends ends it."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_service.adapters import AdapterRef, reference, version_dir
from llm_service.client import LocalClient
from llm_service.errors import (
    AdapterError,
    DeadlineExceeded,
    ModelError,
    Refused,
    ReplicaLost,
    RequestTooLarge,
)
from llm_service.protocol import Priority, Reply
from llm_service.settings import EngineSettings, ServiceSettings
from tests.llm_service.conftest import ALPHA, BRAVO
from tests.llm_service.tiny_model import change_manifest, make_adapter

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # inside torch
]

CHAT = [{"role": "user", "content": "who are you?"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "analysis": {"type": "string", "pattern": "^[ !#-\\[\\]-~]{0,40}$"},
        "action": {
            "type": "object",
            "properties": {"candidate": {"enum": list(range(12))}},
            "required": ["candidate"],
            "additionalProperties": False,
        },
    },
    "required": ["analysis", "action"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(
    tiny_settings: EngineSettings, adapters_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalClient]:
    log = tmp_path_factory.mktemp("log") / "engine.log"
    engine = tiny_settings.model_copy(update={"log_file": str(log)})
    # The client may send more than the engine takes, so that the engine has something to refuse.
    with LocalClient(engine, adapters_dir, ServiceSettings(max_in_flight=64)) as client:
        yield client


@pytest.fixture
def traffic(client: LocalClient) -> Iterator[None]:
    """Requests of the base model all through the test; each must be answered."""
    stop = threading.Event()

    def ask() -> int:
        count = 0
        while not stop.is_set():
            client.ask(CHAT, max_tokens=16, deadline_s=30, temperature=1.0)
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        streams = [pool.submit(ask) for _ in range(3)]
        while client.report().in_flight == 0:
            time.sleep(0.001)
        yield
        stop.set()
        assert all(stream.result() > 0 for stream in streams)


def _copy(ref: AdapterRef, version: int) -> Path:
    directory = version_dir(Path(ref.path).parent, "actor", version)
    shutil.copytree(ref.path, directory)
    return directory


def test_generates_through_the_chat_template(client: LocalClient, tiny_model: Path) -> None:
    reply = client.ask(CHAT, max_tokens=8, deadline_s=30)
    template = "<|im_start|>user\nwho are you?<|im_end|>\n<|im_start|>assistant\n"
    from transformers import AutoTokenizer

    assert reply.prompt_tokens == len(AutoTokenizer.from_pretrained(tiny_model)(template)["input_ids"])
    assert reply.reply_tokens <= 8
    assert reply.model.startswith("model@")
    assert 0 <= reply.queue_s <= reply.total_s


def test_a_seed_repeats_a_sample(client: LocalClient) -> None:
    def sample(seed: int) -> str:
        return client.ask(CHAT, max_tokens=24, deadline_s=30, temperature=1.0, seed=seed).text

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_replies_follow_the_schema(client: LocalClient) -> None:
    replies = client.ask_all([CHAT] * 16, max_tokens=120, deadline_s=60, schema=SCHEMA, temperature=1.0)
    for reply in replies:
        assert isinstance(reply, Reply)
        assert reply.finish_reason == "stop"
        assert "\n" not in reply.text and '": ' not in reply.text.replace(json.loads(reply.text)["analysis"], "")
        assert json.loads(reply.text)["action"]["candidate"] in range(12)


def test_a_cut_reply_says_so(client: LocalClient) -> None:
    assert client.ask(CHAT, max_tokens=4, deadline_s=30, schema=SCHEMA).finish_reason == "length"


def test_two_versions_answer_side_by_side_each_under_its_own_label(
    client: LocalClient, alpha: AdapterRef, bravo: AdapterRef
) -> None:
    def ask(ref: AdapterRef) -> Reply:
        return client.ask(CHAT, max_tokens=24, deadline_s=60, adapter=ref)

    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(ask, [alpha, bravo] * 20))
    assert {(reply.version, reply.text) for reply in replies} == {(1, ALPHA), (2, BRAVO)}


def test_more_versions_than_fit_take_turns(
    client: LocalClient, tiny_model: Path, adapters_dir: Path, alpha: AdapterRef, bravo: AdapterRef
) -> None:
    # max_loras is 2: five distinct versions at once, more than the engine keeps, and none fails.
    extra = [
        make_adapter(tiny_model, adapters_dir, "critic", v, w * 2) for v, w in ((1, "delta "), (2, "echo "), (3, "5 "))
    ]
    with ThreadPoolExecutor(16) as pool:
        asked = [alpha, bravo, *extra] * 6
        replies = list(pool.map(lambda ref: client.ask(CHAT, max_tokens=24, deadline_s=60, adapter=ref), asked))
    assert [(reply.role, reply.version) for reply in replies] == [(ref.role, ref.version) for ref in asked]
    texts = {(reply.role, reply.version): reply.text for reply in replies}
    assert texts[("critic", 1)] == "delta delta " and texts[("actor", 1)] == ALPHA


def test_publishing_switches_the_role(client: LocalClient, alpha: AdapterRef, bravo: AdapterRef) -> None:
    for ref, text in ((alpha, ALPHA), (bravo, BRAVO)):
        client.publish(ref)
        reply = client.ask(CHAT, max_tokens=24, deadline_s=30, role="actor")
        assert (reply.text, reply.role, reply.version) == (text, "actor", ref.version)


def test_a_missing_version_is_refused(client: LocalClient, alpha: AdapterRef, traffic: None) -> None:
    ghost = AdapterRef("actor", 99, str(Path(alpha.path).parent / "actor-v99"), "0")
    with pytest.raises(AdapterError, match="actor-v99.*missing"):
        client.publish(ghost)


def test_a_torn_version_is_refused(client: LocalClient, alpha: AdapterRef, traffic: None) -> None:
    weights = _copy(alpha, 21) / "adapter_model.safetensors"
    ref = change_manifest(reference(weights.parent), version=21)
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(AdapterError, match="actor-v21.*torn"):
        client.publish(ref)


def test_a_version_of_too_high_a_rank_is_refused(
    client: LocalClient, tiny_model: Path, adapters_dir: Path, traffic: None
) -> None:
    ref = make_adapter(tiny_model, adapters_dir, "actor", 22, ALPHA, rank=32)
    with pytest.raises(AdapterError, match="rank 32 is above 16"):
        client.publish(ref)


def test_what_only_the_engine_notices_is_refused_and_the_engine_lives(
    client: LocalClient, alpha: AdapterRef, traffic: None
) -> None:
    # The manifest fits, the hashes fit, but the configuration asks for what vLLM does not serve.
    config = _copy(alpha, 23) / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    from llm_service.adapters import write_manifest

    ref = write_manifest(config.parent, role="actor", version=23, base_model=client.engine.settings.model_dir())
    with pytest.raises(AdapterError, match="actor-v23: the engine refused it"):
        client.publish(ref)
    # A lie about the rank passes the manifest and fails in the engine's own check.
    config = _copy(alpha, 24) / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 64}))
    ref = write_manifest(config.parent, role="actor", version=24, base_model=client.engine.settings.model_dir())
    with pytest.raises(AdapterError, match="actor-v24"):
        client.publish(change_manifest(ref, rank=8))
    assert client.ask(CHAT, max_tokens=24, deadline_s=30, adapter=alpha).text == ALPHA


def test_a_deadline_aborts_in_the_engine(client: LocalClient) -> None:
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.ask(CHAT, max_tokens=450, deadline_s=0.1, temperature=1.0, schema=_endless())
    assert time.monotonic() - start < 1.0
    until = time.monotonic() + 5
    while client.engine._llm.get_num_unfinished_requests() and time.monotonic() < until:
        time.sleep(0.01)
    assert client.engine._llm.get_num_unfinished_requests() == 0


def test_a_full_queue_refuses_at_once(client: LocalClient) -> None:
    def ask(_: int) -> Reply | Refused:
        try:
            return client.ask(CHAT, max_tokens=300, deadline_s=60, temperature=1.0, schema=_endless())
        except Refused as refused:
            return refused

    limit = client.engine.settings.max_queued
    with ThreadPoolExecutor(2 * limit) as pool:
        answers = list(pool.map(ask, range(2 * limit)))
    refusals = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(answers) - len(refusals) >= limit
    assert refusals and f"busy: {limit} requests in the engine" in str(refusals[0])
    assert client.ask(CHAT, max_tokens=4, deadline_s=30).reply_tokens == 4


def test_a_full_queue_makes_room_for_the_more_urgent(client: LocalClient) -> None:
    limit = client.engine.settings.max_queued

    def ask(priority: int) -> Reply | Refused:
        try:
            return client.ask(
                CHAT, max_tokens=200, deadline_s=60, temperature=1.0, schema=_endless(), priority=priority
            )
        except Refused as refused:
            return refused

    with ThreadPoolExecutor(limit + 8) as pool:
        asked = [Priority.BACKFILL] * 4 + [Priority.EVALUATION] * (limit - 4)
        inside = [pool.submit(ask, priority) for priority in asked]
        while client.report().in_flight < limit:
            time.sleep(0.001)
        refused = client.report().refused
        late = [pool.submit(ask, priority) for priority in [Priority.FRESH] * 6 + [Priority.EVALUATION]]
        answers = [future.result() for future in inside]
        assert all(isinstance(future.result(), Reply) for future in late[:-1])
    # Six fresh ones took the places of six evaluations, and of no back-fill; one more evaluation found none.
    displaced = [p for p, answer in zip(asked, answers, strict=True) if isinstance(answer, Refused)]
    assert displaced == [Priority.EVALUATION] * 6
    assert "more urgent" in str(next(answer for answer in answers if isinstance(answer, Refused)))
    assert isinstance(late[-1].result(), Refused)
    assert client.report().refused == refused + 7


def test_a_client_that_gives_up_ends_its_request_in_the_engine(
    client: LocalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_service.client._GRACE_S", -59.9)  # the engine itself would wait for a minute
    finished = client.report().finished
    with pytest.raises(DeadlineExceeded):
        client.ask(CHAT, max_tokens=450, deadline_s=60, temperature=1.0, schema=_endless())
    until = time.monotonic() + 30  # on a busy machine the request may not even have reached the engine yet
    while (client.report().in_flight or client.engine._llm.get_num_unfinished_requests()) and time.monotonic() < until:
        time.sleep(0.001)
    assert client.engine._llm.get_num_unfinished_requests() == 0
    assert client.report().in_flight == 0
    assert client.report().finished == finished


def test_too_large_requests_are_refused_by_bytes_and_by_tokens(client: LocalClient) -> None:
    with pytest.raises(RequestTooLarge, match="bytes"):
        client.ask([{"role": "user", "content": "x" * 70_000}], max_tokens=4, deadline_s=10)
    with pytest.raises(RequestTooLarge, match="prompt of .* tokens"):
        client.ask([{"role": "user", "content": "grid \u26a1 " * 400}], max_tokens=4, deadline_s=10)
    with pytest.raises(RequestTooLarge, match="reply of 510"):
        client.ask(CHAT, max_tokens=510, deadline_s=10)


def test_an_impossible_schema_is_refused(client: LocalClient, traffic: None) -> None:
    with pytest.raises(Refused, match="does not accept"):
        client.ask(CHAT, max_tokens=8, deadline_s=10, schema={"type": "no such type"})
    # This one passes vLLM's check and fails when the grammar is compiled in the engine's process.
    with pytest.raises(Refused, match="schema it cannot compile"):
        client.ask(CHAT, max_tokens=8, deadline_s=10, schema={"type": "string", "pattern": "^[a-z]{900}$"})


def test_urgent_requests_are_answered_before_the_rest_of_the_queue(client: LocalClient) -> None:
    finished: list[int] = []

    def ask(priority: int) -> None:
        client.ask(CHAT, max_tokens=120, deadline_s=60, temperature=1.0, schema=_endless(), priority=priority)
        finished.append(priority)

    # 16 run at once; of the 7 that wait, the last to come is the most urgent.
    with ThreadPoolExecutor(23) as pool:
        futures: list[Future[None]] = [pool.submit(ask, Priority.EVALUATION) for _ in range(22)]
        while client.report().in_flight < 22:
            time.sleep(0.001)
        futures.append(pool.submit(ask, Priority.FRESH))
        for future in futures:
            future.result()
    assert finished.index(Priority.FRESH) < 21


def test_the_report_counts(client: LocalClient, alpha: AdapterRef) -> None:
    before = client.report()
    client.ask_all([CHAT] * 8, max_tokens=32, deadline_s=60, temperature=1.0, adapter=alpha)
    after = client.report()
    assert after.finished == before.finished + 8
    assert after.in_flight == 0
    assert after.mean_batch > 1
    assert after.versions["actor"] >= 1


def test_a_dead_engine_tells_everyone_waiting(client: LocalClient) -> None:
    # The last test of this engine.
    import psutil

    with ThreadPoolExecutor(4) as pool:
        waiting = [
            pool.submit(client.ask, CHAT, max_tokens=450, deadline_s=60, temperature=1.0, schema=_endless())
            for _ in range(4)
        ]
        while client.report().in_flight < 4:
            time.sleep(0.001)
        (core,) = [child for child in psutil.Process().children() if "EngineCore" in child.name()]
        start = time.monotonic()
        core.kill()
        for future in waiting:
            with pytest.raises(ReplicaLost, match="its engine died"):
                future.result()
    assert time.monotonic() - start < 5
    with pytest.raises(ReplicaLost):
        client.ask(CHAT, max_tokens=4, deadline_s=10)


def test_an_engine_that_does_not_start_says_why(tiny_settings: EngineSettings, tmp_path: Path) -> None:
    cramped = tiny_settings.model_copy(update={"kv_cache_gib": 1e-5, "log_file": str(tmp_path / "engine.log")})
    with pytest.raises(ModelError, match=r"did not start with .*model: .*cache blocks") as caught:
        LocalClient(cramped, None, ServiceSettings())
    assert "\n" not in caught.value.problem


def _endless() -> dict:
    """A schema that keeps the model talking: a reply that cannot end early."""
    return {"type": "array", "items": {"enum": [1, 2]}, "minItems": 400}
