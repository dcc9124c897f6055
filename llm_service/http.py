"""The JSON face of a replica, for `ace llm serve`; inside a run requests go through the handle instead."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_service.protocol import Failure, Priority, Reply, Request

_DEPTH = 32  # of a schema; what compiles it calls itself once a level
_STATUS = {"Rejected": 400, "RequestTooLarge": 413, "Refused": 429, "DeadlineExceeded": 504}  # else 503


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str


class HttpRequest(BaseModel):
    """Body of `POST /`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    messages: list[_Message] = Field(min_length=1)
    max_tokens: int = Field(160, ge=1, le=1 << 20)
    deadline_s: float = Field(60.0, gt=0, le=3600)
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    seed: int | None = Field(None, ge=0, lt=1 << 63)


async def answer(http: Any, ask: Callable[[Request], Awaitable[Reply | Failure]]) -> tuple[int, dict[str, Any]]:
    """Answer one HTTP request (a starlette Request).

    Returns:
        Status, and the fields of a Reply or {"error": {kind, problem, remedy}}.
    """
    if http.method != "POST":
        return _error(405, Failure("Rejected", f"{http.method} is not taken here", "POST a chat as JSON"))
    if not http.headers.get("content-type", "").startswith("application/json"):
        # A page in a browser cannot send this type to another origin unasked; the port is open to all of this machine.
        return _error(415, Failure("Rejected", "the content type must be application/json"))
    try:
        body = HttpRequest.model_validate_json(await http.body())
    except ValidationError as error:
        # Without the input: it may be bytes that are no text.
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        return _error(400, Failure("Rejected", json.dumps(problems)))
    if _deeper(body.json_schema, _DEPTH):
        return _error(400, Failure("Rejected", f"the schema is nested more than {_DEPTH} levels deep"))
    request = Request(
        messages=tuple(message.model_dump() for message in body.messages),
        max_tokens=body.max_tokens,
        deadline_s=body.deadline_s,
        schema=body.json_schema,
        priority=Priority.EVALUATION,
        temperature=body.temperature,
        seed=body.seed,
    )
    reply = await ask(request)
    return _error(_STATUS.get(reply.kind, 503), reply) if isinstance(reply, Failure) else (200, asdict(reply))


def _error(status: int, failure: Failure) -> tuple[int, dict[str, Any]]:
    return status, {"error": asdict(failure)}


def _deeper(value: Any, levels: int) -> bool:
    """Whether objects and arrays are nested deeper than that."""
    layer = [value]
    for _ in range(levels + 1):
        inner: list[Any] = []
        for item in layer:
            inner += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        layer = inner
    return bool(layer)
