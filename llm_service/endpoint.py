"""Client of any OpenAI-compatible endpoint (`llm.endpoint.url`): a hosted model, or somebody else's vLLM server.

`POST {url}/chat/completions`, as everybody serves it. Bounded like our own service: a deadline that holds from the call
to the last byte, requests in flight, bytes of request and reply, and a refusal instead of a queue without end. The
token comes from an environment variable and goes nowhere but to that address: redirects are not followed. An endpoint
serves its own model: no adapters, no fine-tuning.
"""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from typing import Any

from llm_service.client import Client
from llm_service.errors import AdapterError, ModelError
from llm_service.protocol import Failure, ReplicaReport, Reply, Request
from llm_service.settings import ServiceSettings
from llm_service.thinking import without_thinking

_MOST_BYTES = 1 << 20  # of a reply; a chat completion of 5,000 tokens has some 30 kB
_BUSY = (429, 502, 503, 529)
_PAUSE_S = 0.5  # before a busy endpoint is asked again, doubled each time, unless it says when


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class EndpointClient(Client):
    """See the module.

    Args:
        settings: `endpoint` names it; `engine.max_request_bytes`, `max_in_flight` bound what is sent.

    Raises:
        ModelError: the address cannot be one, or the token's variable is not set.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        super().__init__(None, max_in_flight=settings.max_in_flight, warmup_deadline_s=settings.warmup_deadline_s)
        self._settings = settings.endpoint
        self._most_bytes = settings.engine.max_request_bytes
        check_endpoint(settings)
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._finished = self._refused = 0

    def report(self) -> ReplicaReport:
        """What is known here of the endpoint."""
        return ReplicaReport(
            pid=0,
            node=urllib.parse.urlsplit(self._settings.url).netloc,
            model=self._settings.model,
            fingerprint="",
            in_flight=0,
            finished=self._finished,
            refused=self._refused,
            mean_batch=0.0,
        )

    def _exchange(self, request: Request) -> Reply | Failure:
        start = time.monotonic()
        if request.adapter is not None:
            return Failure.of(AdapterError(f"adapter {request.adapter.name} was asked of an endpoint", _NO_ADAPTERS))
        body = json.dumps(self._body(request)).encode()
        if len(body) > self._most_bytes:
            problem = f"request of {len(body)} bytes is above {self._most_bytes}"
            return Failure("RequestTooLarge", problem, "shorten it or raise engine.max_request_bytes")
        until, pause = start + request.deadline_s, _PAUSE_S
        while True:
            answer, wait = self._post(body, until)
            if wait is None or time.monotonic() + max(wait, pause) >= until:
                break
            time.sleep(max(wait, pause))
            pause *= 2
        if isinstance(answer, Failure):
            self._refused += 1
            return answer
        self._finished += 1
        return self._reply(answer, time.monotonic() - start)

    def _body(self, request: Request) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": list(request.messages),
            settings.limit_field: request.max_tokens + settings.thinking_tokens,
            "temperature": request.temperature,
            **settings.extra,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None and settings.schema_field == "json_schema":
            named = {"name": "reply", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif request.schema is not None and settings.schema_field == "json_object":
            body["response_format"] = {"type": "json_object"}
        if settings.priority:
            body["priority"] = request.priority  # vLLM's server: lower is earlier, as here
        return body

    def _post(self, body: bytes, until: float) -> tuple[dict[str, Any] | Failure, float | None]:
        """The answer; and, from an endpoint that is busy, the seconds after which to ask again."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._settings.token_env and (token := os.environ.get(self._settings.token_env)):
            headers["Authorization"] = f"Bearer {token}"
        url = self._settings.url.rstrip("/") + "/chat/completions"
        late = Failure("DeadlineExceeded", f"no reply from {url} within the deadline")
        left = until - time.monotonic()
        if left <= 0:
            return late, None
        try:
            with self._opener.open(urllib.request.Request(url, body, headers), timeout=left) as response:
                text = _read(response, until)
        except urllib.error.HTTPError as error:
            return self._refusal(url, error)
        except TimeoutError:
            return late, None
        except (urllib.error.URLError, HTTPException, OSError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, TimeoutError):
                return late, None
            return Failure("ReplicaLost", f"{url} does not answer: {cause}", "is llm.endpoint.url right?"), None
        if text is None:
            return Failure("Refused", f"{url} sent more than {_MOST_BYTES} bytes"), None
        try:
            answer = json.loads(text)
            answer["choices"][0]["message"]
        except (ValueError, KeyError, IndexError, TypeError):
            return Failure("ModelError", f"{url} does not answer like an OpenAI-compatible endpoint"), None
        return answer, None

    def _refusal(self, url: str, error: urllib.error.HTTPError) -> tuple[Failure, float | None]:
        with error:
            said = error.read(500).decode("utf-8", "replace")
        problem = f"{url} answered {error.code}: {' '.join(said.split())[:300]}"
        if error.code in _BUSY:
            after = error.headers.get("Retry-After", "")
            return Failure("Refused", problem, "ask later"), float(after) if after.isdigit() else 0.0
        if error.code in (401, 403):
            return Failure("ModelError", problem, f"put a valid token into ${self._settings.token_env}"), None
        if error.code in (301, 302, 303, 307, 308, 404, 405):
            return Failure("ModelError", problem, "check llm.endpoint.url and llm.endpoint.model"), None
        return Failure("RequestTooLarge" if error.code == 413 else "Refused", problem), None

    def _reply(self, answer: dict[str, Any], seconds: float) -> Reply:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        return Reply(
            text=without_thinking(str(choice["message"].get("content") or "")),
            finish_reason="length" if choice.get("finish_reason") == "length" else "stop",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            reply_tokens=int(usage.get("completion_tokens") or 0),
            model=str(answer.get("model") or self._settings.model),
            total_s=seconds,
        )


_NO_ADAPTERS = "serve the model yourself (llm.engine.model) where adapters are wanted"


def check_endpoint(settings: ServiceSettings) -> None:
    """What can be known before anything is sent.

    Raises:
        ModelError: no address or model name, or the token's variable is not set.
    """
    endpoint = settings.endpoint
    parts = urllib.parse.urlsplit(endpoint.url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ModelError(f"llm.endpoint.url={endpoint.url!r} is no address", "such as https://host/v1")
    if not endpoint.model:
        raise ModelError(f"{endpoint.url} is asked for no model", "set llm.endpoint.model to a name that it serves")
    if endpoint.token_env and not os.environ.get(endpoint.token_env):
        raise ModelError(
            f"${endpoint.token_env} is not set", "put the endpoint's token there, or set llm.endpoint.token_env='' "
        )


def _read(response: HTTPResponse, until: float) -> bytes | None:
    """The whole body; None where it is too long. Raises TimeoutError at the deadline, however it drips."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(65_536):
        size += len(part)
        if time.monotonic() >= until:
            raise TimeoutError
        if size > _MOST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)
