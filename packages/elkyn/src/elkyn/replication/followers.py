"""The followers of a server: what they have acknowledged, and waiting for positions.

`follower_sessions` serves one follower; this module has what requests and other sessions need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from elkyn.errors import NotReplicated, ReplicaLag
from elkyn.replication.acks import Acks
from elkyn.store import ElkynStore
from sennit_core.errors import Busy, Closed

__all__ = ["Replication", "wait_for_position", "wait_until_readable"]

_FOLLOWERS_MAX = 100
# Each is a copy of a whole store's file on this server's disk.
_SNAPSHOTS_MAX = 2  # made at the same time


class Session(Protocol):
    """A follower's connection."""

    def close(self) -> None:
        """End the connection."""
        ...


class Replication:
    """The followers of a server; all methods but `close` are called in its event loop.

    Args:
        ack_seconds: how long a write waits for acknowledgements.
    """

    def __init__(self, ack_seconds: float) -> None:
        self._ack_seconds = ack_seconds
        self.acks: dict[ElkynStore, Acks] = {}
        self.snapshots = asyncio.Semaphore(_SNAPSHOTS_MAX)
        # A session with the loop that serves it; `end_sessions` may be called on any thread.
        self._open: dict[Session, asyncio.AbstractEventLoop] = {}
        self._closed = False

    def acks_of(self, store: ElkynStore) -> Acks:
        """Return what the followers of a store have acknowledged."""
        return self.acks.setdefault(store, Acks())

    @contextmanager
    def registered(self, session: Session) -> Iterator[None]:
        """Register a follower's session within a `with` block.

        Raises:
            Busy: too many followers are connected.
        """
        if self._closed:
            raise Closed("the server")
        if len(self._open) >= _FOLLOWERS_MAX:
            raise Busy(f"{_FOLLOWERS_MAX} replicas are connected already")
        self._open[session] = asyncio.get_running_loop()
        try:
            yield
        finally:
            del self._open[session]

    async def replicated(self, store: ElkynStore, position: int, replicas: int) -> None:
        """Wait until `replicas` followers have acknowledged a write.

        Raises:
            NotReplicated: too few did in time; the write is durable on this server all the same.
        """
        acks, seconds = self.acks_of(store), self._ack_seconds
        if replicas and not await acks.wait(position, replicas, seconds):
            raise NotReplicated(position, replicas, acks.count(position), seconds=seconds)

    def end_sessions(self) -> None:
        """Disconnect every follower, so that it reconnects with a new handshake."""
        for acks in self.acks.values():
            # The term changes or the server stops: positions are acknowledged anew after the next
            # hello.
            acks.clear()
        for session, loop in list(self._open.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(session.close)

    def close(self) -> None:
        """Disconnect every follower and refuse new ones; safe on any thread."""
        self._closed = True
        self.end_sessions()


async def wait_until_readable(store: ElkynStore) -> None:
    """Wait until a follower's store may be read: it is synced and has not diverged."""
    if not store.admin.divergence.known:
        return
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def note() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(changed.set)

    end = store.admin.divergence.observe(note)
    try:
        while store.admin.divergence.known:
            # Cleared, then looked at once more: a change in between would otherwise be missed.
            changed.clear()
            if store.admin.divergence.known:
                await changed.wait()
    finally:
        end()


async def wait_for_position(store: ElkynStore, position: int, seconds: float) -> None:
    """Wait until a store has reached a position.

    Raises:
        ReplicaLag: the position was not reached in time.
    """
    if store.position >= position:
        return
    loop, moved = asyncio.get_running_loop(), asyncio.Event()

    def committed(_position: int, _paths: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(moved.set)

    end = store.admin.observe(committed)
    try:
        async with asyncio.timeout(seconds):
            while store.position < position:
                moved.clear()
                if store.position < position:
                    await moved.wait()
    except TimeoutError:
        raise ReplicaLag(store.position, position, seconds=seconds) from None
    finally:
        end()
