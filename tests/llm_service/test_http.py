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

    def __init__(self, body: Any, content_type: str = "application/json") -> None:
        self._body = json.dumps(body).encode()
        self.headers = {"content-type": content_type}

    async def body(self) -> bytes:
        return self._body


def _post(http: _Http, outcome: Reply | Failure | None = None) -> tuple[dict[str, Any], list[Request]]:
    asked: list[Request] = []

    async def ask(request: Request) -> Reply | Failure:
        asked.append(request)
        assert outcome is not None
        return outcome

    return asyncio.run(answer(http, ask)), asked


def test_a_question_becomes_a_request_and_the_reply_json() -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 7, "schema": {"type": "object"}}
    said, (request,) = _post(_Http(body), Reply("{}", "stop", 3, 1, "m"))
    assert (said["text"], said["finish_reason"]) == ("{}", "stop")
    assert (request.max_tokens, request.schema, request.messages) == (7, {"type": "object"}, tuple(body["messages"]))


def test_failures_keep_kind_and_remedy() -> None:
    said, _ = _post(_Http({"messages": [{"role": "user", "content": "x"}]}), Failure("Refused", "busy", "ask later"))
    assert said == {"error": {"kind": "Refused", "problem": "busy", "remedy": "ask later"}}


@pytest.mark.parametrize(
    "http",
    [
        _Http({"messages": []}),
        _Http({"messages": [{"role": "user", "content": "x"}], "max_token": 3}),
        _Http({"messages": [{"role": "user", "content": "x"}]}, content_type="text/plain"),
    ],
)
def test_bad_bodies_never_reach_the_engine(http: _Http) -> None:
    said, asked = _post(http)
    assert said["error"]["kind"] == "Refused"
    assert not asked
