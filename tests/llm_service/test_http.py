"""The JSON face of a replica."""

import asyncio
import json
from typing import Any

import pytest

from llm_service.http import answer
from llm_service.protocol import Failure, Reply, Request

pytestmark = pytest.mark.unit


class _Http:
    """As much of a starlette request as is looked at."""

    def __init__(self, body: Any, content_type: str = "application/json", method: str = "POST") -> None:
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.method = method
        self.headers = {"content-type": content_type}

    async def body(self) -> bytes:
        return self._body


def _post(http: _Http, outcome: Reply | Failure | None = None) -> tuple[int, dict[str, Any], list[Request]]:
    asked: list[Request] = []

    async def ask(request: Request) -> Reply | Failure:
        asked.append(request)
        assert outcome is not None
        return outcome

    status, said = asyncio.run(answer(http, ask))
    json.dumps(said, allow_nan=False).encode()  # as the response does
    return status, said, asked


def test_a_question_becomes_a_request_and_the_reply_json() -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 7, "schema": {"type": "object"}}
    status, said, (request,) = _post(_Http(body), Reply("{}", "stop", 3, 1, "m"))
    assert status == 200 and (said["text"], said["finish_reason"]) == ("{}", "stop")
    assert (request.max_tokens, request.schema, request.messages) == (7, {"type": "object"}, tuple(body["messages"]))


CHAT = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("kind", "status"),
    [("Refused", 429), ("Rejected", 400), ("RequestTooLarge", 413), ("DeadlineExceeded", 504), ("ModelError", 503)],
)
def test_failures_keep_kind_and_remedy(kind: str, status: int) -> None:
    found, said, _ = _post(_Http({"messages": CHAT}), Failure(kind, "busy", "ask later"))
    assert (found, said) == (status, {"error": {"kind": kind, "problem": "busy", "remedy": "ask later"}})


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def _with_schema(levels: int) -> bytes:
    schema = b'{"items":' * levels + b"{}" + b"}" * levels
    return b'{"messages":[{"role":"user","content":"x"}],"schema":' + schema + b"}"


@pytest.mark.parametrize(
    ("http", "status"),
    [
        (_Http({"messages": []}), 400),
        (_Http({"messages": CHAT, "max_token": 3}), 400),
        (_Http({"messages": CHAT, "seed": 1 << 64}), 400),
        (_Http({"messages": [{"role": "tool", "content": "x"}]}), 400),
        (_Http(b"{"), 400),
        (_Http(b""), 400),
        (_Http(b'{"messages":[{"role":"user","content":"\xe9"}]}'), 400),
        (_Http(b'{"messages":[{"role":"user","content":"\\ud83d"}]}'), 400),
        (_Http(b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}'), 400),
        (_Http(b'{"messages":[{"role":"user","content":"x"}],"deadline_s":Infinity}'), 400),
        (_Http(_with_schema(33)), 400),
        (_Http(_with_schema(100_000)), 400),
        (_Http({"messages": CHAT}, content_type="text/plain"), 415),
        (_Http({"messages": CHAT}, method="GET"), 405),
    ],
)
def test_what_is_no_request_never_reaches_the_engine(http: _Http, status: int) -> None:
    found, said, asked = _post(http)
    assert (found, said["error"]["kind"]) == (status, "Rejected")
    assert not asked


def test_a_schema_that_is_nested_less_is_taken() -> None:
    status, _, (request,) = _post(_Http(_with_schema(31)), Reply("{}", "stop", 3, 1, "m"))
    assert status == 200 and request.schema == _nested(31)
