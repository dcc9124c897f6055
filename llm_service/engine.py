"""One vLLM engine behind one coroutine: `await engine.generate(request)`.

`AsyncLLM` keeps the model in a process of its own; here are the checks before and around it. What must hold: nothing a
caller sends (an adapter, a schema, a size, a deadline) may end the engine; and when the engine does end, everyone
waiting is told so at once, with the tail of its log.
"""

import asyncio
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_service import logtail, preflight
from llm_service.adapters import model_fingerprint
from llm_service.batchstats import BatchMeter
from llm_service.chat import prompt_text
from llm_service.errors import (
    DeadlineExceeded,
    LLMServiceError,
    ModelError,
    Refused,
    Rejected,
    ReplicaLost,
    RequestTooLarge,
    first_line,
)
from llm_service.orphans import let_engines_end_with_parent
from llm_service.protocol import ReplicaReport, Reply, Request
from llm_service.settings import EngineSettings
from llm_service.thinking import CLOSE, closed, opened, without_thinking
from llm_service.versions import LoraVersions, MergedVersions, engine_name


@dataclass
class _Place:
    """A request inside the engine."""

    priority: int
    number: int
    limit: asyncio.Timeout
    displaced: bool = False


class Engine:
    """A vLLM engine. Create anywhere; `start` and everything after it in one event loop.

    Args:
        settings: the engine.
        name: who this is in errors ('llm replica of run-7').
        node: where it runs, in errors and reports.
    """

    def __init__(self, settings: EngineSettings, name: str = "llm engine", node: str = "this machine") -> None:
        self.settings = settings
        self.name, self.node = name, node
        self.model = ""
        self.fingerprint = ""
        self._llm: Any = None
        self._tokenizer: Any = None
        self._versions: LoraVersions | MergedVersions
        self._meter = BatchMeter()
        self._numbers = itertools.count()
        self._inside: dict[int, _Place] = {}
        self._finished = self._refused = 0
        self._served: dict[str, int] = {}
        self._dead: ReplicaLost | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the engine's process and load the model; blocks its event loop for as long as that takes.

        Raises:
            ModelError: one line that says why not.
        """
        directory = preflight.check_model(self.settings)
        preflight.check_memory(self.settings, directory)
        self.fingerprint = model_fingerprint(directory)
        self.model = f"{directory.name}@{self.fingerprint[:8]}"
        set_environment(self.settings)
        try:
            with logtail.output_to(self.settings.log_file):
                self._llm = _start_vllm(self.settings, str(directory), self._meter)
        except LLMServiceError:
            raise
        except Exception as error:
            raise ModelError(
                f"{self.name} on {self.node}: the engine did not start with {directory}: {self._cause(error)}",
                f"its log: {self.settings.log_file or 'the standard error of this process'}",
            ) from error
        self._tokenizer = self._llm.get_tokenizer()
        if self.settings.versions == "merged":
            self._versions = MergedVersions(self.settings, directory, self.fingerprint, self._reload)
        else:
            self._versions = LoraVersions(self.settings, self._llm, self.fingerprint)

    async def stop(self) -> None:
        """End the engine's process; nothing is answered afterwards."""
        if self._llm is not None:
            self._dead = self._dead or ReplicaLost(f"{self.name} was stopped")
            self._llm.shutdown(timeout=1.0)
            self._llm = None

    @property
    def dead(self) -> ReplicaLost | None:
        """Why the engine answers no more; None while it does. Looks at the engine's process."""
        if self._dead is None and (self._llm is None or self._llm.errored):
            tail = logtail.tail(self.settings.log_file)
            self._dead = ReplicaLost(
                f"{self.name} on {self.node}: its engine died" + (f"; the end of its log:\n{tail}" if tail else ""),
                "a new replica is started; ask again",
            )
        return self._dead

    def report(self) -> ReplicaReport:
        """State and counts, for metrics and for whoever adopts this engine."""
        return ReplicaReport(
            pid=os.getpid(),
            node=self.node,
            model=self.model,
            fingerprint=self.fingerprint,
            in_flight=len(self._inside),
            finished=self._finished,
            refused=self._refused,
            mean_batch=self._meter.mean(),
            versions=dict(self._served),
        )

    # -- requests -----------------------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            RequestTooLarge: bytes or tokens are over the limit.
            Refused: `max_queued` requests that are as urgent are inside already, or a more urgent one took its place.
            DeadlineExceeded: aborted in the engine at its deadline.
            AdapterError: its adapter version was refused.
            ReplicaLost: the engine died.
        """
        start = time.monotonic()
        try:
            self._admit(request)
        except Refused:
            self._refused += 1
            raise
        place = _Place(request.priority, next(self._numbers), asyncio.timeout(request.deadline_s))
        self._inside[place.number] = place
        try:
            async with place.limit:
                return await self._answer(request, f"r{place.number}", start)
        except TimeoutError:
            if place.displaced:
                self._refused += 1
                raise Refused("busy: a more urgent request took this one's place", "ask later") from None
            raise DeadlineExceeded(f"no reply in {request.deadline_s:.1f} s") from None
        except LLMServiceError:
            raise
        except Exception as error:
            raise self._translated(error) from error
        finally:
            self._inside.pop(place.number, None)

    def _admit(self, request: Request) -> None:
        if dead := self.dead:
            raise dead
        size = sum(len(message["content"].encode()) for message in request.messages) + len(str(request.schema or ""))
        if size > self.settings.max_request_bytes:
            raise RequestTooLarge(
                f"request of {size} bytes exceeds {self.settings.max_request_bytes}",
                "shorten it or raise engine.max_request_bytes",
            )
        if request.adapter is not None and self.settings.versions == "off":
            raise Refused(
                f"adapter {request.adapter.name} was requested from an engine without adapters",
                "set engine.adapters to lora or merged",
            )
        if len(self._inside) >= self.settings.max_queued:
            self._displace(request.priority)

    def _displace(self, priority: int) -> None:
        """Send away the latest of the least urgent requests inside, if it is less urgent than this."""
        last = max(self._inside.values(), key=lambda place: (place.priority, place.number))
        if last.priority <= priority:
            raise Refused(f"busy: {len(self._inside)} requests in the engine", "ask later, or raise engine.max_queued")
        del self._inside[last.number]
        last.displaced = True
        last.limit.reschedule(asyncio.get_running_loop().time())

    async def _answer(self, request: Request, request_id: str, start: float) -> Reply:
        from vllm.inputs.engine import tokens_input

        text, prompt = self._tokens(request)
        ref, thought = request.adapter, 0
        # The salt keeps what one version's weights made of a prompt from the next one's prefix cache.
        salt = engine_name(ref) if ref is not None else None
        async with self._versions.held(ref, request.priority) as lora:
            asked = prompt
            if self.settings.thinking_tokens:
                begun = prompt + self._encoded(opened(text))
                inputs = tokens_input(begun, cache_salt=salt)
                final = await self._generated(
                    inputs, self._thinking(request), f"{request_id}-t", lora, request.priority
                )
                thought = len(final.outputs[0].token_ids)
                asked = begun + self._encoded(closed(final.outputs[0].text))
            inputs = tokens_input(asked, cache_salt=salt)
            final = await self._generated(inputs, _sampling(request), request_id, lora, request.priority)
        completion = final.outputs[0]
        if completion.finish_reason not in ("stop", "length"):
            raise Rejected(
                f"the engine ended this request with {completion.finish_reason!r} (a schema it cannot compile?)",
                f"its log: {self.settings.log_file or 'the standard error of its process'}",
            )
        self._finished += 1
        if ref is not None:
            self._served[ref.role] = max(ref.version, self._served.get(ref.role, 0))
        stats = final.metrics
        return Reply(
            text=without_thinking(completion.text),
            finish_reason=completion.finish_reason,
            prompt_tokens=len(prompt),
            reply_tokens=thought + len(completion.token_ids),
            model=self.model,
            role=ref.role if ref else None,
            version=ref.version if ref else 0,
            queue_s=max(0.0, stats.scheduled_ts - stats.queued_ts) if stats else 0.0,
            total_s=time.monotonic() - start,
        )

    async def _generated(self, inputs: Any, sampling: Any, request_id: str, lora: Any, priority: int) -> Any:
        """vLLM's final output of one generation, which runs no longer than its caller waits."""
        final = None
        try:
            async for output in self._llm.generate(inputs, sampling, request_id, lora_request=lora, priority=priority):
                final = output
        finally:
            if not self._dead and (final is None or not final.finished):
                # Cancelled between vLLM's bookkeeping and its reply, a request could stay inside; unknown ids are
                # fine. Nothing may run on once its version is let go.
                await asyncio.shield(asyncio.ensure_future(self._llm.abort(request_id)))
        if final is None or not final.finished:
            raise ModelError(f"{self.name}: the engine ended request {request_id} without a reply")
        return final

    def _thinking(self, request: Request) -> Any:
        """Sampling of the thought: free text up to the closing mark or the bound."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        return SamplingParams(
            max_tokens=self.settings.thinking_tokens,
            temperature=request.temperature,
            seed=request.seed,
            stop=[CLOSE],
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _encoded(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _tokens(self, request: Request) -> tuple[str, list[int]]:
        """The prompt as the model's own template writes it, and its tokens."""
        text = prompt_text(self._tokenizer, request.messages, self.settings.chat_template_kwargs)
        tokens = self._encoded(text)
        limit = self.settings.max_model_len
        reply = request.max_tokens
        if self.settings.thinking_tokens:
            reply += self.settings.thinking_tokens + len(self._encoded(opened(text) + closed("")))
        if len(tokens) + reply > limit:
            self._refused += 1
            raise RequestTooLarge(
                f"prompt of {len(tokens)} and reply of {reply} tokens exceed {limit}",
                "shorten the prompt or raise engine.max_model_len",
            )
        return text, tokens

    def _translated(self, error: Exception) -> LLMServiceError:
        from vllm.exceptions import VLLMClientError

        if dead := self.dead:
            return dead
        if isinstance(error, VLLMClientError | ValueError):
            return Rejected(f"the engine does not accept this request: {first_line(error)}")
        cause = error.__cause__ or error
        return ModelError(f"{self.name} on {self.node}: {type(cause).__name__}: {first_line(cause)}")

    async def _reload(self, weights: Path) -> None:
        try:
            await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(weights)})
        except Exception as error:
            # Half of the weights are of another version: nothing may be answered with them.
            self._dead = ReplicaLost(
                f"{self.name} on {self.node}: the weights in {weights} could not be loaded: {first_line(error)}",
                "a new replica is started; ask again",
            )
            raise self._dead from error

    def _cause(self, error: Exception) -> str:
        """vLLM says 'see root cause above': that is in the log, as its last line that names an error."""
        named = [line for line in logtail.tail(self.settings.log_file, 200).splitlines() if "Error: " in line]
        return named[-1].split("] ", 1)[-1].strip() if "root cause" in str(error) and named else first_line(error)


