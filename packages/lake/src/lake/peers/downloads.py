"""Performs the downloads of objects: requests to other nodes, and files.

Runs in the event loop of the network; what reads or writes files is done by threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from lake.peers.copies import Copies
from lake.peers.machine import Call, Effect, Failed, Replied
from lake.peers.tasks import TaskSet
from lake.peers.transfers import ObjectComplete, ObjectUnobtainable, WriteChunk
from lake.retention import Retention
from sennit_core.errors import SennitError, Unavailable
from sennit_core.logs import get_logger

__all__ = ["Caller", "Downloads"]

_log = get_logger(__name__)
_FIRST = -1.0
"""Priority of what a query or an adoption waits for, before all copies (which have 0 and more)."""


class Caller(Protocol):
    """What downloads need of the network."""

    def now(self) -> float:
        """Return seconds that never run backwards."""
        ...

    async def call(self, call: Call) -> Replied | Failed:
        """Send a request and return how it ended."""
        ...


class Downloads:
    """The downloads of one node.

    Args:
        host: The network.
        copies: The copies, and the machine of transfers.
        retention: Keeps objects that nothing references yet.
    """

    def __init__(self, host: Caller, copies: Copies, retention: Retention) -> None:
        self._host = host
        self.copies = copies
        self._retention = retention
        # Who waits for an object of a dataset.
        self._waiting: dict[tuple[str, str], list[asyncio.Future[None]]] = {}
        self._tasks = TaskSet("copies of shared datasets")
        self._file_work = asyncio.Lock()

    def tick(self) -> None:
        """Let time pass."""
        self.perform(self.copies.transfers.tick(self._host.now()))

    async def end(self) -> None:
        """Stop what is under way."""
        await self._tasks.end()

    async def obtain(self, dataset: str, name: str, sources: Sequence[str], size_max: int) -> None:
        """Fetch an object of a dataset now.

        Raises:
            Unavailable: No source has it.
        """
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((dataset, name), []).append(waiting)
        kept = await asyncio.to_thread(self.copies.kept_chunks, dataset, name)
        transfers = self.copies.transfers
        transfers.want(dataset, name, sources, priority=_FIRST, kept=kept, size_max=size_max)
        self.tick()
        await waiting

    @asynccontextmanager
    async def held(
        self, dataset: str, names: Sequence[str], sources: Sequence[str], size_max: int
    ) -> AsyncIterator[None]:
        """Fetch objects that no row references yet, and keep them until the context is left."""
        leased = self._retention.acquire(names)
        try:
            held = self.copies.held
            missing = [n for n in names if not (held.is_here(n) and held.was_received(dataset, n))]
            await asyncio.gather(
                *(self.obtain(dataset, name, sources, size_max) for name in missing)
            )
            yield
        finally:
            self._retention.release(leased)

    def perform(self, effects: Iterable[Effect]) -> None:
        """Perform effects of the machine of transfers."""
        self.spawn(self._perform(list(effects)))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until it ends or the node leaves the network."""
        self._tasks.spawn(work)

    async def _perform(self, effects: Sequence[Effect]) -> None:
        transfers = self.copies.transfers
        for effect in effects:
            if isinstance(effect, Call):
                self.spawn(self._call(effect, transfers.replied, transfers.failed))
        # In their order: the chunks of an object are written before it is complete.
        async with self._file_work:
            for effect in effects:
                if not isinstance(effect, Call):
                    await self._perform_one(effect)

    async def _perform_one(self, effect: Effect) -> None:
        copies = self.copies
        match effect:
            case WriteChunk():
                await asyncio.to_thread(copies.write, effect)
            case ObjectComplete(dataset, name):
                problem: SennitError | None = None
                try:
                    await asyncio.to_thread(copies.complete, effect)
                except SennitError as error:
                    problem = error
                    _log.warning("the copy of object %s was not stored: %s", name[:16], error)
                self._settle(dataset, name, problem)
                copies.replication.soon()
            case ObjectUnobtainable(dataset, name, reason):
                await asyncio.to_thread(copies.forget, dataset, name)
                problem = Unavailable(f"object {name[:16]}", hint=reason or None)
                self._settle(dataset, name, problem)

    def _settle(self, dataset: str, name: str, problem: SennitError | None) -> None:
        for waiting in self._waiting.pop((dataset, name), []):
            if waiting.done():
                continue
            if problem is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(problem)

    async def _call(
        self,
        call: Call,
        replied: Callable[[Replied, float], Iterable[Effect]],
        failed: Callable[[Failed, float], Iterable[Effect]],
    ) -> None:
        result = await self._host.call(call)
        now = self._host.now()
        self.perform(replied(result, now) if isinstance(result, Replied) else failed(result, now))
