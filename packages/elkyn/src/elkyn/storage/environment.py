"""One LMDB environment: opening, read transactions, and growth of the map.

LMDB can resize its map only while this process has no transaction open, so a read first passes a gate,
which is closed during growth. Reads never block each other or the writer. Callers ensure that only
one thread writes at a time.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import lmdb

from sennit_core.errors import Closed, Corrupt, StorageFull, Unavailable
from sennit_core.private_files import FILE_MODE
from sennit_core.units import MIB

__all__ = ["MAP_BYTES", "Check", "Environment", "MapFull", "Txn", "copy_in_use", "translated"]

Txn: TypeAlias = Any  # py-lmdb ships no types

Check: TypeAlias = Callable[[FilePath, Txn, dict[str, Any]], None]
"""Checks an opened environment; called with its folder, a transaction, and the databases."""

MapFull = lmdb.MapFullError
_DAMAGED = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,  # of LMDB's own format, which all stores here share
)

MAP_BYTES = 1024 * MIB
"""Initial size of the map: only address space, the file grows as pages are used."""

# Doubling keeps growths rare; a larger map grows by this much.
_GROWTH_MAX = 64 * 1024 * MIB
# Read transactions at once, over all processes; each has a slot of 64 bytes in LMDB's lock file.
_READERS_MAX = 1024
# Any error but damage that happens with less space free than this is reported as a full disk.
_NEARLY_FULL = 8 * MIB
_REBUILD_ROWS = 10_000
_COVERED_MAX = 2**46  # a larger size can only be damage


class Environment:
    """An open environment with named databases.

    Args:
        folder: holds `data.mdb` and `lock.mdb`; must exist.
        databases: names to open, created when missing.
        sync: whether a commit is synced before it returns.
        map_bytes: initial size of the map; the size of an existing file, if larger, is used instead.
        check: called after opening, before anything is created; an exception leaves the files
            unchanged.
    """

    def __init__(
        self,
        folder: FilePath,
        databases: tuple[str, ...],
        *,
        sync: bool,
        map_bytes: int = MAP_BYTES,
        check: Check | None = None,
    ) -> None:
        self.folder = folder
        self.databases: dict[str, Any] = {}
        self._names = databases
        self._sync = sync
        self._check = check
        self._open(map_bytes)
        self._lock = (
            threading.Lock()
        )  # the gate's; held without the condition where no thread waits
        self._gate = threading.Condition(self._lock)
        # Open read transactions, and copies and syncs, which need the environment open. `_lock`
        # guards it and the flags below.
        self._readers = 0
        # True while `_exclusive` waits for readers or runs its block: `_wait_until_shared` lets no
        # one in.
        self._shut = False
        self._closed = False

    def _open(self, map_bytes: int) -> None:
        with translated(self.folder):
            _reserve_lock_file(self.folder / "lock.mdb")
            _cover_pages(self.folder / "data.mdb")
            env = lmdb.open(
                str(self.folder),
                map_size=map_bytes,
                max_dbs=16,
                max_readers=_READERS_MAX,
                sync=self._sync,
                metasync=self._sync,
                max_spare_txns=8,
                readahead=True,
                mode=FILE_MODE,
            )
            try:
                # One transaction for databases and check: if the check refuses the file, nothing
                # was created in it.
                with env.begin(write=True) as txn:
                    for name in self._names:
                        self.databases[name] = env.open_db(name.encode(), txn=txn)
                    if self._check is not None:
                        self._check(self.folder, txn, self.databases)
                # Frees reader slots of processes that were killed; their old snapshots would keep
                # pages from being reused.
                env.reader_check()
            except BaseException:
                env.close()
                raise
        self._env = env

    @property
    def map_bytes(self) -> int:
        """The current size of the map."""
        return int(self._env.info()["map_size"])

    def enter(self) -> Txn:
        """Open a read transaction; close it with `leave`."""
        self._wait_until_shared()
        try:
            return self._env.begin()
        except BaseException:
            self._left()
            raise

    def _wait_until_shared(self) -> None:
        with self._lock:
            while self._shut:
                self._gate.wait()
            if self._closed:
                raise Closed("the store")
            # Before the transaction begins, so that `_exclusive` cannot resize the map in between.
            self._readers += 1

    def leave(self, txn: Txn) -> None:
        """Close a read transaction."""
        try:
            txn.abort()
        finally:
            self._left()

    def _left(self) -> None:
        with self._lock:
            self._readers -= 1
            # At other times no thread waits for readers to leave.
            if self._shut or self._closed:
                self._gate.notify_all()

    @contextmanager
    def read(self) -> Iterator[Txn]:
        """Open a read transaction for a block."""
        txn = self.enter()
        try:
            with translated(self.folder):
                yield txn
        finally:
            self.leave(txn)

    def begin_write(self) -> Txn:
        """Open the write transaction; the caller commits or aborts it."""
        if self._closed:
            raise Closed("the store")
        with translated(self.folder):
            try:
                return self._env.begin(write=True)
            except lmdb.PanicError:  # writing a page failed in a commit: LMDB requires reopening
                self.reopen(lambda: self.folder)
                return self._env.begin(write=True)

    def grow(self) -> None:
        """Double the map (by at most 64 GiB); waits for readers, and blocks new ones.

        Call from the writer, with no transaction open in this thread.
        """
        with self._exclusive():
            current = self.map_bytes
            with translated(self.folder):
                # LMDB: `mdb_env_set_mapsize` may be called only while no transaction is active in
                # this process.
                self._env.set_mapsize(current + min(current, _GROWTH_MAX))

    def reopen(self, prepare: Callable[[], FilePath]) -> None:
        """Close, let `prepare` change the files, and open the folder it returns.

        Waits for readers and blocks new ones. Call from the writer, with no transaction open in this
        thread.
        """
        with self._exclusive():
            map_bytes = self.map_bytes
            self._env.close()
            try:
                self.folder = prepare()
            # Opened again even if `prepare` failed: the store goes on with the old files.
            finally:
                self._open(map_bytes)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._gate:
            self._shut = True
            try:
                # `wait` releases the lock, so that readers can leave; the block itself runs with
                # the lock held.
                while self._readers:
                    self._gate.wait()
                yield
            finally:
                self._shut = False
                self._gate.notify_all()

    def sync(self) -> None:
        """Sync everything committed so far."""
        with self._kept_open(), translated(self.folder):
            self._env.sync(True)

    def copy(self, folder: FilePath) -> None:
        """Write a consistent copy without free pages to `folder`, which must exist and be empty."""
        with self._kept_open(), translated(folder):
            # LMDB copies from one read transaction: commits go on meanwhile, and no page of its
            # state is reused.
            self._env.copy(str(folder), compact=True)

    @contextmanager
    def _kept_open(self) -> Iterator[None]:
        self._wait_until_shared()
        try:
            yield
        finally:
            self._left()

    def rebuild(self, folder: FilePath) -> None:
        """Write everything to a new environment in `folder`, in key order, so that pages are full.

        Call from the writer, so that there are no commits meanwhile.
        """
        with self.read() as txn, translated(folder):
            # One process writes it and nothing reads it before the end: no lock file, and one sync
            # at the end instead of one for each commit.
            new = lmdb.open(
                str(folder),
                map_size=self.map_bytes,
                max_dbs=16,
                sync=False,
                lock=False,
                mode=FILE_MODE,
            )
            try:
                for name, db in self.databases.items():
                    with txn.cursor(db=db) as cursor:
                        _append(new, new.open_db(name.encode()), iter(cursor))
                new.sync(True)
            finally:
                new.close()

    @property
    def file_bytes(self) -> int:
        """The size of the data file."""
        info, page = self._env.info(), self._env.stat()["psize"]
        return int((info["last_pgno"] + 1) * page)

    def close(self) -> None:
        """Wait for reads under way and close; idempotent."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            # Closing LMDB's environment under an open transaction would unmap the pages that it
            # reads.
            while self._readers:
                self._gate.wait()
            self._env.close()


