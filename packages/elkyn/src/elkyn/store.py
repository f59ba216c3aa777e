"""`ElkynStore`: a tree on disk or in memory, used in this process.

Layering: `paths`, `values` < `_lmdb` < `txn` < `disk` < `events`, `watch` < `writer` < `store`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path as FilePath
from typing import Any, Literal, Self

from elkyn._lmdb.environment import MAP_BYTES
from elkyn.disk import Disk
from elkyn.events import Event, Listener, Watchers
from elkyn.paths import Path, parse_path
from elkyn.pushid import PushIds
from elkyn.txn import View
from elkyn.values import present
from elkyn.watch import Callback, Subscription
from elkyn.writer import Write, Writer, patch_write, put_write
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Closed, Unsupported, UsageError
from sennit_core.units import parse_bytes

__all__ = ["ElkynStore"]

Mode = Literal["standalone", "memory"]


class ElkynStore:
    """A realtime tree: JSON values on paths, atomic writes, and events for those who watch.

    All methods are safe for threads. Writes go one at a time and are on disk when they return;
    reads never wait for writes. An `ephemeral` write skips the disk: it is visible and watched like
    any other, survives the end of this process, and may be lost when the machine goes down.

    Args:
        path: the store's folder, created when missing; None in mode `memory`.
        mode: `standalone`, or `memory` for a store that ends with the process.
        namespace: its name, for servers and messages.
        clock: gives the time for server values and push ids.
        map_size: first size of the memory map (bytes or `64MiB`); it grows by itself.

    Raises:
        StoreInUse: another process, or another store of this one, has the folder open.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        mode: Mode = "standalone",
        *,
        namespace: str = "default",
        clock: Clock = SYSTEM,
        map_size: int | str = MAP_BYTES,
    ) -> None:
        if mode not in ("standalone", "memory"):
            raise Unsupported(f'mode "{mode}" is not known; there are "standalone" and "memory"')
        if (path is None) == (mode == "standalone"):
            needs = "needs a folder" if path is None else "takes no folder"
            raise UsageError(
                f'a store in mode "{mode}" {needs}',
                hint='ElkynStore("data/tree") keeps values, ElkynStore(mode="memory") does not',
            )
        self.namespace = namespace
        self.path = None if path is None else FilePath(path)
        self.mode = mode
        self._disk = Disk(self.path, map_bytes=parse_bytes(map_size))
        self._watchers = Watchers()
        self._writer = Writer(self._disk, self._watchers, clock)
        self._push_ids = PushIds(clock)
        self._listeners: dict[Subscription, Callback | None] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<ElkynStore {self.namespace} at {self.path or 'memory'}>"

    def get(self, path: str) -> Any:
        """Return the value at `path`, None when there is none; dicts are in Firebase's order."""
        keys = parse_path(path)
        with self._disk.snapshot() as view:
            return present(view.get(keys))

    def keys(self, path: str) -> list[str]:
        """Return the keys of the children of `path` in order, without reading their values."""
        keys = parse_path(path)
        with self._disk.snapshot() as view:
            return view.keys(keys) or []

    def set(self, path: str, value: Any, *, ephemeral: bool = False) -> Any:
        """Replace what is at `path`; None deletes. Returns the value, server values resolved.

        Raises:
            BadPath: the path breaks a limit.
            BadValue: the value holds what a tree cannot; the error names the place.
            StorageFull: the disk is full; nothing has changed.
        """
        write = put_write(parse_path(path), value, ephemeral=ephemeral)
        return self._writer.submit(write).shown()

    def update(
        self, path: str, values: Mapping[str, Any], *, ephemeral: bool = False
    ) -> dict[str, Any]:
        """Replace several children of `path` in one atomic write, the others stay.

        Args:
            path: what the keys of `values` are relative to.
            values: new values by child; keys may be paths (`"a/b"`), None deletes.
            ephemeral: skip the disk.

        Raises:
            BadPath: one of the paths lies above another, or breaks a limit.
        """
        write = patch_write(parse_path(path), values, ephemeral=ephemeral)
        shown: dict[str, Any] = self._writer.submit(write).shown()
        return shown

    def push(self, path: str, value: Any, *, ephemeral: bool = False) -> str:
        """Add `value` under a new key that sorts after all earlier ones; returns the key."""
        key = self._push_ids.new()
        base = parse_path(f"{path}/{key}")
        self._writer.submit(put_write(base, value, ephemeral=ephemeral)).shown()
        return key

    def delete(self, path: str, *, ephemeral: bool = False) -> None:
        """Remove what is at `path` and below."""
        self.set(path, None, ephemeral=ephemeral)

    def transaction(self, path: str, function: Callable[[Any], Any]) -> Any:
        """Replace the value at `path` by what `function` makes of it, nothing coming in between.

        Args:
            path: what to read and write.
            function: gets the current value and returns the new one (None deletes). It must not
                write to the store, and may be called again when the map has to grow. Raising
                leaves everything as it was.

        Returns:
            The new value.
        """
        keys = parse_path(path)
        write = self._writer.run(lambda view: put_write(keys, function(present(view.get(keys)))))
        return write.shown()

    def watch(
        self, path: str, *, queue_events: int | None = None, queue_bytes: int | None = None
    ) -> Subscription:
        """Subscribe to `path`: `put "/"` of its value now, then every change in commit order.

        Args:
            path: what to watch; changes below it and above it count.
            queue_events: how many events may wait before a slow listener is resynchronised.
            queue_bytes: how much memory they may take, estimated.
        """
        bounds = {"queue_events": queue_events, "queue_bytes": queue_bytes}
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        keys = parse_path(path)
        subscription = Subscription(keys, self._restart, self._release, **given)
        with self._lock:
            if self._closed:
                raise Closed("the store")
            self._listeners[subscription] = None
        try:
            subscription.start()
        except BaseException:
            subscription.close()
            raise
        return subscription

    def on(self, path: str, event: str, callback: Callable[[Any], object]) -> Callback:
        """Call `callback` with the value of `path`, now and after every change.

        Args:
            path: what to watch.
            event: `value`.
            callback: runs on a thread of its own, one call at a time, in commit order.
        """
        if event != "value":
            raise Unsupported(f'event "{event}" is not known here; there is "value"')
        subscription = self.watch(path)
        handle = Callback(subscription, callback)
        with self._lock:
            if subscription in self._listeners:
                self._listeners[subscription] = handle
        return handle

    @contextmanager
    def snapshot(self, rows_max: int | None = None) -> Iterator[View]:
        """Read one consistent state in its stored form; for the server, and short."""
        with self._disk.snapshot(rows_max) as view:
            yield view

    @contextmanager
    def moment(self, mark: Callable[[], object]) -> Iterator[View]:
        """Read one consistent state; `mark` runs at its place in the order of commits.

        Every event delivered before `mark` is in that state, and none delivered after it.
        """
        with ExitStack() as reading:
            with self._writer.between_commits():
                view = reading.enter_context(self._disk.snapshot())
                mark()
            yield view

    def attach(self, path: Path, listener: Listener) -> None:
        """Deliver the events of `path` to `listener`, on the thread that commits; for servers."""
        self._watchers.add(path, listener)

    def detach(self, path: Path, listener: Listener) -> None:
        """Deliver no more to `listener`."""
        self._watchers.remove(path, listener)

    def apply(self, writes: Sequence[Write]) -> None:
        """Commit prepared writes in order and in groups; each carries its result or error."""
        self._writer.apply(writes)

    def new_push_id(self) -> str:
        """Return a key that sorts after all earlier ones."""
        return self._push_ids.new()

    def _restart(self, subscription: Subscription) -> Event:
        keys = subscription.keys
        with ExitStack() as reading:
            with self._writer.between_commits():
                view = reading.enter_context(self._disk.snapshot())
                subscription.reset()
                self._watchers.remove(keys, subscription)
                self._watchers.add(keys, subscription)
            if subscription.closed:
                self._watchers.remove(keys, subscription)
            return Event("put", "/", present(view.get(keys)))

    def _release(self, subscription: Subscription) -> None:
        self._watchers.remove(subscription.keys, subscription)
        with self._lock:
            self._listeners.pop(subscription, None)

    def close(self) -> None:
        """End subscriptions and callbacks, finish what runs, close the files; twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            listeners = list(self._listeners.items())
        for subscription, callback in listeners:
            (callback or subscription).close()
        self._writer.close()
        self._disk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
