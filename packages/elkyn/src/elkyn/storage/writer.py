"""The writer: applies writes one at a time, commits them in groups, notifies in commit order.

A thread that wants to write queues its write and acquires the lock; the thread that holds the lock
commits all queued writes in one transaction, so waiting writers share one sync of the disk.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from elkyn.errors import BadPath, NotLeader, PositionGone
from elkyn.storage.disk import Disk
from elkyn.storage.log_rows import Entry
from elkyn.storage.receipts import IdempotencyKey, Receipt
from elkyn.storage.transactions import ReadTransaction, WriteTransaction
from elkyn.tree.events import Change, Event, Listener, Watchers
from elkyn.tree.paths import DEPTH_MAX, PRIORITY, Path, format_path, parse_path
from elkyn.tree.values import Prepared, Stored, ordered, plain, prepare, present, resolve
from sennit_core.clock import Clock
from sennit_core.errors import Closed, SennitError, UsageError
from sennit_core.logs import get_logger

__all__ = [
    "Observer",
    "Write",
    "WriteCheck",
    "Writer",
    "check_depth",
    "entry_write",
    "patch_write",
    "put_write",
    "update_path",
    "update_write",
]

# Bounds how long the first write of a group waits for the others to be applied.
_GROUP_MAX = 1000

WriteCheck: TypeAlias = Callable[[ReadTransaction, list[tuple[Path, Stored]], int], None]
"""`write_check(view, places, now_ms)` raises to refuse a write; see `Write`."""

Observer: TypeAlias = Callable[[int, list[Path]], object]
"""`observer(position, paths)` runs after each commit, before its events are delivered, under the
writer's lock."""

_log = get_logger(__name__)

Deliveries = list[tuple[tuple[Listener, ...], Event]]


@dataclass(slots=True, eq=False)
class Write:
    """One atomic write to some paths at or below `base`, none an ancestor of another.

    `check` sees the tree before the write and may raise to refuse it. `authorize` does so too, and also
    gets the new values (server values resolved) and the time of the write in milliseconds.
    `entry` is the entry of another store's log that the write applies: it is logged unchanged.
    `idempotency_key` is the idempotency key of the write: a receipt is stored under it.
    After the commit `done` is True, and either `error` is set, or `values` (the written values,
    server values resolved) and `position` (in the log, for a logged write).
    """

    kind: Literal["put", "patch"]
    base: Path
    places: list[tuple[Path, Prepared]]
    ephemeral: bool = False
    check: Callable[[ReadTransaction], None] | None = None
    authorize: WriteCheck | None = None
    entry: Entry | None = None
    idempotency_key: IdempotencyKey | None = None
    done: bool = False
    error: BaseException | None = None
    values: list[tuple[Path, Stored]] = field(default_factory=list)
    position: int = 0

    def apply(self, view: WriteTransaction, watchers: Watchers, now_ms: int) -> Deliveries:
        """Apply the write in a transaction; returns the events to deliver after the commit."""
        # An entry of another log must follow the last one here: no gap, no repetition.
        if self.entry is not None and self.entry.position != view.position + 1:
            raise PositionGone(view.position, self.entry.position, self.entry.position)
        if self.check is not None:
            self.check(view)
        self.values = [
            (path, resolve(new.value, view.get, path, now_ms) if new.dynamic else new.value)
            for path, new in self.places
        ]
        # After `resolve`: rules see server values as they will be stored, such as the time of the
        # write.
        if self.authorize is not None:
            self.authorize(view, self.values, now_ms)
        # Ephemeral values and receipts are made of dicts: a `LargeMap` becomes one.
        if self.ephemeral or view.ephemeral is not None or self.idempotency_key is not None:
            self.values = [(path, plain(value)) for path, value in self.values]
        watched = [path for path, _new in self.values if watchers.concerned(path)]
        # Before the first `put`. Only places with listeners are read: most writes read nothing.
        old = {path: view.get(path) for path in watched}
        if watched:
            self.values = [(p, plain(new) if p in old else new) for p, new in self.values]
        for path, new in self.values:
            view.put(path, new, ephemeral=self.ephemeral)
        # After all places: the entry holds what the write changed in the durable tree, also
        # ephemeral values that became durable.
        self.position = self._log(view, now_ms)
        time_ms = now_ms if self.entry is None else self.entry.time_ms
        if self.idempotency_key is not None:
            receipt = Receipt(
                time_ms, self.idempotency_key.fingerprint, self.position, self.base, self.values
            )
            view.tree.receipts.put(self.idempotency_key.digest, receipt)
        if not watched:
            return []
        changes = (Change(path, old[path], new) for path, new in self.values if path in old)
        return watchers.events(
            self.base,
            changes,
            patch=self.kind == "patch",
            position=self.position,
            time_ms=0 if self.ephemeral else time_ms,
        )

    def _log(self, view: WriteTransaction, now_ms: int) -> int:
        if self.ephemeral:
            return view.position
        if self.entry is not None:
            return view.log_as(self.entry)
        return view.log(self.kind, self.base, now_ms, self.idempotency_key)

    def result(self) -> Any:
        """Return the written value as a reader sees it; raises the error of a failed write."""
        if self.error is not None:
            raise self.error
        if self.kind == "put":
            return present(self.values[0][1])
        return {"/".join(p[len(self.base) :]): present(value) for p, value in self.values}


