"""Which adapter versions may be in the engine, and the loading of each exactly once. Pure asyncio; no vLLM.

Two facts of the engine are behind this (measured): a request that makes it load a bad adapter kills it, and a version
that fell out of its cache is read from disk again inside a step. So no request reaches the engine before its version
was verified and loaded by an explicit call, and this module, not the engine, decides which version makes room.
"""

import asyncio
import heapq
import itertools
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

from llm_service.adapters import AdapterRef
from llm_service.errors import AdapterError, first_line


class VersionGate:
    """Admits requests of at most `limit` distinct versions at once; the others wait by priority, then by arrival.

    A request of a version that is already inside passes at once unless one of another version waits: else a steady
    stream of old versions would keep a new one out for ever.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: dict[Hashable, int] = {}
        self._waiting: list[tuple[int, int, Hashable, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @property
    def inside(self) -> frozenset[Hashable]:
        """Versions with admitted requests."""
        return frozenset(self._inside)

    @asynccontextmanager
    async def admitted(self, version: Hashable, priority: int) -> AsyncIterator[None]:
        """Hold a place for one request of `version`; waiting may be cancelled at any time."""
        await self._enter(version, priority)
        try:
            yield
        finally:
            self._leave(version)

    async def _enter(self, version: Hashable, priority: int) -> None:
        if not self._waiting and self._fits(version):
            self._inside[version] = self._inside.get(version, 0) + 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), version, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(version)  # admitted in the same moment as it was cancelled
            else:
                turn.cancel()
                self._admit()  # what stood behind it may pass now
            raise

    def _leave(self, version: Hashable) -> None:
        self._inside[version] -= 1
        if not self._inside[version]:
            del self._inside[version]
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            _, _, version, turn = self._waiting[0]
            if not turn.done():
                if not self._fits(version):
                    return
                self._inside[version] = self._inside.get(version, 0) + 1
                turn.set_result(None)
            heapq.heappop(self._waiting)

    def _fits(self, version: Hashable) -> bool:
        return version in self._inside or len(self._inside) < self._limit


class LoadedVersions:
    """Adapter versions in the engine, each under a name and number of its own.

    Args:
        capacity: versions kept; above it the longest unused one that no request needs is removed.
        verify: raises AdapterError for a version that must not be loaded (run in a thread: it hashes files).
        load: loads (ref, number) into the engine; raises what the engine raises.
        remove: removes a number from the engine.
        in_use: references that admitted requests need.
    """

    def __init__(
        self,
        capacity: int,
        verify: Callable[[AdapterRef], object],
        load: Callable[[AdapterRef, int], Awaitable[object]],
        remove: Callable[[int], Awaitable[object]],
        in_use: Callable[[], frozenset[Hashable]],
    ) -> None:
        self._capacity = capacity
        self._verify, self._load, self._remove, self._in_use = verify, load, remove, in_use
        self._numbers = itertools.count(1)
        self._loaded: OrderedDict[AdapterRef, int] = OrderedDict()
        self._loading: dict[AdapterRef, asyncio.Task[int]] = {}

    def __contains__(self, ref: AdapterRef) -> bool:
        return ref in self._loaded

    async def number(self, ref: AdapterRef) -> int:
        """The engine's number of a version, which is loaded first if it is not there.

        Raises:
            AdapterError: the version was refused; the engine goes on, and a later request tries again.
        """
        if ref in self._loaded:
            self._loaded.move_to_end(ref)
            return self._loaded[ref]
        if ref not in self._loading:
            # A task of its own, so that a request that gives up does not leave a half-known version in the engine.
            task = asyncio.create_task(self._bring_in(ref))
            self._loading[ref] = task
            task.add_done_callback(lambda _: self._loading.pop(ref, None))
        return await asyncio.shield(self._loading[ref])

    async def _bring_in(self, ref: AdapterRef) -> int:
        await asyncio.to_thread(self._verify, ref)
        await self._make_room()
        number = next(self._numbers)
        try:
            await self._load(ref, number)
        except AdapterError:
            raise
        except Exception as error:
            raise AdapterError(f"adapter {ref.name}: the engine refused it ({first_line(error)})") from error
        self._loaded[ref] = number
        return number

    async def _make_room(self) -> None:
        while len(self._loaded) >= self._capacity:
            needed = self._in_use()
            oldest = next((ref for ref in self._loaded if ref not in needed), None)
            if oldest is None:
                raise AdapterError(f"all {self._capacity} adapter places are in use", "raise engine.max_loras")
            await self._remove(self._loaded.pop(oldest))
