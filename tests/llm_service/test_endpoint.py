"""The client of an OpenAI-compatible endpoint against a fake HTTP server: no model answers here, a script does."""

import email.utils
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llm_service.adapters import AdapterRef
from llm_service.endpoint import EndpointClient, _wait_s, first_answer
from llm_service.errors import (
    AdapterError,
    DeadlineExceeded,
    LLMServiceError,
    ModelError,
    Refused,
    Rejected,
    ReplicaLost,
    RequestTooLarge,
)
from llm_service.opening import open_client
from llm_service.protocol import Priority
from llm_service.settings import EndpointSettings, EngineSettings, ServiceSettings

pytestmark = pytest.mark.unit

CHAT = [{"role": "user", "content": "who are you?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


class FakeEndpoint:
    """Answers each POST from a script of (status, headers, body or callable); the last one is repeated."""

    def __init__(self) -> None:
        self.script: list[tuple[int, dict[str, str], Any]] = []
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.seen.append((self.path, dict(self.headers), body))
                status, headers, answer = fake.script.pop(0) if len(fake.script) > 1 else fake.script[0]
                if callable(answer):
                    answer = answer(self)
                    if answer is None:
                        return
                data = json.dumps(answer).encode() if not isinstance(answer, bytes) else answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    monkeypatch.setenv("FAKE_TOKEN", "sesame")
    monkeypatch.setenv("no_proxy", "*")
    fake = FakeEndpoint()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def said(text: str, reason: str = "stop") -> dict[str, Any]:
    return {
        "model": "big-model-7",
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 5},
    }


def client(fake: FakeEndpoint, **settings: Any) -> EndpointClient:
    given = {"url": fake.url, "model": "big-model", "token_env": "FAKE_TOKEN", **settings}
    opened = open_client(ServiceSettings(endpoint=EndpointSettings(**given)))
    assert isinstance(opened, EndpointClient)
    return opened


def ask(fake: FakeEndpoint, deadline_s: float = 5.0, **settings: Any) -> Any:
    with client(fake, **settings) as asking:
        return asking.ask(CHAT, max_tokens=9, deadline_s=deadline_s, schema=SCHEMA, temperature=0.5, seed=3)


def test_a_request_is_what_such_servers_expect_and_the_reply_is_theirs(endpoint: FakeEndpoint) -> None:
    endpoint.script = [(200, {}, said('{"a": 1}'))]
    reply = ask(endpoint)
    assert (reply.text, reply.finish_reason, reply.model) == ('{"a": 1}', "stop", "big-model-7")
    assert (reply.prompt_tokens, reply.reply_tokens) == (12, 5)
    (path, headers, body), *_ = endpoint.seen
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer sesame"
    assert body["messages"] == CHAT and body["model"] == "big-model"
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 0.5, 3)
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "priority" not in body


def test_hosts_that_differ_are_set(endpoint: FakeEndpoint) -> None:
    endpoint.script = [(200, {}, said("{}"))]
    ask(endpoint, limit_field="max_completion_tokens", schema_field="json_object", extra={"top_p": 0.9}, token_env="")
    _, headers, body = endpoint.seen[0]
    assert body["max_completion_tokens"] == 9 and "max_tokens" not in body and body["top_p"] == 0.9
    assert body["response_format"] == {"type": "json_object"} and "Authorization" not in headers


def test_priorities_reach_a_server_that_knows_them(endpoint: FakeEndpoint) -> None:
    endpoint.script = [(200, {}, said("{}"))]
    with client(endpoint, priority=True) as asking:
        for priority in (Priority.FRESH, Priority.EVALUATION):
            asking.ask(CHAT, max_tokens=9, deadline_s=5, priority=priority)
    assert [body["priority"] for _, _, body in endpoint.seen] == [0, 20]


def test_thinking_is_allowed_room_and_stripped(endpoint: FakeEndpoint) -> None:
    endpoint.script = [(200, {}, said('<think>\nline 5 {"a": 9}\n</think>\n\n{"a": 1}'))]
    assert ask(endpoint, thinking_tokens=100).text == '{"a": 1}'
    assert endpoint.seen[0][2]["max_tokens"] == 109
    endpoint.script = [(200, {}, said('<think>\nI wonder {"a": 9}', "length"))]
    with pytest.raises(Rejected, match=r"empty reply \(finish_reason length\)\n.*thinking_tokens"):
        ask(endpoint)


