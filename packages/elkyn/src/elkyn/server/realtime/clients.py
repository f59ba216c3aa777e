"""Long-lived clients: open streams and sockets, their keep-alives, and checks of their permissions.

How a permission is kept current while a client stays connected:

    rules change                    -> every client of the store rechecks
    a commit writes into a read set -> recheck_affected holds the client before it is sent an event
                                       WriteTracker reports it within 0.1 s if no event comes
    the credential ends             -> the ticker revokes it, within a second
    this replica diverges           -> every client of the store is disconnected
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from elkyn.server.auth_backend import AuthBackend, ClientAuth
from elkyn.server.metrics import Metrics
from elkyn.server.realtime.hub import Hub
from elkyn.server.realtime.write_tracker import ReadSetIndex, WriteTracker
from elkyn.server.settings import Settings
from elkyn.tree.paths import Path
from sennit_core.errors import Busy

if TYPE_CHECKING:
    from elkyn.rules.read_set import ReadSet
    from elkyn.store import ElkynStore

__all__ = ["Client", "Clients"]

# The delay with which a revoked or expired credential ends a connection.
_TICK_SECONDS_MAX = 1.0
_CLOSE_GRACE_SECONDS = 1.0  # then the tasks of clients that do not read are cancelled
_PLACES_MIN = 10_000  # an index of fewer places is never rebuilt


class Client(Protocol):
    """One stream or socket."""

    kind: str
    client_auth: ClientAuth

    @property
    def store(self) -> ElkynStore | None:
        """The store that it reads; None for a client whose requests are all refused."""
        ...

    def read_sets(self) -> Iterable[ReadSet]:
        """The read sets of the client's permissions: what the rules have read to allow them."""
        ...

    def tick(self, now: float) -> None:
        """Send a keep-alive, or close, after long silence; `now` is the loop's time."""
        ...

    def recheck(self) -> None:
        """Check again soon what the client may read."""
        ...

    def hold_for_recheck(self) -> None:
        """Check again what the client may read, before it is sent anything more."""
        ...

    def revoke(self, reason: str) -> None:
        """Report to the client that its credential is no longer valid."""
        ...

    def disconnect_diverged(self) -> None:
        """Disconnect the client: it may have seen writes that the leader never had."""
        ...

    def close(self) -> None:
        """End the client, after reporting the end to it."""
        ...


@dataclass(slots=True)
class _StoreObservers:
    """What the permissions of a store's clients depend on, and the observers of changes to it."""

    writes: WriteTracker
    end_rules: Callable[[], None]
    end_divergence: Callable[[], None]
    read_places: ReadSetIndex = field(default_factory=ReadSetIndex)
    # `read_places` only grows: over this size it is rebuilt from the clients that are open.
    places_max: int = _PLACES_MIN

    def renew(self, read_sets: Iterable[ReadSet]) -> None:
        """Drop the places that no permission depends on any more."""
        self.read_places = ReadSetIndex()
        for read_set in read_sets:
            self.read_places.add(read_set)
        self.places_max = max(_PLACES_MIN, 2 * len(self.read_places))

    def close(self) -> None:
        self.end_rules()
        self.end_divergence()
        self.writes.close()


