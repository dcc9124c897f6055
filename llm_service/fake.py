"""A client that answers from a script: for tests of what surrounds the language model. It is no model."""

import itertools
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from llm_service.client import Client
from llm_service.errors import LLMServiceError
from llm_service.protocol import Failure, ReplicaReport, Reply, Request


class FakeClient(Client):
    """Answers each request from a script.

    Args:
        script: what to answer: a function of the request, or texts (and errors to raise) that are repeated in turn.
        adapters_dir: a run's `adapters/` folder, if published versions matter to the test.
        max_in_flight: requests at once; further callers wait within their deadline.

    Attributes:
        requests: every request that was asked, in order.
    """

    def __init__(
        self,
        script: Callable[[Request], str | LLMServiceError] | Iterable[str | LLMServiceError],
        adapters_dir: Path | str | None = None,
        max_in_flight: int = 64,
    ) -> None:
        super().__init__(adapters_dir, max_in_flight=max_in_flight, warmup_deadline_s=10.0)
        if callable(script):
            self._answer = script
        else:
            turn = itertools.cycle(list(script))
            self._answer = lambda request: next(turn)
        self.requests: list[Request] = []
        self._lock = threading.Lock()

    def _exchange(self, request: Request) -> Reply | Failure:
        with self._lock:
            self.requests.append(request)
            answer = self._answer(request)
        if isinstance(answer, LLMServiceError):
            return Failure.of(answer)
        words = sum(len(message["content"].split()) for message in request.messages)
        return Reply(
            text=answer,
            finish_reason="stop",
            prompt_tokens=words,
            reply_tokens=len(answer.split()),
            model="fake",
            role=request.adapter.role if request.adapter else None,
            version=request.adapter.version if request.adapter else 0,
        )

    def report(self) -> ReplicaReport:
        return ReplicaReport(
            pid=0,
            node="",
            model="fake",
            fingerprint="",
            in_flight=0,
            finished=len(self.requests),
            refused=0,
            mean_batch=0.0,
        )
