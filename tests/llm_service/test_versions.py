"""Merged versions: whose weights are in the engine while a request runs. A recording engine stands for vLLM."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm_service import versions
from llm_service.adapters import AdapterRef
from llm_service.errors import AdapterError
from llm_service.settings import EngineSettings
from llm_service.versions import MergedVersions, merge

pytestmark = pytest.mark.unit
BASE = Path("/base")


def _ref(version: int) -> AdapterRef:
    return AdapterRef("actor", version, f"/run/actor-v{version}", str(version))


class _Engine:
    """Knows which version's weights it has; between two it has none."""

    def __init__(self) -> None:
        self.weights: str | None = str(BASE)
        self.reloads = 0

    async def reload(self, directory: Path) -> None:
        self.weights = None
        await asyncio.sleep(0.005)
        self.weights = str(BASE) if directory == BASE else (directory / "weights").read_text()
        self.reloads += 1


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Merging writes the adapter's path; the counter says how often each was merged."""
    count: Counter[str] = Counter()

    def merge(base: Path, adapter: Path, target: Path) -> None:
        count[str(adapter)] += 1
        target.mkdir()
        (target / "weights").write_text(str(adapter))

    def verify(ref: AdapterRef, **_: object) -> None:
        if ref.version == 13:
            raise AdapterError("adapter actor-v13: torn")

    monkeypatch.setattr(versions, "merge", merge)
    monkeypatch.setattr(versions, "verify", verify)
    return count


def _run(test: Callable[[MergedVersions, _Engine], Awaitable[None]]) -> None:
    async def limited() -> None:
        engine = _Engine()
        async with asyncio.timeout(10):
            await test(MergedVersions(EngineSettings(max_loras=1), BASE, "fingerprint", engine.reload), engine)

    asyncio.run(limited())


def test_a_cpu_serves_versions_merged_and_a_gpu_beside_the_base_model() -> None:
    assert EngineSettings().versions == EngineSettings(device="cpu").versions == "merged"
    assert EngineSettings(device="cuda").versions == "lora"
    assert EngineSettings(device="cpu", adapters="lora").versions == "lora"
    assert EngineSettings(device="cuda", adapters="merged").versions == "merged"


def test_a_request_runs_under_the_weights_of_its_version_and_no_other(merged: Counter[str]) -> None:
    async def test(served: MergedVersions, engine: _Engine) -> None:
        async def request(number: int) -> None:
            ref = _ref(number % 4) if number % 4 else None
            expected = ref.path if ref else str(BASE)
            async with served.held(ref, 0):
                for _ in range(3):
                    assert engine.weights == expected
                    await asyncio.sleep(0.001)

        await asyncio.gather(*(request(number) for number in range(80)))
        assert engine.reloads >= 3

    _run(test)
    # Two are kept (twice max_loras), three take turns: merging again is allowed, not for every request.
    assert set(merged) == {"/run/actor-v1", "/run/actor-v2", "/run/actor-v3"}
    assert sum(merged.values()) < 20


def test_the_same_version_is_merged_and_loaded_once(merged: Counter[str]) -> None:
    async def test(served: MergedVersions, engine: _Engine) -> None:
        async def request() -> None:
            async with served.held(_ref(1), 0):
                await asyncio.sleep(0.001)

        await asyncio.gather(*(request() for _ in range(20)))
        await request()
        assert engine.reloads == 1

    _run(test)
    assert merged == {"/run/actor-v1": 1}


def test_a_request_that_gives_up_while_the_weights_change_leaves_whole_ones(merged: Counter[str]) -> None:
    async def test(served: MergedVersions, engine: _Engine) -> None:
        async with served.held(_ref(1), 0):
            pass  # merged, so that what follows waits for the reload alone
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001), served.held(None, 0):
                raise AssertionError("the base model's weights cannot be there yet")
        assert engine.weights is None
        async with served.held(_ref(1), 0):
            assert engine.weights == "/run/actor-v1"

    _run(test)


def test_a_refused_version_changes_nothing(merged: Counter[str]) -> None:
    async def test(served: MergedVersions, engine: _Engine) -> None:
        async with served.held(_ref(1), 0):
            with pytest.raises(AdapterError, match="actor-v13: torn"):
                async with served.held(_ref(13), 0):
                    raise AssertionError("a torn version was served")
            assert engine.weights == "/run/actor-v1"

    _run(test)


def test_versions_merged_at_the_same_time_are_those_merged_one_by_one(
    tiny_model: Path, alpha: AdapterRef, bravo: AdapterRef, tmp_path: Path
) -> None:
    def weights(name: str, ref: AdapterRef) -> dict[str, torch.Tensor]:
        merge(tiny_model, Path(ref.path), tmp_path / name)
        return load_file(tmp_path / name / "model.safetensors")

    alone = [weights(f"alone-{ref.name}", ref) for ref in (alpha, bravo)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(weights, [f"together-{i}" for i in range(16)], [alpha, bravo] * 8))
    for i, merged in enumerate(together):
        torch.testing.assert_close(merged, alone[i % 2], rtol=0, atol=0)
