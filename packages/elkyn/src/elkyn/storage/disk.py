"""A store's folder: the durable environment, the ephemeral one, and the lock of its owner.

    <folder>/lock            held (flock) while a store has the folder open; holds the owner's pid
    <folder>/data.mdb …      the durable tree and its log; `durability` decides when it is synced
    <folder>/ephemeral/      the ephemeral overlay, never synced, and the boot id of its writer
    <folder>/unsynced        the boot id under which commits may not have been synced

After the end of a process the page cache still holds every ephemeral commit. After a crash of the
machine the unsynced file may be torn, so an overlay of another boot is discarded unread.

The order of the two commits of a durable write that also removes ephemeral values, and what a crash
in between leaves:

    begin both -> apply -> commit ephemeral removals -> commit durable, sync -> answer
                        ^                            ^
       nothing happened |      old durable tree, some ephemeral values lost: allowed

    `_version` is odd between the two commits; a reader that opened one transaction before and one
    after a commit sees the version change and opens both again.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TypeVar

from elkyn import _failpoints
from elkyn.storage import ephemeral, log_rows, receipts, row_tree
from elkyn.storage.backup import copy_environment
from elkyn.storage.durability import Durability, Marker, Syncer, sync_folder
from elkyn.storage.environment import MAP_BYTES, Environment, MapFull, Txn, translated
from elkyn.storage.ephemeral import EphemeralOverlay
from elkyn.storage.folder import discard_other_boot, lock_folder, memory_folder
from elkyn.storage.format import CURRENT, KEY, check_file, check_transaction, is_older, mark_of
from elkyn.storage.key_order import move_keys, needs_move, order_ephemeral_rows
from elkyn.storage.log_rows import LogRows
from elkyn.storage.row_tree import Tree
from elkyn.storage.shapes import Shapes
from elkyn.storage.terms import Terms
from elkyn.storage.transactions import ReadTransaction, WriteTransaction
from elkyn.storage.verify import problems, problems_apart
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Closed, Corrupt
from sennit_core.logs import get_logger
from sennit_core.private_files import FOLDER_MODE, make_private_folder
from sennit_core.units import MIB

__all__ = ["Disk", "Retention", "Snapshot", "verify_folder"]

T = TypeVar("T")

# With durability `interval`: what a crash of the machine may lose.
SYNC_SECONDS = 0.1
# Looking at the log's size and trimming it is amortized over this many bytes of new entries.
_TRIM_EVERY_BYTES = 256 * 1024
# Deleting many rows would hold up the write that happens to trim; the next trims go on.
_TRIM_ROWS = 20_000
_MARK = mark_of(CURRENT)
_DATABASES = (*row_tree.DATABASES, *log_rows.DATABASES, *receipts.DATABASES)

_log = get_logger(__name__)


def verify_folder(folder: FilePath) -> list[str]:
    """Check every row of a store that is not open; returns one sentence for each problem found.

    A separate process reads the file, because a damaged page can crash the process that reads it.

    Raises:
        StoreInUse: a process has the store open.
    """
    lock = lock_folder(folder)
    try:
        return problems_apart(folder, _DATABASES)
    finally:
        os.close(lock)


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the log is kept: `bytes` of pages, and no entry older than `seconds` (None: any)."""

    bytes: int = 64 * MIB
    seconds: float | None = None
    clock: Clock = SYSTEM