def put_write(base: Path, value: Any, *, ephemeral: bool = False) -> Write:
    """Return the write that replaces the value at `base`."""
    check_depth(base)
    return Write("put", base, [(base, prepare(value, base))], ephemeral)


def check_depth(base: Path) -> None:
    """Refuse a path that is too deep for a value."""
    if len(base) > DEPTH_MAX + (base[-1:] == (PRIORITY,)):
        raise BadPath(format_path(base), f"{len(base)} levels deep; the limit is {DEPTH_MAX}")


def patch_write(base: Path, values: Any, *, ephemeral: bool = False) -> Write:
    """Return the write that replaces several places below `base`.

    Raises:
        UsageError: `values` is not a mapping, or one of its paths is an ancestor of another.
    """
    if not hasattr(values, "items"):
        raise UsageError(f"an update needs a dict of children, not {type(values).__name__}")
    places = []
    for relative, value in values.items():
        path = update_path(base, relative)
        places.append((path, prepare(value, path)))
    return update_write(base, places, ephemeral=ephemeral)


def update_path(base: Path, relative: str) -> Path:
    """Return the path of a name in an update of `base`."""
    inner = parse_path(relative)
    if not inner:
        raise BadPath(format_path(base), f"{relative!r} names no child in an update")
    return parse_path(format_path((*base, *inner)))


def update_write(
    base: Path, places: list[tuple[Path, Prepared]], *, ephemeral: bool = False
) -> Write:
    """Return the write of checked values at places below `base`.

    Raises:
        BadPath: one of them is an ancestor of another.
    """
    ordered = sorted(path for path, _value in places)
    for above, below in pairwise(ordered):
        if below[: len(above)] == above:
            reason = f"{format_path(below)} cannot be written with it in one update"
            raise BadPath(format_path(above), reason)
    return Write("patch", base, places, ephemeral)


def entry_write(entry: Entry) -> Write:
    """Return the write that applies an entry of another store's log."""
    kind: Literal["put", "patch"] = "patch" if entry.kind == "patch" else "put"
    if entry.kind not in ("put", "patch"):
        return Write(kind, entry.base, [], entry=entry)
    # A leader of an older version writes maps in another order; its log row stays as it is.
    places = [(path, Prepared(ordered(stored), dynamic=False)) for path, stored in entry.places]
    return Write(kind, entry.base, places, entry=entry, idempotency_key=entry.idempotency_key)


