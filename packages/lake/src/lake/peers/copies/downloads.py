"""Performs the downloads of objects: requests to other nodes, and files.

Runs in the event loop of the network; what reads or writes files is done by threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from lake.maintenance.retention import Retention
from lake.peers.copies.copies import Copies
from lake.peers.copies.transfers import FindKept, ObjectComplete, ObjectUnobtainable, WriteChunk
from lake.peers.transport.machine import Call, Effect, Failed, Replied
from lake.peers.transport.tasks import TaskSet
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

    def tick(self) -> None:
        """Let time pass."""
        self.perform(self.copies.transfers.tick(self._host.now()))

    async def end(self) -> None:
        """Stop what is under way."""
        await self._tasks.end()

    async def obtain(
        self, dataset: str, name: str, sources: Sequence[str], admit: Callable[[int], str]
    ) -> None:
        """Fetch an object of a dataset now.

        Args:
            dataset: The dataset.
            name: The object.
            sources: Nodes that may have it.
            admit: As of `Transfers.want`.

        Raises:
            Unavailable: No source has it.
        """
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((dataset, name), []).append(waiting)
        transfers = self.copies.transfers
        transfers.want(dataset, name, sources, by=waiting, priority=_FIRST, admit=admit)
        try:
            self.tick()
            await waiting
        finally:
            transfers.cancel(dataset, name, by=waiting)  # it was stopped, or has ended
            others = self._waiting.get((dataset, name), [])
            if waiting in others:
                others.remove(waiting)
            if not others:
                self._waiting.pop((dataset, name), None)

    @asynccontextmanager
    async def held(
        self,
        dataset: str,
        wanted: Mapping[str, Callable[[int], str]],
        sources: Sequence[str],
    ) -> AsyncIterator[None]:
        """Fetch objects that no row references yet, and keep them until the context is left.

        Args:
            dataset: The dataset.
            wanted: The objects, each with what admits it, as of `Transfers.want`.
            sources: Nodes that may have them.

        Raises:
            Unavailable: No source has one.
        """
        leased = self._retention.acquire(wanted)
        try:
            held = self.copies.held
            missing = [n for n in wanted if not (held.is_here(n) and held.was_received(dataset, n))]
            await asyncio.gather(
                *(self.obtain(dataset, name, sources, wanted[name]) for name in missing)
            )
            yield
        finally:
            self._retention.release(leased)

    def perform(self, effects: Iterable[Effect]) -> None:
        """Perform effects of the machine of transfers."""
        for effect in effects:
            self.spawn(self._call(effect) if isinstance(effect, Call) else self._work(effect))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until it ends or the node leaves the network."""
        self._tasks.spawn(work)

    async def _work(self, effect: Effect) -> None:
        copies = self.copies
        transfers = copies.transfers
        match effect:
            case WriteChunk():
                await self._write(effect)
            case FindKept(dataset, name):
                kept = await asyncio.to_thread(copies.kept_chunks, dataset, name)
                self.perform(transfers.found_kept(effect, kept, self._host.now()))
            case ObjectComplete(dataset, name):
                problem: SennitError | None = None
                try:
                    await asyncio.to_thread(copies.complete, effect)
                except (SennitError, OSError) as error:
                    _log.warning("the copy of object %s was not stored: %s", name[:16], error)
                    found = Unavailable(f"object {name[:16]}", hint=str(error))
                    problem = error if isinstance(error, SennitError) else found
                transfers.stored(dataset, name)
                self._settle(dataset, name, problem)
                copies.replication.soon()
            case ObjectUnobtainable(dataset, name, reason):
                # What was written stays for a later attempt.
                copies.replication.unobtainable(dataset, name)
                self._settle(dataset, name, Unavailable(f"object {name[:16]}", hint=reason or None))
            case _:
                raise AssertionError(f"nothing performs {effect}")

    async def _write(self, effect: WriteChunk) -> None:
        transfers = self.copies.transfers
        try:
            is_right = await asyncio.to_thread(self.copies.write, effect)
        except (SennitError, OSError) as error:
            _log.warning("the copy of object %s was not written: %s", effect.object[:16], error)
            transfers.abandon(effect.dataset, effect.object)
            found = Unavailable(f"object {effect.object[:16]}", hint=str(error))
            problem = error if isinstance(error, SennitError) else found
            self._settle(effect.dataset, effect.object, problem)
        else:
            self.perform(transfers.written(effect, is_right=is_right, now=self._host.now()))

    def _settle(self, dataset: str, name: str, problem: SennitError | None) -> None:
        for waiting in self._waiting.pop((dataset, name), []):
            if waiting.done():
                continue
            if problem is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(problem)

    async def _call(self, call: Call) -> None:
        result = await self._host.call(call)
        now, transfers = self._host.now(), self.copies.transfers
        if isinstance(result, Replied):
            self.perform(transfers.replied(result, now))
        else:
            self.perform(transfers.failed(result, now))