class Disk:
    """Opens a folder and runs transactions over both environments.

    Reads may run on any thread at any time. `write` must be called by one thread at a time.

    Args:
        folder: the store's folder; None keeps the store in unlinked, memory-backed files.
        map_bytes: initial size of the durable memory map.
        durability: when durable commits are synced.
        sync_seconds: the maximum delay of the sync after a commit, with durability `interval`.
        retention: how much of the log is kept.

    Attributes:
        position: the index of the last entry of the log.
        terms: the known leader terms; new entries of the log carry `terms.term`.
        ephemeral_position: `position` when ephemeral values last changed; -1 when they never did.
    """

    def __init__(
        self,
        folder: FilePath | None,
        *,
        map_bytes: int = MAP_BYTES,
        durability: Durability = "always",
        sync_seconds: float = SYNC_SECONDS,
        retention: Retention = Retention(),
    ) -> None:
        self._in_memory = folder is None
        self.folder = memory_folder() if folder is None else folder
        self._map_bytes = map_bytes
        # Written by the one writer only; readers compare it before and after they open their
        # transactions, as with a sequence lock.
        self._version = 0  # even: twice the commits so far; odd: a pair of commits is under way
        # Held while `_version` is odd, so that a reader waits for the pair of commits instead of
        # spinning.
        self._pairing = threading.Lock()
        # Number of committed ephemeral rows. While it is 0, reads and durable writes open only one
        # environment.
        self._ephemeral_count = 0
        self._durability = durability
        self._retention = retention
        # Bytes of log entries since the log was last looked at.
        self._untrimmed_bytes = 0
        # None until the first ephemeral write; opened at once in memory, or if the folder of an
        # earlier one exists.
        self._ephemeral: Environment | None = None
        make_private_folder(self.folder)
        # Before any file is looked at: another process may be writing them.
        self._lock = lock_folder(self.folder)
        try:
            _remove_snapshots(self.folder)
            synced = durability == "always" and not self._in_memory
            self._marker = None if self._in_memory else Marker(self.folder)
            # Before LMDB opens the file: reading a torn page may crash the process.
            self._refuse_torn()
            self._durable = Environment(
                self.folder,
                _DATABASES,
                sync=synced,
                map_bytes=map_bytes,
                check=check_transaction,
            )
            self._syncer = Syncer(self._durable.sync, sync_seconds)
            self._shapes = Shapes(self._durable)
            self._read_meta()
            # Before any write is accepted: the marker must be on the disk when a write may be left
            # unsynced.
            self._mark()
            self.ephemeral_position = -1
            if self._in_memory:
                self._open_ephemeral()
                shutil.rmtree(self.folder)  # the open files stay usable after unlink
            elif (self.folder / "ephemeral").exists():
                self._open_ephemeral()
                self.ephemeral_position = self.position  # a reboot may have lost some of them
            self._move_keys()
        except BaseException:
            self.close()
            raise

    def _read_meta(self) -> None:
        meta = self._durable.databases["meta"]
        with self._durable.read() as txn:
            found = txn.get(KEY, db=meta)
            self.terms = Terms.unpack(txn.get(b"terms", db=meta))
            self.position = LogRows(self._durable, txn).last()
        # A new store. An older one gets the mark with its first write, so that looking at a store
        # changes nothing.
        if found is None:
            txn = self._durable.begin_write()
            with translated(self.folder):
                txn.put(KEY, _MARK, db=meta)
                txn.commit()
        self._is_older = is_older(found)

    def _move_keys(self) -> None:
        """Rewrite a store of an older format in the current key order, if it has keys that moved."""
        if not self._is_older:
            return
        if self._ephemeral_count:
            self._write_ephemeral(lambda view: order_ephemeral_rows(view.ephemeral))
        with self.snapshot() as view:
            if not needs_move(view.tree):
                return
        _log.info("rewriting keys of %s in the order of format %d", self.folder, CURRENT)
        count = self.write(lambda view: move_keys(view.tree), ephemeral=False)
        _log.info("rewrote %d rows of %s", count, self.folder)

    def _refuse_torn(self) -> None:
        """Verify a store whose commits were unsynced when the machine crashed; refuse a torn one."""
        if self._marker is None or not self._marker.torn():
            return
        found = problems_apart(self.folder, _DATABASES)
        if found:
            raise Corrupt(
                f"the store at {self.folder}",
                expected="a tree that was synced",
                found=found[0],
                hint="the machine crashed before everything was on the disk: restore a backup",
            )

    def _mark(self) -> None:
        """Update the `unsynced` marker, after a sync of commits that an earlier boot left unsynced."""
        if self._marker is None:
            return
        if self._marker.torn():
            self._durable.sync()
        if self._durability == "always":
            # After the sync above: the marker goes only when no commit of an earlier boot can be
            # missing.
            self._marker.remove()
        else:
            self._marker.put()

    def _open_ephemeral(self) -> Environment:
        if self._ephemeral is None:
            folder = self.folder / "ephemeral"
            # The file is never synced: after a crash of the machine it may be torn, and LMDB would
            # not notice.
            discard_other_boot(folder)
            self._ephemeral = Environment(
                folder, ephemeral.DATABASES, sync=False, map_bytes=self._map_bytes
            )
            with self._ephemeral.read() as txn:
                self._ephemeral_count = EphemeralOverlay(self._ephemeral, txn).count()
        return self._ephemeral

    def snapshot(self, rows_max: int | None = None) -> Snapshot:
        """Read a consistent state for a block; keep it short, because the map cannot grow meanwhile.

        Args:
            rows_max: rows that one `get` may touch before it raises `ReadLimit`.
        """
        return Snapshot(self, rows_max)

    def view(self, rows_max: int | None) -> tuple[ReadTransaction, Txn, Txn | None]:
        """Open the transactions of a snapshot; `Snapshot` closes them."""
        durable, ephemeral = self._begin_read()
        below = Tree(self._durable, durable, self._shapes, rows_max)
        if ephemeral is None:
            return ReadTransaction(below, None), durable, None
        assert self._ephemeral is not None
        return (
            ReadTransaction(below, EphemeralOverlay(self._ephemeral, ephemeral)),
            durable,
            ephemeral,
        )

    @contextmanager
    def log(self) -> Iterator[LogRows]:
        """Read the log for a block; keep it short."""
        with self._durable.read() as txn:
            yield LogRows(self._durable, txn)

    def _begin_read(self) -> tuple[Txn, Txn | None]:
        # Two read transactions cannot begin at the same instant: retry until no commit came in between.
        while True:
            version = self._version
            # Waits until the writer releases `_pairing`, then looks again.
            if version & 1:
                with self._pairing:
                    continue
            durable = self._durable.enter()
            ephemeral = None
            try:
                if self._ephemeral_count and self._ephemeral is not None:
                    ephemeral = self._ephemeral.enter()
            except BaseException:
                self._durable.leave(durable)
                raise
            if version == self._version:
                return durable, ephemeral
            self.end_read(durable, ephemeral)

    def end_read(self, durable: Txn, ephemeral: Txn | None) -> None:
        """Close the transactions of a snapshot."""
        try:
            if ephemeral is not None and self._ephemeral is not None:
                self._ephemeral.leave(ephemeral)
        finally:
            self._durable.leave(durable)

    def write(self, body: Callable[[WriteTransaction], T], *, ephemeral: bool) -> T:
        """Run `body` in a write transaction and commit; grows the map and runs again when full.

        Args:
            body: reads and writes through the view; an exception aborts the transaction.
            ephemeral: whether the writes of `body` are ephemeral (all or none of them are).
        """
        # `body` runs again after a growth, in a new transaction: it must not keep state of the
        # aborted one.
        while True:
            try:
                if ephemeral:
                    return self._write_ephemeral(body)
                return self._write_durable(body)
            except MapFull:
                if not ephemeral:
                    self._durable.grow()
                # Either map may have been the full one; growing costs address space only.
                if self._ephemeral is not None:
                    self._ephemeral.grow()
                _failpoints.reached("grown")

    def _write_ephemeral(self, body: Callable[[WriteTransaction], T]) -> T:
        env = self._open_ephemeral()
        # A read transaction is enough: an ephemeral write changes ephemeral rows only.
        with self._durable.read() as durable:
            txn = env.begin_write()
            try:
                below = Tree(self._durable, durable, self._shapes)
                view = WriteTransaction(below, EphemeralOverlay(env, txn), self.position)
                result = body(view)
                self._commit_ephemeral(env, txn)
            except BaseException:
                txn.abort()
                raise
        self.ephemeral_position = self.position
        self._version += 2
        return result

    def _commit_ephemeral(self, env: Environment, txn: Txn) -> None:
        count = EphemeralOverlay(env, txn).count()
        with translated(env.folder):
            txn.commit()
        # After the commit: a reader that sees the count must find the rows.
        self._ephemeral_count = count

    def _write_durable(self, body: Callable[[WriteTransaction], T]) -> T:
        # A background sync failed: what was acknowledged is in danger already, so nothing more is
        # accepted until a sync succeeds.
        if self._syncer.error is not None:
            raise self._syncer.error
        env = self._ephemeral if self._ephemeral_count else None
        txn = self._durable.begin_write()
        # Shapes learned in this transaction are forgotten if it fails.
        shapes = self._shapes.mark(txn)
        ephemeral_txn = None
        try:
            ephemeral_txn = None if env is None else env.begin_write()
            laid = None if env is None else EphemeralOverlay(env, ephemeral_txn)
            view = WriteTransaction(
                Tree(self._durable, txn, self._shapes), laid, self.position, self.terms.term
            )
            with translated(self.folder):
                result = body(view)
                self._trim_log(view)
                if self._is_older:
                    view.tree.put_meta(KEY, _MARK)
            _failpoints.reached("applied")
            if env is not None and view.ephemeral_changed:
                self._commit_pair(env, txn, ephemeral_txn, view)
            else:
                with translated(self.folder):
                    txn.commit()
                self._version += 2
            # After the commit: followers and waiting readers rely on it.
            self.position = view.position
            self._is_older = False
        except BaseException:
            self._shapes.forget(shapes)
            txn.abort()
            raise
        finally:
            if ephemeral_txn is not None:
                ephemeral_txn.abort()  # does nothing after a commit
        if self._durability == "interval":
            # After the commit, so that the sync that it causes includes it.
            self._syncer.committed()
        _failpoints.reached("committed")
        return result

    def _trim_log(self, view: WriteTransaction) -> None:
        self._untrimmed_bytes += view.logged_bytes
        if self._untrimmed_bytes < _TRIM_EVERY_BYTES:
            return
        self._untrimmed_bytes = 0
        kept = self._retention
        before_ms = None
        if kept.seconds is not None:
            before_ms = int((kept.clock.now() - kept.seconds) * 1000)
        rows = view.tree.log
        excess = rows.size_bytes() - kept.bytes
        if excess > 0 or before_ms is not None:
            rows.trim(excess, before_ms, _TRIM_ROWS)

    def _commit_pair(
        self, env: Environment, txn: Txn, ephemeral_txn: Txn, view: WriteTransaction
    ) -> None:
        """Commit the removal of ephemeral values, then the durable write; a crash between loses some."""
        with self._pairing:
            self._version += 1
            try:
                # Ephemeral rows first. After a crash the other order could leave the new durable
                # value with an old one over a part of it: half of an update would be visible.
                self._commit_ephemeral(env, ephemeral_txn)
                try:
                    _failpoints.reached("between-environments")
                    with translated(self.folder):
                        txn.commit()
                except BaseException:
                    # The durable commit failed (a full disk, say): put the removed rows back, since
                    # the process lives on.
                    self._restore(env, view.removed)
                    raise
            finally:
                self._version += 1

    def _restore(self, env: Environment, removed: list[tuple[tuple[str, ...], object]]) -> None:
        txn = env.begin_write()
        try:
            laid = EphemeralOverlay(env, txn)
            for path, value in removed:
                laid.put(path, value)
            self._commit_ephemeral(env, txn)
        except Exception:  # noqa: BLE001 - the write's own error is the one to raise
            txn.abort()
            _log.exception("a durable write failed, and the ephemeral values it replaced are lost")

    @property
    def synced(self) -> bool:
        """Whether commits need no later sync: they are synced on return, or never."""
        return self._in_memory or self._durability == "always"

    def sync(self) -> None:
        """Sync everything committed so far."""
        self._durable.sync()

    def verify(self) -> list[str]:
        """Check every row; returns one sentence for each problem found."""
        with self._durable.read() as txn:
            return problems(self._durable, txn, self._shapes)

    def backup(self, target: FilePath) -> None:
        """Write a consistent copy of the durable tree and its log to the folder `target`."""
        copy_environment(self._durable, target)

    def compact(self) -> None:
        """Rewrite the file without free or half-empty pages; call as `write`.

        Reads wait only while the new file replaces the old one.
        """
        new = memory_folder() if self._in_memory else self.folder / "compacting"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=FOLDER_MODE)
        try:
            # Under the writer's lock, so no commit is missing from the copy; reads go on until
            # `reopen`.
            self._durable.rebuild(new)
            self._durable.reopen(lambda: self._put_in_place(new))
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _put_in_place(self, new: FilePath) -> FilePath:
        _failpoints.reached("rebuilt")
        if self._in_memory:
            return new
        # The new file is synced (`rebuild`, or by the caller of `install`); the rename is atomic,
        # so a crash leaves the old file or the new one.
        (new / "data.mdb").rename(self.folder / "data.mdb")
        _failpoints.reached("compacted")
        sync_folder(self.folder)
        return self.folder

    def keep_terms(self, terms: Terms) -> None:
        """Store the leader terms; call as `write`."""

        def keep(view: WriteTransaction) -> None:
            view.tree.put_meta(b"terms", terms.pack())

        self.write(keep, ephemeral=False)
        self.sync()
        self.terms = terms

    def install(self, new: FilePath, aside: FilePath | None) -> None:
        """Replace this store's file by the file of another store, in the folder `new`.

        Readers wait meanwhile; call as `write`. Ephemeral values are dropped.

        Args:
            new: holds `data.mdb`, synced.
            aside: a folder for the old file; None: the old file is deleted.

        Raises:
            OtherFormat: the file's format is not supported here; nothing has changed.
        """
        # Before anything is changed.
        check_file(new)

        def prepare() -> FilePath:
            self._shapes = Shapes(self._durable)
            if self._in_memory:
                return new
            if aside is not None:
                make_private_folder(aside)
                # A second name for the old file: the rename below then replaces only its first
                # name. A crash between the two leaves the old store in place.
                os.link(self.folder / "data.mdb", aside / "data.mdb")
                sync_folder(aside)
            return self._put_in_place(new)

        # Ephemeral values belong to the tree that is replaced. Dropped before it is, as in
        # `_commit_pair`.
        self._drop_ephemeral()
        self._durable.reopen(prepare)
        self._read_meta()
        self._version += 2
        self._move_keys()

    def _drop_ephemeral(self) -> None:
        if self._ephemeral is None or not self._ephemeral_count:
            return
        txn = self._ephemeral.begin_write()
        try:
            laid = EphemeralOverlay(self._ephemeral, txn)
            for path, _value in laid.all():
                laid.remove(path)
            self._commit_ephemeral(self._ephemeral, txn)
        except BaseException:
            txn.abort()
            raise
        self.ephemeral_position = self.position

    @property
    def file_bytes(self) -> int:
        """The size of the durable tree's file."""
        return self._durable.file_bytes

    def close(self) -> None:
        """Wait for reads under way, close both environments, release the folder's lock."""
        durable = getattr(self, "_durable", None)
        if durable is not None:
            self._close_durable(durable)
        if self._ephemeral is not None:
            self._ephemeral.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._in_memory:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _close_durable(self, durable: Environment) -> None:
        syncer = getattr(self, "_syncer", None)
        if syncer is not None:
            syncer.close()
        try:
            if self._durability != "always" and not self._in_memory:
                # A clean end needs no verification: sync, then remove the marker, in this order.
                durable.sync()
                if self._marker is not None:
                    self._marker.remove()
        except Closed:
            pass
        finally:
            durable.close()


def _remove_snapshots(folder: FilePath) -> None:
    """Delete files of interrupted snapshot transfers to or from replicas."""
    for left in (*folder.glob("sending-*"), folder / "arriving"):
        shutil.rmtree(left, ignore_errors=True)


class Snapshot:
    """A consistent state for the block of a `with` statement."""

    __slots__ = ("_disk", "_durable", "_ephemeral", "_rows_max")

    def __init__(self, disk: Disk, rows_max: int | None) -> None:
        self._disk = disk
        self._rows_max = rows_max

    def __enter__(self) -> ReadTransaction:
        view, self._durable, self._ephemeral = self._disk.view(self._rows_max)
        return view

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # First, because the translation below raises.
        self._disk.end_read(self._durable, self._ephemeral)
        if error is not None:
            translated(self._disk.folder).__exit__(kind, error, trace)
