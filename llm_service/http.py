"""The JSON face of a replica, for `ace llm serve`; inside a run requests go through the handle instead."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_service.protocol import Failure, Priority, Reply, Request


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: str
    content: str


class HttpRequest(BaseModel):
    """Body of `POST /`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    messages: list[_Message] = Field(min_length=1)
    max_tokens: int = Field(160, ge=1)
    deadline_s: float = Field(60.0, gt=0)
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    temperature: float = Field(0.0, ge=0)
    seed: int | None = None


async def answer(http: Any, ask: Callable[[Request], Awaitable[Reply | Failure]]) -> dict[str, Any]:
    """Answer one HTTP request (a starlette Request): the fields of a Reply, or {"error": {kind, problem, remedy}}."""
    if not http.headers.get("content-type", "").startswith("application/json"):
        # A page in a browser cannot send this type to another origin unasked; the port is open to all of this machine.
        return {"error": asdict(Failure("Refused", "the content type must be application/json"))}
    try:
        body = HttpRequest.model_validate_json(await http.body())
    except ValidationError as error:
        return {"error": asdict(Failure("Refused", json.dumps(error.errors(include_url=False, include_context=False))))}
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
    return {"error": asdict(reply)} if isinstance(reply, Failure) else asdict(reply)
