"""Sends appends that have waited for the writers of their datasets; see `append_queue`.

Used in the event loop of the network.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from lake.distributed.queued_appends import QueuedAppends
from lake.peers.changes.append_queue import NotSent, QueuedAppend
from lake.peers.changes.changes import Changes
from lake.peers.changes.forwarding import Made, Outcome
from lake.peers.transport.machine import TICK_SECONDS
from lake.peers.transport.tasks import TaskSet
from sennit_core.errors import SennitError
from sennit_core.logs import get_logger

__all__ = ["Deliveries", "DeliveriesHost"]

_log = get_logger(__name__)
_STORE_SECONDS = 1.0
"""Between two attempts at storing what became of an append."""


class DeliveriesHost(Protocol):
    """What deliveries need of the network."""

    def now(self) -> float:
        """Return seconds that never run backwards."""
        ...

    def alive(self) -> list[str]:
        """Return the nodes that can be reached."""
        ...


class Deliveries:
    """Sends what is queued, in its order, when the writers can be reached.

    Args:
        host: The network.
        changes: Sends changes.
        queued: The appends.
    """

    def __init__(self, host: DeliveriesHost, changes: Changes, queued: QueuedAppends) -> None:
        self._host = host
        self._changes = changes
        self._queued = queued
        self._tasks = TaskSet("queued appends")

    async def run(self) -> None:
        """Send appends until it is cancelled."""
        while True:
            if len(self._queued):
                try:
                    now, alive = self._host.now(), self._host.alive()
                    for append in await asyncio.to_thread(self._queued.tick, now, alive):
                        self._tasks.spawn(self._deliver(append))
                except Exception:  # noqa: BLE001 - logged; a defect must not end all that waits
                    _log.exception("queued appends: an unexpected error")
            await asyncio.sleep(TICK_SECONDS)

    async def end(self) -> None:
        """Stop sending."""
        await self._tasks.end()

    async def _deliver(self, append: QueuedAppend) -> None:
        outcome: Outcome | NotSent
        try:
            writer = self._changes.writer_of(append)
            outcome = await self._changes.deliver(append, writer)
        except SennitError as error:
            outcome = NotSent(error.to_json())
        except BaseException:
            # The network ends, or is at fault: the append stays, and is sent again.
            self._queued.abandoned(append.id)
            raise
        if isinstance(outcome, Made):
            _log.info("append %s is version %d of %s", append.id, outcome.version, append.name)
        await self._store(append, outcome)
        if isinstance(outcome, Made) and not append.is_repeated:
            # Only now: it is asked for again until it is durable here that it is made.
            await self._changes.say_known(writer, append.id)

    async def _store(self, append: QueuedAppend, outcome: Outcome | NotSent) -> None:
        while True:
            try:
                await asyncio.to_thread(self._queued.ended, append.id, outcome, self._host.now())
            except SennitError as error:  # a full disk; the next append waits behind this one
                _log.warning("storing what became of append %s: %s", append.id, error)
                await asyncio.sleep(_STORE_SECONDS)
            else:
                return