def test_a_busy_endpoint_is_asked_again_within_the_deadline(endpoint: FakeEndpoint) -> None:
    endpoint.script = [(429, {"Retry-After": "1"}, {}), (503, {}, {}), (200, {}, said("{}"))]
    assert ask(endpoint, deadline_s=10).text == "{}" and len(endpoint.seen) == 3
    endpoint.script = [(429, {"Retry-After": "60"}, {"error": "slow down"})]
    begun = time.monotonic()
    with pytest.raises(Refused, match="slow down"):
        ask(endpoint, deadline_s=2)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, ModelError),
        (402, ModelError),
        (404, ModelError),
        (307, ModelError),
        (400, Rejected),
        (422, Rejected),
        (413, RequestTooLarge),
        (500, Refused),
    ],
)
def test_what_the_endpoint_refuses_has_its_kind(
    endpoint: FakeEndpoint, status: int, error: type[LLMServiceError]
) -> None:
    endpoint.script = [(status, {"Location": f"{endpoint.url}/elsewhere"}, {"error": "because"})]
    with pytest.raises(error, match="because"):
        ask(endpoint)
    assert len(endpoint.seen) == 1  # a token follows no redirect


def _drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def _sleep(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


@pytest.mark.parametrize("answer", [_drip, _sleep])
def test_the_deadline_holds_until_the_last_byte(endpoint: FakeEndpoint, answer: Any) -> None:
    endpoint.script = [(200, {}, answer)]
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        ask(endpoint, deadline_s=0.5)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"<html>", ModelError), ({"choices": []}, ModelError), (b" " * (1 << 21), Refused)],
)
def test_an_answer_that_is_none_is_refused(endpoint: FakeEndpoint, answer: Any, error: type[LLMServiceError]) -> None:
    endpoint.script = [(200, {}, answer)]
    with pytest.raises(error):
        ask(endpoint)


@pytest.mark.parametrize(
    "answer",
    [[], "text", 7, {"choices": {}}, {"choices": [None]}, {"choices": "abc"}, {"choices": [["message"]]}, b"\xff"],
)
def test_an_answer_of_other_types_is_no_endpoint_of_that_kind(endpoint: FakeEndpoint, answer: Any) -> None:
    endpoint.script = [(200, {}, answer)]
    with pytest.raises(ModelError, match="OpenAI-compatible"):
        ask(endpoint)


@pytest.mark.parametrize(
    ("message", "reason", "says"),
    [
        (None, "content_filter", "empty reply (finish_reason content_filter)"),
        ("text", None, "empty reply (finish_reason missing)"),
        ({"content": None}, "stop", "empty reply (finish_reason stop)"),
        ({"content": {"a": 1}}, 3, "empty reply (finish_reason missing)"),
        ({"content": None, "reasoning_content": '{"a": 9}'}, "length", "empty reply (finish_reason length)"),
        ({"content": None, "refusal": "I must not"}, "stop", "I must not"),
    ],
)
def test_an_empty_reply_says_why(endpoint: FakeEndpoint, message: Any, reason: Any, says: str) -> None:
    endpoint.script = [(200, {}, {"choices": [{"message": message, "finish_reason": reason}]})]
    with pytest.raises(Rejected) as raised:
        ask(endpoint)
    assert says in raised.value.problem


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "text", "text": '{"a"'}, {"type": "text", "text": ": 1}"}, 5]},
        {"content": None, "reasoning_content": '{"a": 1}'},
        {"content": "", "reasoning": '<think>\nline 5\n</think>\n{"a": 1}'},
    ],
)
@pytest.mark.parametrize("usage", [None, 5, "many", {"prompt_tokens": "x", "completion_tokens": None}])
def test_a_reply_is_found_where_the_answer_holds_it(endpoint: FakeEndpoint, message: Any, usage: Any) -> None:
    endpoint.script = [(200, {}, {"choices": [{"message": message}], "usage": usage, "model": 4})]
    reply = ask(endpoint)
    assert (reply.text, reply.finish_reason, reply.model) == ('{"a": 1}', "stop", "big-model")
    assert (reply.prompt_tokens, reply.reply_tokens) == (0, 0)


def test_an_error_that_comes_with_status_200_is_told(endpoint: FakeEndpoint) -> None:
    endpoint.script = [(200, {}, {"error": {"message": "the provider is out of credit", "code": 402}})]
    with pytest.raises(Rejected, match="out of credit"):
        ask(endpoint)