def _sampling(request: Request) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    constraint = None
    if request.schema is not None:
        constraint = StructuredOutputsParams(json=request.schema, disable_any_whitespace=True)
    return SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed,
        structured_outputs=constraint,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def set_environment(settings: EngineSettings) -> None:
    """What vLLM reads from the environment; it must be there before the first import of vLLM."""
    os.environ.update(
        VLLM_NO_USAGE_STATS="1",
        VLLM_LOGGING_LEVEL=settings.log_level,
        VLLM_LOGGING_STREAM="ext://sys.stderr",
        VLLM_WORKER_MULTIPROC_METHOD="spawn",  # this process has threads
    )
    if settings.device == "cpu":
        os.environ.update(
            # The engine process holds the worker itself: one process and half a GB less, 12 s instead of 24 to start.
            VLLM_ENABLE_V1_MULTIPROCESSING="0",
            # Cores are shared with rollout workers, so nothing is pinned.
            VLLM_CPU_OMP_THREADS_BIND="nobind",
            OMP_NUM_THREADS=str(settings.threads),
        )


def engine_arguments(settings: EngineSettings, directory: str) -> dict[str, Any]:
    """The settings in vLLM's words: arguments of `AsyncEngineArgs` and of `LLM`."""
    arguments: dict[str, Any] = {
        "model": directory,
        "dtype": settings.dtype,
        "seed": settings.seed,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "kv_cache_memory_bytes": int(settings.kv_cache_gib * (1 << 30)),
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "tensor_parallel_size": settings.tensor_parallel,
        "enforce_eager": settings.enforce_eager,
        "scheduling_policy": "priority",
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "generation_config": "vllm",  # sampling is what the request says, not what the model's directory suggests
        "disable_log_stats": True,  # vLLM's own loggers; the batch meter is given apart
    }
    if settings.versions == "lora":
        arguments |= {
            "enable_lora": True,
            "max_loras": settings.max_loras,
            "max_cpu_loras": 2 * settings.max_loras,
            "max_lora_rank": settings.max_lora_rank,
        }
    return arguments


def _start_vllm(settings: EngineSettings, directory: str, meter: BatchMeter) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    built_for = "cpu" if current_platform.is_cpu() else "cuda" if current_platform.is_cuda() else "neither cpu nor cuda"
    if built_for != settings.device:
        raise ModelError(f"engine.device={settings.device}, but the installed vLLM was built for {built_for}")
    let_engines_end_with_parent()
    args = AsyncEngineArgs(**engine_arguments(settings, directory))
    return AsyncLLM.from_engine_args(args, stat_loggers=[meter.logger])
