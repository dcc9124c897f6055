"""The shared half of every client, with a scripted model behind it."""

import threading
import time
from pathlib import Path

import pytest

from llm_service.adapters import AdapterRef
from llm_service.errors import AdapterError, DeadlineExceeded, Refused
from llm_service.fake import FakeClient
from llm_service.protocol import Priority, Reply, Request

pytestmark = pytest.mark.unit
CHAT = [{"role": "user", "content": "which action?"}]


def _ref(folder: Path, version: int = 1) -> AdapterRef:
    return AdapterRef("actor", version, str(folder / f"actor-v{version}"), "hash")


def test_a_role_without_a_published_version_is_answered_by_the_base_model(tmp_path: Path) -> None:
    reply = FakeClient(["yes"], tmp_path).ask(CHAT, max_tokens=8, deadline_s=1, role="actor")
    assert (reply.text, reply.role, reply.version) == ("yes", None, 0)


def test_a_published_version_reaches_every_client_of_the_run(tmp_path: Path) -> None:
    publisher, refiner = FakeClient(["yes"], tmp_path), FakeClient(["yes"], tmp_path)
    publisher.publish(_ref(tmp_path))
    assert publisher.requests[0].adapter == _ref(tmp_path)  # the warm-up
    reply = refiner.ask(CHAT, max_tokens=8, deadline_s=1, role="actor")
    assert (reply.role, reply.version) == ("actor", 1)
    assert refiner.ask(CHAT, max_tokens=8, deadline_s=1, role="critic").version == 0


def test_a_refused_warm_up_leaves_the_pointer(tmp_path: Path) -> None:
    def script(request: Request) -> str | AdapterError:
        return AdapterError("torn") if request.adapter == _ref(tmp_path, 2) else "yes"

    client = FakeClient(script, tmp_path)
    client.publish(_ref(tmp_path, 1))
    with pytest.raises(AdapterError, match="torn"):
        client.publish(_ref(tmp_path, 2))
    assert client.current("actor") == _ref(tmp_path, 1)


def test_an_explicit_adapter_goes_before_the_published_one(tmp_path: Path) -> None:
    client = FakeClient(["yes"], tmp_path)
    client.publish(_ref(tmp_path, 1))
    assert client.ask(CHAT, max_tokens=8, deadline_s=1, role="actor", adapter=_ref(tmp_path, 2)).version == 2


def test_errors_come_back_as_their_own_type_with_the_remedy() -> None:
    client = FakeClient([Refused("busy", "ask later")])
    with pytest.raises(Refused) as caught:
        client.ask(CHAT, max_tokens=8, deadline_s=1)
    assert (caught.value.problem, caught.value.remedy) == ("busy", "ask later")


def test_request_carries_what_was_asked() -> None:
    client = FakeClient(["{}"])
    client.ask(CHAT, max_tokens=9, deadline_s=5, schema={"type": "object"}, priority=Priority.BACKFILL, seed=4)
    (request,) = client.requests
    assert (request.max_tokens, request.schema, request.priority, request.seed) == (9, {"type": "object"}, 10, 4)
    assert 4 < request.deadline_s <= 5


def test_waiting_for_a_place_counts_against_the_deadline() -> None:
    inside, release = threading.Event(), threading.Event()

    class OneAtATime(FakeClient):
        def _exchange(self, request: Request) -> Reply:
            inside.set()
            release.wait(5)
            return super()._exchange(request)

    client = OneAtATime(["yes"], max_in_flight=1)
    first = threading.Thread(target=client.ask, args=(CHAT,), kwargs={"max_tokens": 1, "deadline_s": 5})
    first.start()
    assert inside.wait(5)
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.ask(CHAT, max_tokens=1, deadline_s=0.05)
    assert time.monotonic() - start < 1
    release.set()
    first.join()
    assert client.ask(CHAT, max_tokens=1, deadline_s=1).text == "yes"


def test_ask_all_keeps_the_order_and_puts_failures_in_their_place() -> None:
    def script(request: Request) -> str | Refused:
        content = request.messages[0]["content"]
        return Refused("odd") if int(content) % 2 else content

    chats = [[{"role": "user", "content": str(n)}] for n in range(10)]
    answers = FakeClient(script).ask_all(chats, max_tokens=1, deadline_s=5)
    assert [answer.text if isinstance(answer, Reply) else "refused" for answer in answers] == [
        "refused" if n % 2 else str(n) for n in range(10)
    ]