def test_an_endpoint_that_takes_nothing_is_told_once_and_becomes_a_model_error(
    endpoint: FakeEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = (400, {}, {"error": {"message": "send max_completion_tokens"}})
    endpoint.script = [(200, {}, said("{}")), refusal]
    with client(endpoint) as asking:
        asking.ask(CHAT, max_tokens=9, deadline_s=5)
        for _ in range(4):
            with pytest.raises(Rejected, match="max_completion_tokens"):
                asking.ask(CHAT, max_tokens=9, deadline_s=5)
        with pytest.raises(ModelError, match="5 requests in a row were refused.*max_completion_tokens"):
            asking.ask(CHAT, max_tokens=9, deadline_s=5)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and "max_completion_tokens" in told[0]


def test_an_answer_in_between_starts_the_count_of_refusals_anew(endpoint: FakeEndpoint) -> None:
    endpoint.script = [*[(400, {}, {})] * 4, (200, {}, said("{}")), (400, {}, {})]
    with client(endpoint) as asking:
        kinds = [type(answer) for _ in range(9) for answer in asking.ask_all([CHAT], max_tokens=9, deadline_s=5)]
    assert [kind is Rejected for kind in kinds] == [True] * 4 + [False] + [True] * 4


def test_the_first_answer_is_asked_for_in_the_form_of_all_and_its_refusal_is_an_error(endpoint: FakeEndpoint) -> None:
    settings = ServiceSettings(endpoint=EndpointSettings(url=endpoint.url, model="m", token_env=""))
    endpoint.script = [(200, {}, said('{"a": 1}'))]
    assert first_answer(settings, SCHEMA, max_tokens=9, deadline_s=5).text == '{"a": 1}'
    body = endpoint.seen[0][2]
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA and body["max_tokens"] == 9
    for refusal in (
        (400, {}, {"error": "no schema, please"}),
        (429, {"Retry-After": "60"}, {"error": "no schema, please"}),
    ):
        endpoint.script = [refusal]
        with pytest.raises(ModelError, match="no schema, please"):
            first_answer(settings, SCHEMA, max_tokens=9, deadline_s=2)


@pytest.mark.parametrize(
    ("after", "waits"),
    [("2.5", 2.5), ("²", 0), ("soon", 0), ("-4", 0), ("nan", 0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)],
)
def test_retry_after_is_a_number(after: str, waits: float) -> None:
    assert _wait_s(after) == waits


def test_retry_after_is_a_date() -> None:
    in_an_hour = email.utils.formatdate(time.time() + 3600, usegmt=True)
    assert _wait_s(in_an_hour) == pytest.approx(3600, abs=60)


def test_nobody_there_is_a_lost_server() -> None:
    settings = EndpointSettings(url="http://127.0.0.1:9/v1", model="m", token_env="")
    with EndpointClient(ServiceSettings(endpoint=settings)) as asking, pytest.raises(ReplicaLost):
        asking.ask(CHAT, max_tokens=9, deadline_s=5)


def test_requests_are_bounded_in_size_and_number(endpoint: FakeEndpoint) -> None:
    endpoint.script = [(200, {}, lambda handler: time.sleep(0.5) or said("{}"))]
    named = EndpointSettings(url=endpoint.url, model="m", token_env="")
    small = ServiceSettings(endpoint=named, engine=EngineSettings(max_request_bytes=256), max_in_flight=1)
    with EndpointClient(small) as asking:
        with pytest.raises(RequestTooLarge):
            asking.ask([{"role": "user", "content": "x" * 300}], max_tokens=9, deadline_s=5)
        assert not endpoint.seen
        answers = asking.ask_all([CHAT, CHAT], max_tokens=9, deadline_s=5)
        assert [getattr(answer, "text", answer) for answer in answers] == ["{}", "{}"]
        with pytest.raises(AdapterError):
            asking.ask(CHAT, max_tokens=9, deadline_s=5, adapter=AdapterRef("actor", 1, "/nowhere", "0" * 64))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "ftp://host/v1", "model": "m"}, "llm.endpoint.url"),
        ({"url": "http://host/v1"}, "llm.endpoint.model"),
        ({"url": "http://host/v1", "model": "m", "token_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        EndpointClient(ServiceSettings(endpoint=EndpointSettings(**settings)))
