"""Which versions may be in the engine, and that each is loaded exactly once; a recording engine stands for vLLM."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llm_service.adapters import AdapterRef
from llm_service.admission import LoadedVersions, VersionGate
from llm_service.errors import AdapterError

pytestmark = pytest.mark.unit


def _ref(version: int) -> AdapterRef:
    return AdapterRef("actor", version, f"/run/actor-v{version}", str(version))


class _Recorder:
    """What the engine would be told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.refuse: set[int] = set()

    async def load(self, ref: AdapterRef, number: int) -> None:
        await asyncio.sleep(0.01)
        if ref.version in self.refuse:
            raise ValueError("shape mismatch\nand a traceback")
        self.calls.append(("load", ref.version))

    async def remove(self, number: int) -> None:
        self.calls.append(("remove", number))


def _versions(recorder: _Recorder, capacity: int = 4, gate: VersionGate | None = None) -> LoadedVersions:
    return LoadedVersions(
        capacity, lambda ref: None, recorder.load, recorder.remove, lambda: gate.inside if gate else frozenset()
    )


def _run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(limited())


def test_no_more_distinct_versions_are_inside_than_the_limit() -> None:
    async def test() -> None:
        gate, most = VersionGate(2), 0

        async def request(version: int) -> None:
            nonlocal most
            async with gate.admitted(version, 0):
                most = max(most, len(gate.inside))
                await asyncio.sleep(0.001)

        await asyncio.gather(*(request(i % 5) for i in range(50)))
        assert most == 2
        assert not gate.inside

    _run(test)


def test_a_stream_of_an_old_version_does_not_keep_a_new_one_out() -> None:
    async def test() -> None:
        gate, stop = VersionGate(1), False

        async def old() -> None:
            while not stop:
                async with gate.admitted("old", 0):
                    await asyncio.sleep(0.001)

        streams = [asyncio.create_task(old()) for _ in range(4)]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(1), gate.admitted("new", 0):
            stop = True
        await asyncio.gather(*streams)

    _run(test)


def test_waiting_requests_enter_by_priority_then_by_arrival() -> None:
    async def test() -> None:
        gate, order = VersionGate(1), []

        async def request(version: str, priority: int) -> None:
            async with gate.admitted(version, priority):
                order.append(version)

        async with gate.admitted("first", 0):
            waiting = []
            for version, priority in (("evaluation", 20), ("fresh", 0), ("backfill", 10), ("fresh too", 0)):
                waiting.append(asyncio.create_task(request(version, priority)))
                await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert order == ["fresh", "fresh too", "backfill", "evaluation"]

    _run(test)


def test_a_request_that_gives_up_waiting_blocks_nobody() -> None:
    async def test() -> None:
        gate = VersionGate(1)
        async with gate.admitted("a", 0):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), gate.admitted("b", 0):
                    raise AssertionError("admitted beyond the limit")
            async with asyncio.timeout(1), gate.admitted("a", 0):
                pass
        assert not gate.inside

    _run(test)


def test_a_version_is_loaded_once_however_many_ask() -> None:
    async def test() -> None:
        recorder = _Recorder()
        versions = _versions(recorder)
        numbers = await asyncio.gather(*(versions.number(_ref(1)) for _ in range(20)))
        assert set(numbers) == {1}
        assert recorder.calls == [("load", 1)]

    _run(test)


def test_a_request_that_gives_up_leaves_the_load_to_the_next() -> None:
    async def test() -> None:
        recorder = _Recorder()
        versions = _versions(recorder)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await versions.number(_ref(1))
        assert await versions.number(_ref(1)) == 1
        assert recorder.calls == [("load", 1)]

    _run(test)


def test_a_refused_version_is_an_adapter_error_and_may_be_tried_again() -> None:
    async def test() -> None:
        recorder = _Recorder()
        versions = _versions(recorder)
        recorder.refuse = {1}
        with pytest.raises(AdapterError, match="actor-v1: the engine refused it .shape mismatch.$"):
            await versions.number(_ref(1))
        recorder.refuse = set()
        await versions.number(_ref(1))
        assert recorder.calls == [("load", 1)]

    _run(test)


def test_room_is_made_by_the_longest_unused_version_that_nobody_needs() -> None:
    async def test() -> None:
        recorder, gate = _Recorder(), VersionGate(3)
        versions = _versions(recorder, capacity=3, gate=gate)
        for version in (1, 2, 3):
            await versions.number(_ref(version))
        await versions.number(_ref(2))  # used again, so 3 is older
        async with gate.admitted(_ref(1), 0):
            await versions.number(_ref(4))
        assert recorder.calls[-2:] == [("remove", 3), ("load", 4)]
        assert _ref(1) in versions and _ref(3) not in versions

    _run(test)
