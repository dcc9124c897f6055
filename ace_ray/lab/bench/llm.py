"""`ace bench llm`: the whole way (client, Ray Serve, engine) against vLLM's own offline `LLM.generate`.

Both get the same prompts, grammar and limits, with the base model and with an adapter version. Both engines are up for
the whole measurement and work in turns, now this one first and now that one, so that what else the machine does meets
both: the ratio of two neighbours is what the service costs. On a busy machine even that is rough; the CPU time that
both took for the same work hardly depends on it.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ace_ray.lab.bench.random_model import random_adapter, random_model
from llm_service import service
from llm_service.adapters import AdapterRef
from llm_service.chat import prompt_text
from llm_service.errors import LLMServiceError
from llm_service.orphans import end_with_parent
from llm_service.preflight import check_model
from llm_service.protocol import Messages, Reply
from llm_service.settings import EngineSettings, ServiceSettings
from llm_service.versions import merge

_DEADLINE_S = 600.0
_WARM_UP: list[Messages] = [({"role": "user", "content": "ready?"},)]
_CPUS = 2  # of the Ray that is started; the replica reserves half of one

Waves = Sequence[Sequence[Messages]]
"""Chats of each repetition; no chat comes twice, or the prefix cache would answer for the engine."""


@dataclass(frozen=True)
class Speed:
    """One repetition: wall time, CPU time of all processes that took part, and tokens read and written."""

    seconds: float
    cpu_s: float
    requests: int
    prompt_tokens: int
    reply_tokens: int

    @property
    def tokens_per_s(self) -> float:
        return self.reply_tokens / self.seconds


Speeds = dict[str, list[Speed]]
"""Speeds by who answered, 'base' or 'version'."""


@dataclass(frozen=True)
class _Asked:
    waves: Waves
    schema: dict[str, Any]
    tokens: int
    version: AdapterRef | None

    def by_version(self) -> dict[str, AdapterRef | None]:
        return {"base": None} | ({"version": self.version} if self.version is not None else {})


def measure_service(
    settings: ServiceSettings,
    chats: Sequence[Messages],
    schema: dict[str, Any],
    *,
    requests: int,
    tokens: int,
    repeats: int = 3,
    model_size: str | None = None,
) -> dict[str, Any]:
    """Send `requests` at once, each cut at `tokens`, through the service and then through vLLM alone.

    Args:
        chats: what is asked, repeated with a number of its own in each request.
        schema: that the replies follow.
        model_size: a model of random weights (`random_model.SIZES`) instead of the settings' model.

    Returns:
        Keys as docs/json.md has them.

    Raises:
        ModelError: the engine does not start.
        Refused, DeadlineExceeded: not every request was answered.
    """
    with tempfile.TemporaryDirectory(prefix="ace-bench-llm-") as folder:
        engine = settings.engine.model_copy(update={"max_queued": max(requests, settings.engine.max_queued)})
        if model_size is not None:
            engine = engine.model_copy(update={"model": str(random_model(model_size, Path(folder) / model_size))})
        settings = settings.model_copy(
            update={
                "engine": engine,
                "max_in_flight": requests,
                "max_handle_queue": max(requests, settings.max_handle_queue),
            }
        )
        directory = check_model(engine)
        version = None
        if engine.versions != "off":
            version = random_adapter(directory, Path(folder) / "adapters", min(16, engine.max_lora_rank))
        asked = _Asked([_numbered(chats, wave, requests) for wave in range(repeats)], schema, tokens, version)
        through, alone, batch, model = _both_ways(settings, asked, Path(folder) / "merged")
    ratios = {who: _ratios(through[who], alone[who]) for who in through}
    answered = "base" if version is None else "version"
    return {
        "model": model,
        "device": engine.device,
        "adapters": engine.versions,
        "requests": requests,
        "tokens": tokens,
        "repeats": repeats,
        "mean_batch": batch,
        "service": _summary(through),
        "offline": _summary(alone),
        "ratio": statistics.median(ratios[answered]),
        "ratio_base": statistics.median(ratios["base"]),
        "ratios": ratios,
        "ratio_cpu": _cpu_per_token(alone[answered]) / _cpu_per_token(through[answered]),
    }


def speed_lines(result: Mapping[str, Any]) -> list[str]:
    """What `measure_service` found, for a terminal."""
    shown = {"base": "base model", "version": f"adapter version ({result['adapters']})"}
    lines = [
        f"{result['model']} on {result['device']}, {result['requests']} requests at once, at most {result['tokens']} "
        f"reply tokens each, median of {result['repeats']}",
        f"  mean batch of the service {result['mean_batch']:.1f}",
    ]
    for way, name in (("service", "client, Serve, engine"), ("offline", "vLLM's own LLM.generate")):
        for who, speed in result[way].items():
            lines.append(
                f"  {name:<24} {shown[who]:<26} {speed['tokens_per_s']:8.0f} reply tokens/s "
                f"{speed['requests_per_s']:8.1f} requests/s"
            )
    if "version" in result["service"]:
        share = result["service"]["version"]["tokens_per_s"] / result["service"]["base"]["tokens_per_s"]
        lines.append(f"  a version runs at {share:.2f} of the base model's speed")
    ratios = result["ratios"]["version" if "version" in result["service"] else "base"]
    return [
        *lines,
        f"  ratio {result['ratio']:.2f}, the median of {len(ratios)} ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"{result['ratio_cpu']:.2f} by CPU time; base model {result['ratio_base']:.2f}",
    ]


def _numbered(chats: Sequence[Messages], wave: int, count: int) -> list[Messages]:
    def one(number: int) -> Messages:
        *first, last = chats[number % len(chats)]
        return [*first, {**last, "content": f"Question {wave + 1}.{number + 1}. {last['content']}"}]

    return [one(number) for number in range(count)]


def _summary(speeds: Speeds) -> dict[str, dict[str, float]]:
    return {
        who: {
            "tokens_per_s": statistics.median(run.tokens_per_s for run in runs),
            "requests_per_s": statistics.median(run.requests / run.seconds for run in runs),
            "cpu_s": statistics.mean(run.cpu_s / run.requests for run in runs),
            "prompt_tokens": statistics.mean(run.prompt_tokens / run.requests for run in runs),
            "reply_tokens": statistics.mean(run.reply_tokens / run.requests for run in runs),
        }
        for who, runs in speeds.items()
    }


def _ratios(through: Sequence[Speed], alone: Sequence[Speed]) -> list[float]:
    """Of each repetition; its two ways were measured one after the other."""
    return [ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in zip(through, alone, strict=True)]


def _cpu_per_token(speeds: Sequence[Speed]) -> float:
    return sum(run.cpu_s for run in speeds) / sum(run.reply_tokens for run in speeds)


def _both_ways(settings: ServiceSettings, asked: _Asked, folder: Path) -> tuple[Speeds, Speeds, float, str]:
    """Speeds through the service and alone, mean batch, and the model's name."""
    import ray
    from ray import serve

    versions = asked.by_version()
    speeds: tuple[Speeds, Speeds] = {who: [] for who in versions}, {who: [] for who in versions}
    gpus = float(settings.engine.tensor_parallel) if settings.engine.device == "cuda" else 0.0
    # A process of its own: vLLM reads threads and the rest from the environment before its first import.
    ray.init(address="local", num_cpus=_CPUS, include_dashboard=False, log_to_driver=False)
    try:
        with (
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool,
            service.deployed(service.BENCH, None, settings, replicas=1, cpus=_CPUS / 4, gpus=gpus) as client,
        ):
            replica = psutil.Process(client.report().pid)
            processes = [psutil.Process(), replica, *replica.children(recursive=True)]

            def ask(chats: Sequence[Messages], tokens: int, who: str) -> Speed:
                begun, cpu_begun = time.perf_counter(), _cpu_s(processes)
                answers = client.ask_all(
                    chats, schema=asked.schema, max_tokens=tokens, deadline_s=_DEADLINE_S, adapter=versions[who]
                )
                return _speed(answers, time.perf_counter() - begun, _cpu_s(processes) - cpu_begun)

            def alone(chats: Sequence[Messages], tokens: int, who: str) -> Speed:
                return pool.submit(_Offline.generate, chats, tokens, who).result()

            pool.submit(_Offline.start, settings.engine, asked, folder).result()
            turns = [(ask, speeds[0]), (alone, speeds[1])]
            for chats in asked.waves:
                for who in versions:
                    for way, measured in turns:
                        way(_WARM_UP, 1, who)  # the first request of an engine is slow, and so is a version's
                        measured[who].append(way(chats, asked.tokens, who))
                turns.reverse()
            report = client.report()
        serve.shutdown()
    finally:
        ray.shutdown()
    return *speeds, report.mean_batch, report.model


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds of these processes so far, without their children's."""
    times = [process.cpu_times() for process in processes]
    return sum(t.user + t.system for t in times)


