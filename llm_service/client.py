"""The client: what refiners, critics, gates and commands ask.

`LLMClient` speaks to a deployment, `LocalClient` to an engine in this process, `fake.FakeClient` to a script. All are
synchronous, safe to share between threads, and made where they are used: pass the constructor's arguments to a Ray
actor, not the client.

Which adapter answers a role is decided here, by the run's `LATEST.json` (published.py), and travels with the request;
the replica labels its reply with what it resolved.
"""

import abc
import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, Self

from llm_service.adapters import AdapterRef
from llm_service.errors import (
    AdapterError,
    DeadlineExceeded,
    LLMServiceError,
    ModelError,
    Refused,
    Rejected,
    ReplicaLost,
    first_line,
)
from llm_service.protocol import Failure, Messages, Priority, ReplicaReport, Reply, Request
from llm_service.published import PublishedVersions
from llm_service.settings import EngineSettings, ServiceSettings

_log = logging.getLogger(__name__)
_REJECTIONS = 5  # in a row, with no answer in between: nothing that this client asks is taken
_WARM_UP: Messages = ({"role": "user", "content": "ready?"},)
_GRACE_S = 1.0  # the replica's own deadline fires first and names the reason; the client's is for a replica that hangs


class Client(abc.ABC):
    """The shared half of every client: deadline, bound on requests in flight, published versions, refusals.

    The text of a refusal is logged the first time that its kind occurs. Rejections in a row, with no answer in between,
    become a `ModelError`.

    Args:
        adapters_dir: the run's `adapters/` folder; None serves the base model for every role.
        max_in_flight: requests in flight at once; further callers wait within their deadline.
        warmup_deadline_s: deadline of the request that a new version must answer before it is published.
    """

    def __init__(self, adapters_dir: Path | str | None, *, max_in_flight: int, warmup_deadline_s: float) -> None:
        self._published = PublishedVersions(adapters_dir) if adapters_dir is not None else None
        self._slots = threading.BoundedSemaphore(max_in_flight)
        self._max_in_flight = max_in_flight
        self._warmup_deadline_s = warmup_deadline_s
        self._told: set[str] = set()
        self._rejections = 0
        self._counting = threading.Lock()

    def ask(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        deadline_s: float,
        schema: dict[str, Any] | None = None,
        role: str | None = None,
        adapter: AdapterRef | None = None,
        priority: int = Priority.FRESH,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Reply:
        """Answer one chat; arguments and errors as in `protocol.LLM.ask`."""
        until = time.monotonic() + deadline_s
        if adapter is None and role is not None:
            adapter = self.current(role)
        if not self._slots.acquire(timeout=deadline_s):
            raise DeadlineExceeded(
                f"no reply in {deadline_s:g} s: {self._max_in_flight} requests of this client in flight"
            )
        try:
            request = Request(
                messages=tuple({"role": message["role"], "content": message["content"]} for message in messages),
                max_tokens=max_tokens,
                deadline_s=max(until - time.monotonic(), 1e-3),
                schema=schema,
                adapter=adapter,
                priority=int(priority),
                temperature=temperature,
                seed=seed,
            )
            answer = self._exchange(request)
        finally:
            self._slots.release()
        if isinstance(answer, Failure):
            raise self._noted(answer.error())
        self._rejections = 0
        return answer

    def _noted(self, error: LLMServiceError) -> LLMServiceError:
        """The error to raise for a failed request, after it was counted, and logged if it is the first of its kind."""
        with self._counting:
            kind = type(error).__name__
            if isinstance(error, Refused) and kind not in self._told:
                self._told.add(kind)
                _log.warning("the language model refused a request: %s", error)
            if not isinstance(error, Rejected):
                return error
            self._rejections += 1
            count = self._rejections
        if count < _REJECTIONS:
            return error
        return ModelError(f"{count} requests in a row were refused, the last one: {error.problem}", error.remedy)

    def ask_all(self, chats: Sequence[Messages], **arguments: Any) -> list[Reply | LLMServiceError]:
        """Answer many chats, as many at once as the client may; a failure stands in its place in the list."""

        def one(messages: Messages) -> Reply | LLMServiceError:
            try:
                return self.ask(messages, **arguments)
            except LLMServiceError as error:
                return error

        with ThreadPoolExecutor(max_workers=self._max_in_flight) as pool:
            return list(pool.map(one, chats))

    def current(self, role: str) -> AdapterRef | None:
        """The published version of a role; None: the base model answers."""
        return self._published.current(role) if self._published is not None else None

    def publish(self, ref: AdapterRef) -> None:
        """Serve `ref.role` with `ref` from now on, in every client of the run.

        Raises:
            AdapterError: the version was refused; the pointer stays where it was.
            Refused, DeadlineExceeded: the warm-up request failed; the pointer stays, publish again later.
        """
        if self._published is None:
            raise AdapterError(f"adapter {ref.name}: this client has no adapters folder to publish in")
        reply = self.ask(
            _WARM_UP, max_tokens=1, deadline_s=self._warmup_deadline_s, adapter=ref, priority=Priority.PUBLISH
        )
        if (reply.role, reply.version) != (ref.role, ref.version):
            raise AdapterError(f"adapter {ref.name}: the warm-up request was answered by {reply.role}-v{reply.version}")
        self._published.flip(ref)

    @abc.abstractmethod
    def report(self) -> ReplicaReport:
        """What the (or one) replica says about itself."""

    @abc.abstractmethod
    def _exchange(self, request: Request) -> Reply | Failure:
        """Send one request and wait for its answer, no longer than its deadline."""

    def close(self) -> None:  # noqa: B027 - most clients have nothing to close
        """Free what the client started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LLMClient(Client):
    """Client of a run's deployment.

    Args:
        app: name of the Serve application (`service.app_name(run)`).
        adapters_dir: the run's `adapters/` folder.

    Raises:
        ReplicaLost: there is no such application.

    Needs a process that is connected to the Ray cluster, and a synchronous caller (a thread or a plain actor).
    """

    def __init__(self, app: str, adapters_dir: Path | str | None, settings: ServiceSettings) -> None:
        super().__init__(
            adapters_dir, max_in_flight=settings.max_in_flight, warmup_deadline_s=settings.warmup_deadline_s
        )
        from ray import serve
        from ray.serve.exceptions import RayServeException

        self._app = app
        try:
            # Over gRPC instead of as an actor's task: when a caller dies its connection breaks, and Serve cancels what
            # it had asked.
            self._handle = serve.get_app_handle(app).options(_by_reference=False)
        except RayServeException as error:
            raise ReplicaLost(f"{app} is not deployed on this cluster: {first_line(error)}") from None

    def _exchange(self, request: Request) -> Reply | Failure:
        import grpc.aio
        import ray.exceptions
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

        response = self._handle.ask.remote(request)
        try:
            return response.result(timeout_s=request.deadline_s + _GRACE_S)
        except TimeoutError:
            response.cancel()  # reaches the replica's task, which aborts the request in the engine
            return Failure("DeadlineExceeded", f"no reply from {self._app} in {request.deadline_s:.1f} s")
        except KeyboardInterrupt:
            response.cancel()
            raise
        except BackPressureError:
            return Failure("Refused", f"{self._app} is busy: the queue of this client is full")
        except DeploymentUnavailableError as error:
            return Failure("ReplicaLost", f"{self._app} has no replica: {first_line(error)}")
        except (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError) as error:
            return Failure("ReplicaLost", f"the replica of {self._app} died while it worked: {first_line(error)}")
        except (asyncio.CancelledError, RequestCancelledError, grpc.aio.AioRpcError) as error:  # it is being taken down
            return Failure("ReplicaLost", f"the replica of {self._app} ended the request: {first_line(error)}")

    def report(self) -> ReplicaReport:
        """What one replica says about itself; with several, whichever answered."""
        try:
            return self._handle.report.remote().result(timeout_s=self._warmup_deadline_s)
        except TimeoutError:
            raise ReplicaLost(f"no replica of {self._app} answered") from None


class LocalClient(Client):
    """Client of an engine in this process: for evaluation and tools that need no Ray. Starts the engine at once.

    Raises:
        ModelError: the engine does not start.
    """

    def __init__(self, engine: EngineSettings, adapters_dir: Path | str | None, settings: ServiceSettings) -> None:
        super().__init__(
            adapters_dir, max_in_flight=settings.max_in_flight, warmup_deadline_s=settings.warmup_deadline_s
        )
        from llm_service.engine import Engine

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm-engine", daemon=True)
        self._thread.start()
        self.engine = Engine(engine)
        try:
            asyncio.run_coroutine_threadsafe(self.engine.start(), self._loop).result()
        except BaseException:
            self.close()
            raise

    def _exchange(self, request: Request) -> Reply | Failure:
        future = asyncio.run_coroutine_threadsafe(self.engine.generate(request), self._loop)
        try:
            return future.result(timeout=request.deadline_s + _GRACE_S)
        except FutureTimeout:
            future.cancel()
            return Failure("DeadlineExceeded", f"no reply from the engine in {request.deadline_s:.1f} s")
        except KeyboardInterrupt:
            future.cancel()
            raise
        except LLMServiceError as error:
            return Failure.of(error)

    def report(self) -> ReplicaReport:
        return self.engine.report()

    def close(self) -> None:
        """Stop the engine and its process."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self.engine.stop(), self._loop).result(timeout=60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