def copy_in_use(source: FilePath, target: FilePath) -> None:
    """Write a consistent copy of an environment that another process may have open."""
    size = (source / "data.mdb").stat().st_size
    with translated(target):
        env = lmdb.open(
            str(source), map_size=max(MAP_BYTES, size), max_dbs=16, readonly=True, create=False
        )
        try:
            env.copy(str(target), compact=True)
        finally:
            env.close()


def _reserve_lock_file(file: FilePath) -> None:
    """Allocate the blocks of LMDB's lock file: writing to a hole on a full disk raises SIGBUS."""
    size = _READERS_MAX * 64 + 4096
    opened = os.open(file, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        if os.fstat(opened).st_blocks * 512 < size:
            os.posix_fallocate(opened, 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageFull(str(file.parent), free_bytes=0) from error
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    finally:
        os.close(opened)


def _cover_pages(file: FilePath) -> None:
    """Extend a file that is shorter than its newest meta page says.

    Reading a page beyond the end of the file raises SIGBUS, while LMDB reports a page of zeros as
    damaged.
    Pages 0 and 1 hold `MDB_meta` after 16 bytes: at 24 in it the page size, at 120 the last page and
    at 128 the transaction (LMDB 0.9, 64 bits).
    """
    if not file.exists():
        return
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        first = stream.read(152)
        if len(first) < 152:
            return
        page = int.from_bytes(first[40:44], "little")
        stream.seek(page)
        metas = [first, stream.read(152)]
    newest = max((m for m in metas if len(m) == 152), key=lambda m: m[144:152][::-1])
    needed = (int.from_bytes(newest[136:144], "little") + 1) * page
    if size < needed < _COVERED_MAX:
        os.truncate(file, needed)


def _append(env: Any, db: Any, found: Iterator[tuple[bytes, bytes]]) -> None:
    while chunk := list(islice(found, _REBUILD_ROWS)):
        with env.begin(write=True) as txn, txn.cursor(db=db) as cursor:
            # In key order, so that LMDB fills each page before it begins the next one. LMDB's own
            # compacting copy keeps the half-empty pages of records that came in no order;
            # `benchmarks/bench_elkyn.py` prints their size before and after.
            cursor.putmulti(chunk, append=True)


class translated:  # noqa: N801 - used like a function; a generator would cost each commit 2 µs
    """Convert LMDB's errors to Sennit's; a full map passes, because the writer grows it."""

    __slots__ = ("_folder",)

    def __init__(self, folder: FilePath) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, lmdb.Error) or isinstance(error, lmdb.MapFullError):
            return
        folder = self._folder
        if isinstance(error, _DAMAGED):
            raise Corrupt(
                f"the store at {folder}",
                message=f"LMDB: {error}",
                hint="restore the data folder from a backup",
            ) from error
        free = shutil.disk_usage(folder).free if folder.exists() else None
        if isinstance(error, lmdb.DiskError) or (free is not None and free < _NEARLY_FULL):
            raise StorageFull(str(folder), free_bytes=free) from error
        raise Unavailable(f"the store at {folder}", message=f"LMDB: {error}") from error