def _speed(answers: Sequence[Reply | LLMServiceError], seconds: float, cpu_s: float) -> Speed:
    replies = []
    for answer in answers:
        if isinstance(answer, LLMServiceError):
            raise answer
        replies.append(answer)
    read, written = sum(reply.prompt_tokens for reply in replies), sum(reply.reply_tokens for reply in replies)
    return Speed(seconds, cpu_s, len(replies), read, written)


class _Offline:
    """vLLM's own engine, one in a process; `start` and `generate` are called through a pool of that one process."""

    _one: "_Offline"

    @classmethod
    def start(cls, settings: EngineSettings, asked: _Asked, folder: Path) -> None:
        cls._one = cls(settings, asked, folder)

    @classmethod
    def generate(cls, chats: Sequence[Messages], tokens: int, who: str) -> Speed:
        return cls._one._generate(chats, tokens, who, cls._one._prepared(who))

    def __init__(self, settings: EngineSettings, asked: _Asked, folder: Path) -> None:
        from llm_service.engine import engine_arguments, set_environment

        set_environment(settings)
        from vllm import LLM

        self._settings, self._asked, self._folder = settings, asked, folder
        self._llm = LLM(**engine_arguments(settings, str(settings.model_dir())))
        if settings.versions == "merged" and asked.version is not None:
            merge(settings.model_dir(), Path(asked.version.path), folder)

    def _prepared(self, who: str) -> Any:
        """The LoRARequest of a version; merged weights are loaded before the clock starts."""
        from vllm.lora.request import LoRARequest

        version = self._asked.by_version()[who]
        if self._settings.versions == "merged":
            weights = self._folder if version is not None else self._settings.model_dir()
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(weights)})
        elif version is not None:
            return LoRARequest(version.name, 1, version.path)
        return None

    def _generate(self, chats: Sequence[Messages], tokens: int, who: str, lora: Any) -> Speed:
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import StructuredOutputsParams

        grammar = StructuredOutputsParams(json=self._asked.schema, disable_any_whitespace=True)
        sampling = SamplingParams(max_tokens=tokens, temperature=0.0, structured_outputs=grammar)
        tokenizer = self._llm.get_tokenizer()
        begun, cpu_begun = time.perf_counter(), time.process_time()
        # Tokens, not text: with an adapter vLLM would look for a tokenizer of the adapter's own for every prompt.
        prompts: list[Any] = []
        for chat in chats:
            text = prompt_text(tokenizer, chat, self._settings.chat_template_kwargs)
            tokens_of = tokenizer(text, add_special_tokens=False)["input_ids"]
            prompts.append(TokensPrompt(prompt_token_ids=tokens_of, cache_salt=who))
        outputs = self._llm.generate(prompts, sampling, lora_request=lora, use_tqdm=False)
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
        read = sum(len(output.prompt_token_ids or ()) for output in outputs)
        written = sum(len(output.outputs[0].token_ids) for output in outputs)
        return Speed(seconds, cpu_s, len(outputs), read, written)
