"""`ace bench llm`: the whole way (client, Ray Serve, engine) against vLLM's own offline `LLM.generate`.

Both get the same prompts, seeds and limits, one after the other, so that the ratio is what the service costs.
"""

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_service import service
from llm_service.errors import LLMServiceError
from llm_service.preflight import check_model
from llm_service.protocol import Messages, Reply
from llm_service.settings import EngineSettings, ServiceSettings

_PROMPT = (
    "Line 17 carries 112 % of its limit. Name one substation whose buses you would change, and say why. ({number})"
)
_DEADLINE_S = 300.0
# A reply under a grammar, as the running system asks for, and one that no model can end early.
_SCHEMA = {"type": "array", "items": {"enum": list(range(10))}, "minItems": 1000}
_CPUS = 2  # of the Ray that is started; the replica reserves half of one


@dataclass(frozen=True)
class Speed:
    """One way's figures."""

    seconds: float
    requests: int
    prompt_tokens: int
    reply_tokens: int

    @property
    def tokens_per_s(self) -> float:
        return self.reply_tokens / self.seconds


def measure_service(settings: ServiceSettings, requests: int, tokens: int) -> list[str]:
    """Send `requests` at once, each cut at `tokens`, through the service and then through vLLM alone.

    Returns:
        Lines to print.

    Raises:
        ModelError: The engine does not start.
        Refused, DeadlineExceeded: Not every request was answered.
    """
    engine = settings.engine.model_copy(update={"max_queued": max(requests, settings.engine.max_queued)})
    settings = settings.model_copy(
        update={
            "engine": engine,
            "max_in_flight": requests,
            "max_handle_queue": max(requests, settings.max_handle_queue),
        }
    )
    check_model(engine)
    chats = [[{"role": "user", "content": _PROMPT.format(number=number)}] for number in range(requests)]
    through, batch, start_s, model = _through_service(settings, chats, tokens)
    # A process of its own: vLLM reads threads and the rest from the environment before its first import.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        alone = pool.apply(_offline, (engine, chats, tokens))
    return [
        f"{model} on {engine.device}, {requests} requests at once, at most {tokens} tokens each",
        f"  service up after          {start_s:8.1f} s",
        f"  client, Serve, engine     {through.tokens_per_s:8.0f} reply tokens/s   "
        f"{through.requests / through.seconds:8.1f} requests/s   mean batch {batch:.1f}",
        f"  vLLM's own LLM.generate   {alone.tokens_per_s:8.0f} reply tokens/s   "
        f"{alone.requests / alone.seconds:8.1f} requests/s",
        f"  ratio                     {through.tokens_per_s / alone.tokens_per_s:8.2f}",
    ]


def _through_service(
    settings: ServiceSettings, chats: Sequence[Messages], tokens: int
) -> tuple[Speed, float, float, str]:
    """Speed, mean batch, seconds until the service answered, and the model's name."""
    import ray
    from ray import serve

    ray.init(address="local", num_cpus=_CPUS, include_dashboard=False, log_to_driver=False)
    try:
        begun = time.perf_counter()
        with service.deployed("bench", None, settings, replicas=1, cpus=_CPUS / 4, gpus=_gpus(settings)) as client:
            client.ask_all(chats[:4], schema=_SCHEMA, max_tokens=4, deadline_s=_DEADLINE_S)
            start_s = time.perf_counter() - begun
            begun = time.perf_counter()
            answers = client.ask_all(
                chats, schema=_SCHEMA, max_tokens=tokens, deadline_s=_DEADLINE_S, temperature=1.0, seed=0
            )
            seconds = time.perf_counter() - begun
            report = client.report()
        serve.shutdown()
    finally:
        ray.shutdown()
    for answer in answers:
        if isinstance(answer, LLMServiceError):
            raise answer
    replies = [answer for answer in answers if isinstance(answer, Reply)]
    read, written = sum(r.prompt_tokens for r in replies), sum(r.reply_tokens for r in replies)
    return Speed(seconds, len(replies), read, written), report.mean_batch, start_s, report.model


def _gpus(settings: ServiceSettings) -> float:
    return float(settings.engine.tensor_parallel) if settings.engine.device == "cuda" else 0.0


def _offline(settings: EngineSettings, chats: Sequence[Messages], tokens: int) -> Speed:
    from llm_service.engine import engine_arguments, set_environment

    set_environment(settings)
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.sampling_params import StructuredOutputsParams

    llm = LLM(**engine_arguments(settings, str(settings.model_dir())))
    tokenizer = llm.get_tokenizer()
    prompts: list[Any] = []
    for chat in chats:
        text = tokenizer.apply_chat_template(
            list(chat), add_generation_prompt=True, tokenize=False, **settings.chat_template_kwargs
        )
        prompts.append(TokensPrompt(prompt_token_ids=tokenizer(text, add_special_tokens=False)["input_ids"]))
    grammar = StructuredOutputsParams(json=_SCHEMA, disable_any_whitespace=True)
    llm.generate(prompts[:4], SamplingParams(max_tokens=4, structured_outputs=grammar), use_tqdm=False)
    sampling = SamplingParams(max_tokens=tokens, temperature=1.0, seed=0, structured_outputs=grammar)
    begun = time.perf_counter()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    seconds = time.perf_counter() - begun
    read = sum(len(output.prompt_token_ids or ()) for output in outputs)
    return Speed(seconds, len(outputs), read, sum(len(output.outputs[0].token_ids) for output in outputs))
