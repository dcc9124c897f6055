"""Client of any OpenAI-compatible endpoint (`llm.endpoint.url`): a hosted model, or another vLLM server.

`POST {url}/chat/completions`, as everybody serves it. Bounded like our own service: a deadline that holds from the call
to the last byte, requests in flight, bytes of request and reply, and a refusal instead of a queue without end. The
token comes from an environment variable and goes nowhere but to that address: redirects are not followed. An endpoint
serves its own model: no adapters, no fine-tuning.
"""

import email.utils
import json
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import replace
from http.client import HTTPException, HTTPResponse
from typing import Any

from llm_service.client import Client
from llm_service.errors import AdapterError, LLMServiceError, ModelError
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
            return Failure.of(
                AdapterError(
                    f"adapter {request.adapter.name} was requested, but an endpoint serves no adapters", _NO_ADAPTERS
                )
            )
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
        return replace(answer, total_s=time.monotonic() - start)

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

    def _post(self, body: bytes, until: float) -> tuple[Reply | Failure, float | None]:
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
            return self._read_answer(url, json.loads(text)), None
        except (ValueError, RecursionError):  # no JSON, another encoding, or brackets without end
            return _foreign(url), None

    def _refusal(self, url: str, error: urllib.error.HTTPError) -> tuple[Failure, float | None]:
        with error:
            said = error.read(500).decode("utf-8", "replace")
        problem = f"{url} answered {error.code}: {' '.join(said.split())[:300]}"
        if error.code in _BUSY:
            return Failure("Refused", problem, "ask later"), _wait_s(error.headers.get("Retry-After", ""))
        if error.code in (401, 403):
            return Failure("ModelError", problem, f"put a valid token into ${self._settings.token_env}"), None
        if error.code in (301, 302, 303, 307, 308, 402, 404, 405, 410):
            return Failure("ModelError", problem, "check llm.endpoint.url, llm.endpoint.model and the account"), None
        if error.code == 413:
            return Failure("RequestTooLarge", problem), None
        if error.code in (408, 409, 425) or error.code >= 500:
            return Failure("Refused", problem, "ask later"), None
        return Failure("Rejected", problem, _FIELDS), None

    def _read_answer(self, url: str, answer: Any) -> Reply | Failure:
        """The reply in an answer of status 200, every part of which may be missing or of another type."""
        said = answer if isinstance(answer, dict) else {}
        if said.get("error"):  # some hosts pass a provider's error on with status 200
            return Failure("Rejected", f"{url} answered with an error: {_short(said['error'])}", _FIELDS)
        choices = said.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return _foreign(url)
        message = choice.get("message")
        message = message if isinstance(message, dict) else {}
        reason = choice.get("finish_reason")
        reason = reason if isinstance(reason, str) else ""
        if reason == "error" and choice.get("error"):
            return Failure("Rejected", f"{url} answered with an error: {_short(choice['error'])}", _FIELDS)
        text = without_thinking(_text(message.get("content")))
        if not text and reason != "length":  # a thought that was cut is no reply; one that ended may hold it
            thoughts = (message.get("reasoning_content"), message.get("reasoning"))
            text = next(filter(None, (without_thinking(_text(thought)) for thought in thoughts)), "")
        if not text:
            refusal = _text(message.get("refusal"))
            problem = f"{url}: empty reply (finish_reason {reason or 'missing'})" + (f": {refusal}" if refusal else "")
            remedy = "raise llm.endpoint.thinking_tokens or language.max_tokens" if reason == "length" else ""
            return Failure("Rejected", problem, remedy)
        usage = said.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        model = said.get("model")
        return Reply(
            text=text,
            finish_reason="length" if reason == "length" else "stop",
            prompt_tokens=_count(usage.get("prompt_tokens")),
            reply_tokens=_count(usage.get("completion_tokens")),
            model=model if isinstance(model, str) and model else self._settings.model,
        )


def _text(content: Any) -> str:
    """Text of a message's field: a string, or a list of parts of which the texts count."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int:
    """A number of tokens; 0 where the endpoint says something else."""
    return int(value) if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else 0


def _short(said: Any) -> str:
    """What an error says, in one line."""
    said = said.get("message") or said if isinstance(said, dict) else said
    return " ".join((said if isinstance(said, str) else json.dumps(said)).split())[:300]


def _foreign(url: str) -> Failure:
    return Failure("ModelError", f"{url} does not answer like an OpenAI-compatible endpoint")


def _wait_s(after: str) -> float:
    """Seconds that a Retry-After asks for: a number, or a date. 0 where it is neither."""
    try:
        seconds = float(after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


_FIELDS = "see llm.endpoint.limit_field, schema_field and extra for what some hosts want otherwise"
_NO_ADAPTERS = "serve the model yourself (llm.engine.model) where adapters are wanted"


def check_endpoint(settings: ServiceSettings) -> None:
    """What can be known before anything is sent.

    Raises:
        ModelError: no address or model name, or the token's variable is not set.
    """
    endpoint = settings.endpoint
    parts = urllib.parse.urlsplit(endpoint.url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ModelError(f"llm.endpoint.url={endpoint.url!r} is not a URL", "use one such as https://host/v1")
    if not endpoint.model:
        raise ModelError(f"{endpoint.url} has no model name", "set llm.endpoint.model to a name that it serves")
    if endpoint.token_env and not os.environ.get(endpoint.token_env):
        raise ModelError(
            f"${endpoint.token_env} is not set",
            "put the endpoint's token there, or set llm.endpoint.token_env= (empty) if it needs none",
        )


def first_answer(settings: ServiceSettings, schema: dict[str, Any], *, max_tokens: int, deadline_s: float) -> Reply:
    """Ask the endpoint once, in the form of a run's requests: what it will refuse all the time is known before the run.

    Raises:
        ModelError: there was no answer; with what the endpoint said instead.
    """
    chat = [{"role": "system", "content": "Reply with one JSON object."}, {"role": "user", "content": "Are you ready?"}]
    try:
        with EndpointClient(settings) as client:
            return client.ask(
                chat, schema=schema, max_tokens=max_tokens, deadline_s=deadline_s, temperature=0.7, seed=0
            )
    except ModelError:
        raise
    except LLMServiceError as error:
        raise ModelError(f"the endpoint did not answer a first request: {error.problem}", error.remedy) from error


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
