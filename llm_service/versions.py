"""How an engine serves adapter versions: several beside the base model, or one at a time merged into its weights.

Both hold a version for the length of a request (`held`) and label it the same way: a request never runs under weights
other than those of the version it was admitted with.
"""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llm_service.adapters import AdapterRef, verify
from llm_service.admission import LoadedVersions, VersionGate
from llm_service.settings import EngineSettings

# transformers builds a model under patches of torch that hold for the whole process: of two models loaded at once, one
# can be left without its weights.
_LOADING = threading.Lock()


class LoraVersions:
    """Adapters in the engine beside the base model; up to `max_loras` distinct versions share a batch.

    Args:
        llm: vLLM's AsyncLLM.
        base_model: fingerprint of its base model.
    """

    def __init__(self, settings: EngineSettings, llm: Any, base_model: str) -> None:
        self._llm = llm
        self._gate = VersionGate(settings.max_loras)
        # Twice as many are kept as may be in a batch, so that a version that comes back need not be read again.
        self._loaded = LoadedVersions(
            2 * settings.max_loras,
            lambda ref: verify(ref, base_model=base_model, max_rank=settings.max_lora_rank),
            self._load,
            llm.remove_lora,
            lambda: self._gate.inside,
        )

    @asynccontextmanager
    async def held(self, ref: AdapterRef | None, priority: int) -> AsyncIterator[Any]:
        """Admit one request of a version; yields vLLM's LoRARequest, None for the base model.

        Raises:
            AdapterError: the version was refused.
        """
        from vllm.lora.request import LoRARequest

        if ref is None:
            yield None
            return
        async with self._gate.admitted(ref, priority):
            yield LoRARequest(engine_name(ref), await self._loaded.number(ref), ref.path)

    async def _load(self, ref: AdapterRef, number: int) -> None:
        from vllm.lora.request import LoRARequest

        await self._llm.add_lora(LoRARequest(engine_name(ref), number, ref.path))


class MergedVersions:
    """One version at a time as the engine's weights: base and adapter merged here, loaded when it is its turn.

    Requests of another version, the base model's too, wait until those inside are answered; then the engine reloads
    and they enter. On a CPU a merged version runs as fast as the base model, where an adapter beside it costs about
    half of the throughput (results/speed.md).

    Args:
        directory: of the base model.
        base_model: its fingerprint.
        reload: makes the engine load the weights of a directory; raises when the engine is lost by that.
    """

    def __init__(
        self, settings: EngineSettings, directory: Path, base_model: str, reload: Callable[[Path], Awaitable[None]]
    ) -> None:
        self._directory, self._reload = directory, reload
        self._gate = VersionGate(1)
        self._turn = asyncio.Lock()
        self._present: AdapterRef | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="ace-llm-merged-")
        self._merged = LoadedVersions(
            2 * settings.max_loras,
            lambda ref: verify(ref, base_model=base_model, max_rank=settings.max_lora_rank),
            self._merge,
            self._remove,
            lambda: self._gate.inside,
        )

    @asynccontextmanager
    async def held(self, ref: AdapterRef | None, priority: int) -> AsyncIterator[None]:
        """Admit one request of a version, with its weights in the engine.

        Raises:
            AdapterError: the version was refused.
        """
        if ref is not None:
            await self._merged.number(ref)  # verified and merged while others are still answered
        async with self._gate.admitted(ref, priority):
            # Merged again in the rare case that it had to make room while it waited.
            weights = self._directory if ref is None else self._file(await self._merged.number(ref))
            # A task of its own: a request that gives up must not leave half of the weights behind.
            await asyncio.shield(asyncio.ensure_future(self._switch(ref, weights)))
            yield

    async def _switch(self, ref: AdapterRef | None, weights: Path) -> None:
        async with self._turn:
            if self._present != ref:
                await self._reload(weights)
                self._present = ref

    async def _merge(self, ref: AdapterRef, number: int) -> None:
        await asyncio.to_thread(merge, self._directory, Path(ref.path), self._file(number))

    async def _remove(self, number: int) -> None:
        await asyncio.to_thread(shutil.rmtree, self._file(number))

    def _file(self, number: int) -> Path:
        return Path(self._folder.name) / str(number)


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the base model with an adapter's changes added to its weights, in the type the base is stored in."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with _LOADING:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
        merged.save_pretrained(target)


def engine_name(ref: AdapterRef) -> str:
    """Name of a version inside vLLM, which keys the prefix cache: with the hash, a rewritten directory is a new one."""
    return f"{ref.name}-{ref.sha256[:8]}"
