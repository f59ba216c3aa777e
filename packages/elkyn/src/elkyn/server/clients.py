"""Clients that stay: open streams and sockets, their keep-alives, and the credentials behind them."""

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

from elkyn.paths import Path
from elkyn.server.door import AuthBackend, Caller
from elkyn.server.hub import Hub
from elkyn.server.metrics import Metrics
from elkyn.server.settings import Settings
from elkyn.server.touched import ReadSetIndex, WriteTracker
from sennit_core.errors import Busy

if TYPE_CHECKING:
    from elkyn.rules.footprint import ReadSet
    from elkyn.store import ElkynStore

__all__ = ["Client", "Clients"]

_TICK_SECONDS_MAX = 1.0
_CLOSE_GRACE_SECONDS = 1.0
_GROUNDS_MIN = 10_000


class Client(Protocol):
    """One stream or socket."""

    kind: str
    caller: Caller

    @property
    def store(self) -> ElkynStore | None:
        """The store that it reads; None for a client whose requests are all refused."""
        ...

    def footprints(self) -> Iterable[ReadSet]:
        """What the client's permissions rest on."""
        ...

    def tick(self, now: float) -> None:
        """Send a keep-alive when the client was silent for long; `now` is the loop's time."""
        ...

    def recheck(self) -> None:
        """Judge again what the client may read."""
        ...

    def suspect(self) -> None:
        """Judge it again before the client is sent anything more."""
        ...

    def revoke(self, reason: str) -> None:
        """Tell the client that its credential counts no more."""
        ...

    def disconnect_diverged(self) -> None:
        """End, after telling the client that it was told what the leader never had."""
        ...

    def close(self) -> None:
        """End, after saying so."""
        ...


@dataclass(slots=True)
class _Watched:
    """What is known of the permissions of a store's clients."""

    touched: WriteTracker
    end_rules: Callable[[], None]
    end_divergence: Callable[[], None]
    grounds: ReadSetIndex = field(default_factory=ReadSetIndex)
    grounds_max: int = _GROUNDS_MIN

    def renew(self, footprints: Iterable[ReadSet]) -> None:
        """Let go of the places that no permission rests on any more."""
        self.grounds = ReadSetIndex()
        for footprint in footprints:
            self.grounds.add(footprint)
        self.grounds_max = max(_GROUNDS_MIN, 2 * len(self.grounds))

    def close(self) -> None:
        self.end_rules()
        self.end_divergence()
        self.touched.close()


class Clients:
    """The clients of one app; all methods but `close` are called in its event loop."""

    def __init__(self, metrics: Metrics, settings: Settings, auth_backend: AuthBackend) -> None:
        self._auth_backend = auth_backend
        self._metrics = metrics
        self._limits = settings.limits
        self._tick_seconds = min(_TICK_SECONDS_MAX, settings.keep_alive_seconds / 4)
        self._open: dict[Client, asyncio.Task[Any]] = {}
        self._watched: dict[ElkynStore, _Watched] = {}
        self._hub: Hub | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def hub(self) -> Hub:
        """The fan-out of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._hub is None or self._hub.loop is not loop:
            self._hub = Hub(loop, self.settle)
        return self._hub

    @contextmanager
    def joined(self, client: Client) -> Iterator[None]:
        """Keep `client`, served by the running task, among the open ones for a block.

        Raises:
            Busy: there are too many of its kind.
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
        if self._closed:
            client.close()
        try:
            yield
        finally:
            del self._open[client]
            self._metrics.open[client.kind] -= 1

    def _watch_rules(self, store: ElkynStore | None) -> None:
        if store is not None and store not in self._watched:
            loop = asyncio.get_running_loop()

            def changed() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._recheck, store)

            def diverged() -> None:
                if store.divergence.known and not loop.is_closed():
                    loop.call_soon_threadsafe(self._disconnect_diverged, store)

            end_rules = store.on_rules(changed)
            end_divergence = store.divergence.observe(diverged)
            touched = WriteTracker(store, partial(self._touched, store))
            self._watched[store] = _Watched(touched, end_rules, end_divergence)

    def rest(self, client: Client, footprint: ReadSet | None) -> None:
        """Note what a permission of `client` rests on."""
        store = client.store
        watched = None if store is None else self._watched.get(store)
        if store is None or watched is None or footprint is None or not footprint.paths:
            return
        if len(watched.grounds) > watched.grounds_max:
            watched.renew(self._footprints(store))
        watched.grounds.add(footprint)

    def _footprints(self, store: ElkynStore) -> Iterator[ReadSet]:
        for client in self._open:
            if client.store is store:
                yield from client.footprints()

    def settle(self) -> None:
        """Suspect the clients whose permission rests on what was written since the last time.

        To be called between taking events and sending them.
        """
        for store, watched in self._watched.items():
            fresh = watched.touched.fresh()
            if fresh:
                for client in self._resting_on(store, fresh):
                    client.suspect()

    def _touched(self, store: ElkynStore, paths: AbstractSet[Path]) -> None:
        for client in self._resting_on(store, paths):
            client.recheck()

    def _resting_on(self, store: ElkynStore, written: AbstractSet[Path]) -> list[Client]:
        watched = self._watched.get(store)
        moved = watched.grounds.moved_by(written) if watched is not None else ()
        if not moved:
            return []
        return [
            client
            for client in self._open
            if client.store is store
            and any(footprint.touched_by(moved) for footprint in client.footprints())
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
            self._auth_backend.poll()
            now, now_ms = loop.time(), int(time.time() * 1000)
            for client in list(self._open):
                reason = client.caller.ended(now_ms)
                if reason is None:
                    client.tick(now)
                else:
                    client.revoke(reason)

    def close(self) -> None:
        """End every client; safe on any thread, and returns when they have written their last."""
        self._closed = True
        for watched in self._watched.values():
            watched.close()
        self._watched.clear()
        loops = {task.get_loop() for task in list(self._open.values())}
        for loop in loops:
            if loop is _running_loop():
                self._end_all(loop)
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
                loop.call_later(_CLOSE_GRACE_SECONDS, task.cancel)  # for who does not read
        if done is not None:
            done.set()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