class Clients:
    """The clients of one app; all methods but `close` are called in its event loop."""

    def __init__(self, metrics: Metrics, settings: Settings, auth_backend: AuthBackend) -> None:
        self._auth_backend = auth_backend
        self._metrics = metrics
        self._limits = settings.limits
        self._tick_seconds = min(_TICK_SECONDS_MAX, settings.keep_alive_seconds / 4)
        # Each client with the task that serves it; a client is here exactly while its `registered`
        # block runs.
        self._open: dict[Client, asyncio.Task[Any]] = {}
        # One entry per store, made with its first client and kept until `close`.
        self._observers: dict[ElkynStore, _StoreObservers] = {}
        self._hub: Hub | None = None
        # Runs while clients are open; `registered` starts it again.
        self._ticker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def hub(self) -> Hub:
        """The hub of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._hub is None or self._hub.loop is not loop:
            self._hub = Hub(loop, self.recheck_affected)
        return self._hub

    @contextmanager
    def registered(self, client: Client) -> Iterator[None]:
        """Register `client`, served by the running task, within a `with` block.

        Raises:
            Busy: too many streams or sockets are open.
        """
        limit = self._limits.streams if client.kind == "sse" else self._limits.sockets
        if self._metrics.open[client.kind] >= limit:
            raise Busy(f"{limit} clients are connected; try again later")
        task = asyncio.current_task()
        assert task is not None
        self._metrics.open[client.kind] += 1
        self._open[client] = task
        self._watch_rules(client.store)
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())
        # `close` ran between the accepted connection and here; it could not see this client.
        if self._closed:
            client.close()
        try:
            yield
        finally:
            del self._open[client]
            self._metrics.open[client.kind] -= 1

    def _watch_rules(self, store: ElkynStore | None) -> None:
        if store is not None and store not in self._observers:
            loop = asyncio.get_running_loop()

            def changed() -> None:
                # Runs on the thread that changes the rules.
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._recheck, store)

            def diverged() -> None:
                if store.admin.divergence.known and not loop.is_closed():
                    loop.call_soon_threadsafe(self._disconnect_diverged, store)

            end_rules = store.admin.on_rules(changed)
            end_divergence = store.admin.divergence.observe(diverged)
            writes = WriteTracker(store, partial(self._paths_written, store))
            self._observers[store] = _StoreObservers(writes, end_rules, end_divergence)

    def record_dependency(self, client: Client, read_set: ReadSet | None) -> None:
        """Record what a permission of `client` depends on."""
        store = client.store
        observers = None if store is None else self._observers.get(store)
        if store is None or observers is None or read_set is None or not read_set.paths:
            return
        # The limit is twice what was in use at the last renewal, so the cost of renewing is
        # amortized.
        if len(observers.read_places) > observers.places_max:
            observers.renew(self._read_sets(store))
        observers.read_places.add(read_set)

    def _read_sets(self, store: ElkynStore) -> Iterator[ReadSet]:
        for client in self._open:
            if client.store is store:
                yield from client.read_sets()

    def recheck_affected(self) -> None:
        """Have permissions checked again that depend on places written since the last call.

        Call it between dequeuing events and sending them, so that no client is sent an event that a
        write before it forbids.
        """
        for store, observers in self._observers.items():
            written = observers.writes.take_written()
            if written:
                for client in self._depending_on(store, written):
                    client.hold_for_recheck()

    def _paths_written(self, store: ElkynStore, paths: AbstractSet[Path]) -> None:
        for client in self._depending_on(store, paths):
            client.recheck()

    def _depending_on(self, store: ElkynStore, written: AbstractSet[Path]) -> list[Client]:
        observers = self._observers.get(store)
        # The index rules out nearly every write with a few look-ups; only then are clients looked
        # at.
        written_places = observers.read_places.matching(written) if observers is not None else ()
        if not written_places:
            return []
        return [
            client
            for client in self._open
            if client.store is store
            and any(read_set.touched_by(written_places) for read_set in client.read_sets())
        ]

    def _recheck(self, store: ElkynStore) -> None:
        for client in list(self._open):
            if client.store is store:
                client.recheck()

    def _disconnect_diverged(self, store: ElkynStore) -> None:
        for client in list(self._open):
            if client.store is store:
                client.disconnect_diverged()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while self._open:
            await asyncio.sleep(self._tick_seconds)
            # First, so that a revocation by another process counts in this round.
            self._auth_backend.poll()
            now, now_ms = loop.time(), int(time.time() * 1000)
            for client in list(self._open):
                reason = client.client_auth.invalid_reason(now_ms)
                if reason is None:
                    client.tick(now)
                else:
                    client.revoke(reason)

    def disconnect(self) -> None:
        """End every client, to be authorized anew when it comes back; safe on any thread."""
        for loop in {task.get_loop() for task in list(self._open.values())}:
            if loop.is_running():
                loop.call_soon_threadsafe(self._end_all, loop)

    def close(self) -> None:
        """End every client; safe on any thread; returns after their final writes, or a second."""
        self._closed = True
        # No more rechecks from here on; the writes for a disconnect below are still committed.
        for observers in self._observers.values():
            observers.close()
        self._observers.clear()
        loops = {task.get_loop() for task in list(self._open.values())}
        for loop in loops:
            if loop is _running_loop():
                self._end_all(loop)
            # Bounded: the loop may be stuck, and the server must stop all the same.
            elif loop.is_running():
                done = threading.Event()
                loop.call_soon_threadsafe(self._end_all, loop, done)
                done.wait(_CLOSE_GRACE_SECONDS)

    def _end_all(
        self, loop: asyncio.AbstractEventLoop, done: threading.Event | None = None
    ) -> None:
        for client, task in list(self._open.items()):
            if task.get_loop() is loop:
                client.close()
                loop.call_later(_CLOSE_GRACE_SECONDS, task.cancel)  # for clients that do not read
        if done is not None:
            done.set()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
