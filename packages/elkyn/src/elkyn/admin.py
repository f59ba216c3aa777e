"""Administration of a store: maintenance for operators, and the internal operations of servers.

`ElkynStore` has the verbs of applications; `store.admin` has the rest: upkeep of the files, rules and
indexes, snapshots and observers for servers, and the log, terms and state that replication changes.
None of its methods evaluates rules: use `authorizer` first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path as FilePath

from elkyn.auth.authorizer import Authorizer
from elkyn.auth.principal import Principal
from elkyn.auth.store_auth import StoreAuth
from elkyn.index_builder import IndexBuilder
from elkyn.replication.divergence import Divergence
from elkyn.storage.disk import Disk, Snapshot
from elkyn.storage.log_rows import Entry
from elkyn.storage.terms import Terms
from elkyn.storage.transactions import ReadTransaction, WriteTransaction
from elkyn.storage.writer import Observer, Write, Writer, entry_write
from elkyn.tree.events import Listener, Watchers
from elkyn.tree.paths import Path
from elkyn.tree.push_ids import PushIds

__all__ = ["StoreAdmin"]


class StoreAdmin:
    """Operations on a store that applications do not need; all are thread-safe.

    Attributes:
        divergence: whether a follower holds writes that its leader never had; reads raise `Diverged`
            then.
    """

    def __init__(
        self,
        disk: Disk,
        writer: Writer,
        watchers: Watchers,
        auth: StoreAuth,
        indexes: IndexBuilder,
        push_ids: PushIds,
    ) -> None:
        self.divergence = Divergence()
        self._disk = disk
        self._writer = writer
        self._watchers = watchers
        self._auth = auth
        self._index_builder = indexes
        self._push_ids = push_ids
        self._lock = threading.Lock()  # changes to the tuples of listeners and observers

    # Upkeep.

    def sync_unless_durable(self) -> None:
        """Sync every write so far, unless the durability mode has already synced it."""
        if not self._disk.synced:
            self._disk.sync()

    def sync(self) -> None:
        """Sync every write so far to the disk; for durability `interval` and `none`."""
        self._disk.sync()

    def backup(self, target: str | PathLike[str]) -> None:
        """Write a consistent copy that can be opened as a store, while this store is in use.

        The copy holds the durable tree and its log, no ephemeral values, and is synced on return.

        Args:
            target: a folder that does not exist yet.
        """
        self._disk.backup(FilePath(target))

    def compact(self) -> None:
        """Rewrite the file without free space; writes wait meanwhile, reads do not."""
        with self._writer.between_commits():
            self._disk.compact()

    def verify(self) -> list[str]:
        """Check every row of the file; returns one sentence for each problem found."""
        return self._disk.verify()

    @property
    def file_bytes(self) -> int:
        """The size of the durable tree's file, log included."""
        return self._disk.file_bytes

    def wait_for_indexes(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the indexes that the rules declare are complete; False after the timeout.

        Queries work meanwhile: a query whose index is incomplete reads every child.
        """
        return self._index_builder.wait(timeout_seconds)

    # Servers.

    def authorizer(self, principal: Principal, *, open_without_rules: bool = False) -> Authorizer:
        """Return what authorizes `principal` by the rules of this store; for servers.

        Args:
            principal: the client.
            open_without_rules: whether any client may use the store while it has no rules.
        """
        return self._auth.authorizer(principal, open_without_rules=open_without_rules)

    def on_rules(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after each change of the rules; returns the function that unsubscribes it."""
        auth = self._auth
        with self._lock:
            auth.listeners = (*auth.listeners, callback)

        def end() -> None:
            with self._lock:
                auth.listeners = tuple(c for c in auth.listeners if c is not callback)

        return end

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer(position, paths)` after each commit; returns the function that unsubscribes it.

        It runs on the committing thread, in commit order, and must neither block nor raise nor write.
        """
        writer = self._writer
        with self._lock:
            writer.observers = (*writer.observers, observer)

        def end() -> None:
            with self._lock:
                writer.observers = tuple(o for o in writer.observers if o is not observer)

        return end

    def snapshot(self, rows_max: int | None = None) -> Snapshot:
        """Read one consistent state in its stored form; for servers. Keep the block short."""
        self.divergence.check()
        return self._disk.snapshot(rows_max)

    @contextmanager
    def snapshot_at(
        self, mark: Callable[[], object], *, rows_max: int | None = None, wait: bool = True
    ) -> Iterator[ReadTransaction]:
        """Read one consistent state; `mark` runs at the snapshot's place in the order of commits.

        Every event delivered before `mark` is in that state, and none delivered after it.

        Args:
            mark: runs while no commit is under way.
            rows_max: rows that one `get` may touch before it raises `ReadLimit`.
            wait: whether to wait for a commit under way; if not, raise `BlockingIOError`.
        """
        with ExitStack() as reading:
            # The lock is held only while the snapshot begins; the read itself holds up no write.
            with self._writer.between_commits(wait=wait):
                view = reading.enter_context(self.snapshot(rows_max))
                mark()
            yield view

    def attach(self, path: Path, listener: Listener) -> None:
        """Deliver the events of `path` to `listener`, on the committing thread; for servers."""
        self._watchers.add(path, listener)

    def detach(self, path: Path, listener: Listener) -> None:
        """Stop delivering to `listener`."""
        self._watchers.remove(path, listener)

    def apply(self, writes: Sequence[Write]) -> None:
        """Commit prepared writes in order and in groups; each write holds its result or error."""
        self._writer.apply(writes)

    def yield_to_writer(self, seconds: float) -> None:
        """Release the GIL to the thread that applies a group of writes; for servers.

        Returns when they are applied and only their sync is left, or after `seconds`. LMDB releases
        the GIL at each operation, and would wake a busy thread each time for nothing.
        """
        self._writer.yield_to_writer(seconds)

    def new_push_id(self) -> str:
        """Return a push id, which sorts after all earlier ones."""
        return self._push_ids.new()

    # Replication.

    @property
    def ephemeral_position(self) -> int:
        """The value of `position` when ephemeral values last changed (-1: never).

        A visible state can be rebuilt from an older state and the log after it only when the older
        state's position is greater than this.
        """
        return self._disk.ephemeral_position

    def replicate(self, entries: Sequence[Entry]) -> None:
        """Apply entries of another store's log, which must follow this store's `position`.

        Raises:
            PositionGone: entries before them are missing here.
        """
        writes = [entry_write(entry) for entry in entries]
        self._writer.apply(writes)
        # The leader's rules came with the log.
        if any(entry.kind == "settings" for entry in entries):
            self._auth.reload()
        for write in writes:
            if write.error is not None:
                raise write.error

    @property
    def terms(self) -> Terms:
        """The leader terms that the store knows of."""
        return self._disk.terms

    def change_terms(self, change: Callable[[Terms, int], Terms]) -> Terms:
        """Replace the terms by `change(terms, position)`, between two commits."""
        with self._writer.between_commits():
            terms = change(self._disk.terms, self._disk.position)
            if terms != self._disk.terms:
                self._disk.keep_terms(terms)
        return terms

    @property
    def following(self) -> bool:
        """Whether only `replicate` and `install` may change the tree."""
        return self._writer.following

    @following.setter
    def following(self, following: bool) -> None:
        with self._writer.between_commits():
            self._writer.following = following

    def install(self, new: FilePath, aside: FilePath | None = None) -> None:
        """Replace the tree by that of the store file in the folder `new`, and notify every listener.

        Args:
            new: a folder as `backup` writes it, synced, on the same file system.
            aside: a folder to create for the old file; None: the old file is deleted.
        """
        with self._writer.between_commits():
            self._disk.install(new, aside)
            with self._disk.snapshot() as view:
                self._writer.notify_all(view.get)
        self._auth.reload()

    def prepare(self, change: Callable[[WriteTransaction], object]) -> None:
        """Change the tree, its settings and its log without events, observers or log entries."""
        with self._writer.between_commits():
            self._disk.write(change, ephemeral=False)