class Writer:
    """The only writer of a store.

    Args:
        disk: where to write.
        watchers: the listeners to notify.
        clock: the time source of server values.
    """

    def __init__(self, disk: Disk, watchers: Watchers, clock: Clock) -> None:
        self._disk = disk
        self._watchers = watchers
        self._clock = clock
        # Writes that no group has yet. Appended without the lock, by any thread (a deque is
        # thread-safe); only the holder of `_lock` pops.
        self._pending: deque[Write] = deque()
        # The thread that runs `body` now; None at other times. `_lock` is not reentrant: a nested
        # write would wait for itself, so it is refused.
        self._owner: int | None = None
        # Set under `_lock`, so that no commit is under way when `close` returns.
        self._closed = False
        self.observers: tuple[Observer, ...] = ()
        # Changed between commits only (`StoreAdmin.following`).
        self.following = False  # only entries of another store's log are written
        self._lock = threading.Lock()  # held during every commit and the delivery of its events
        self._applying = (
            threading.Lock()
        )  # held while writes are applied, not while they are synced

    def submit(self, write: Write) -> Write:
        """Commit `write` in a group with waiting ones; returns it once it is durable or has failed."""
        self._refuse_nested()
        self._pending.append(write)
        with self._lock:
            # Another thread may have committed it while this one waited for the lock.
            while not write.done:
                self._commit(self._next_group())
        return write

    def apply(self, writes: Sequence[Write]) -> None:
        """Commit `writes` in their order, in as few transactions as possible."""
        self._refuse_nested()
        self._pending.extend(writes)
        with self._lock:
            # The queue is in order: when the last one is done, all are.
            while writes and not writes[-1].done:
                self._commit(self._next_group())

    def run(self, make: Callable[[ReadTransaction], Write]) -> Write:
        """Commit the write that `make` returns for the current tree, with no other write in between."""
        self._refuse_nested()
        made: list[Write] = []

        def body(view: WriteTransaction) -> Deliveries:
            self._refuse_follower()
            # Replaced, as the body runs again when the map has to grow.
            made[:] = [make(view)]
            return made[0].apply(view, self._watchers, self._now_ms())

        with self._lock:
            self._notify(made, self._execute(body, ephemeral=False))
        return made[0]

    def keep_setting(self, name: str, text: str) -> int:
        """Store a setting of the store next to the tree; returns the position of the log entry."""
        self._refuse_nested()
        positions: list[int] = []

        def body(view: WriteTransaction) -> Deliveries:
            self._refuse_follower()
            positions[:] = [view.log_setting(name, text, self._now_ms())]
            return []

        with self._lock:
            self._notify([], self._execute(body, ephemeral=False))
        return positions[0]

    @contextmanager
    def between_commits(self, *, wait: bool = True) -> Iterator[None]:
        """Keep writes out for a block, which so gets a place in the order of commits.

        Raises:
            BlockingIOError: a commit is under way, and the caller does not `wait` for it.
        """
        self._refuse_nested()
        if not self._lock.acquire(blocking=wait):
            raise BlockingIOError("a commit is under way")
        try:
            yield
        finally:
            self._lock.release()

    def yield_to_writer(self, seconds: float) -> None:
        """Wait until a group under way is applied (not yet committed), for at most `seconds`."""
        if self._applying.locked() and self._applying.acquire(timeout=seconds):
            self._applying.release()

    def close(self) -> None:
        """Let writes under way finish and refuse later ones."""
        with self._lock:
            self._closed = True

    def _refuse_nested(self) -> None:
        if self._owner == threading.get_ident():
            raise UsageError(
                "the function of a transaction must not write or watch",
                hint="return the new value instead; other paths can be written after it",
            )

    @property
    def _follows(self) -> bool:
        return self.following or self._disk.terms.stale

    def _refuse_follower(self) -> None:
        if self._follows:
            terms = self._disk.terms
            raise NotLeader(max(terms.term, terms.fenced))

    def notify_all(self, read: Callable[[Path], Stored]) -> None:
        """Send every listener a fresh `put` of its path: another tree replaced this one.

        Call between commits; `read` returns the value at a path.
        """
        position = self._disk.position
        for path, listeners in self._watchers.all():
            event = Event("put", "/", position=position, changes=(((), read(path)),))
            for listener in listeners:
                _call_guarded(listener.deliver, event)
        for observer in self.observers:
            _call_guarded(observer, position, [()])

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    def _next_group(self) -> list[Write]:
        """Dequeue the waiting writes up to the first one of the other kind (ephemeral or durable)."""
        group: list[Write] = []
        while self._pending and len(group) < _GROUP_MAX:
            # A transaction is of one kind (`Disk.write`); the order of the queue is kept.
            if group and self._pending[0].ephemeral != group[0].ephemeral:
                break
            group.append(self._pending.popleft())
        return group

    def _commit(self, group: list[Write]) -> None:
        def body(view: WriteTransaction) -> Deliveries:
            deliveries: Deliveries = []
            now_ms = self._now_ms()
            follows = self._follows
            with self._applying:
                for write in group:
                    # From an attempt before the map grew.
                    write.error = None
                    try:
                        if follows and write.entry is None:
                            self._refuse_follower()
                        deliveries += write.apply(view, self._watchers, now_ms)
                    # This write only. An error of LMDB in `put` is not caught here: it aborts the
                    # transaction, and every write of the group fails.
                    except SennitError as error:  # raised before the write changed anything
                        write.error = error
            return deliveries

        try:
            deliveries = self._execute(body, ephemeral=group[0].ephemeral)
        except BaseException as error:
            for write in group:
                write.error = error
            # KeyboardInterrupt and the like end the caller's thread; the other writes of the group
            # still get an error.
            if not isinstance(error, Exception):
                raise
        else:
            self._notify(group, deliveries)
        finally:
            for write in group:
                # Last: a thread that waits for the lock looks at `done` and then at `error`,
                # `values` and `position`.
                write.done = True

    def _notify(self, group: list[Write], deliveries: Deliveries) -> None:
        """Notify observers before listeners: a subscription may lose its permission by this commit."""
        if self.observers:
            paths = [path for write in group if write.error is None for path, _new in write.values]
            for observer in self.observers:
                _call_guarded(observer, self._disk.position, paths)
        # Still under the lock, so that listeners get events in the order of commits.
        for listeners, event in deliveries:
            for listener in listeners:
                _call_guarded(listener.deliver, event)

    def _execute(
        self, body: Callable[[WriteTransaction], Deliveries], *, ephemeral: bool
    ) -> Deliveries:
        if self._closed:
            raise Closed("the store")
        self._owner = threading.get_ident()
        try:
            return self._disk.write(body, ephemeral=ephemeral)
        finally:
            self._owner = None


def _call_guarded(callback: Callable[..., object], *arguments: object) -> None:
    # The commit is durable by now. An error of one callback must not be reported as a failure of
    # the writes, and must not keep the others from being called.
    try:
        callback(*arguments)
    except Exception:  # noqa: BLE001 - any error of a callback
        _log.exception("a callback failed after a commit")
