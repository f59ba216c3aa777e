"""One LMDB environment: opening, read transactions, and growth of the map.

LMDB can change the size of its map only while this process has no transaction open, so reads pass a
gate that growth closes. Reads never block each other or the writer. Callers see to it that one
thread writes at a time.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import lmdb

from sennit_core.errors import Closed, StorageFull, Unavailable
from sennit_core.units import MIB

__all__ = ["MAP_BYTES", "Environment", "MapFull", "Txn"]

Txn: TypeAlias = Any  # py-lmdb ships no types

MapFull = lmdb.MapFullError

MAP_BYTES = 1024 * MIB
"""First size of the map: address space alone, the file grows as pages are used."""

_GROWTH_MAX = 64 * 1024 * MIB
_NEARLY_FULL = 8 * MIB


class Environment:
    """An open environment with named databases.

    Args:
        folder: holds `data.mdb` and `lock.mdb`; must exist.
        databases: names to open, created when missing.
        sync: whether a commit reaches the disk before it returns.
        map_bytes: first size of the map; an existing larger file wins.
    """

    def __init__(
        self,
        folder: FilePath,
        databases: tuple[str, ...],
        *,
        sync: bool,
        map_bytes: int = MAP_BYTES,
    ) -> None:
        self.folder = folder
        with translated(folder):
            self._env = lmdb.open(
                str(folder),
                map_size=map_bytes,
                max_dbs=16,
                max_readers=1024,
                sync=sync,
                metasync=sync,
                max_spare_txns=8,
                readahead=True,
            )
            try:
                self.databases = {name: self._env.open_db(name.encode()) for name in databases}
                self._env.reader_check()
            except BaseException:
                self._env.close()
                raise
        self._lock = threading.Lock()  # of the gate; taken bare where nobody waits or is woken
        self._gate = threading.Condition(self._lock)
        self._readers = 0
        self._shut = False
        self._closed = False

    @property
    def map_bytes(self) -> int:
        """The size of the map now."""
        return int(self._env.info()["map_size"])

    def enter(self) -> Txn:
        """Open a read transaction; give it back with `leave`."""
        with self._lock:
            while self._shut:
                self._gate.wait()
            if self._closed:
                raise Closed("the store")
            self._readers += 1
        try:
            return self._env.begin()
        except BaseException:
            self._left()
            raise

    def leave(self, txn: Txn) -> None:
        """Close a read transaction."""
        try:
            txn.abort()
        finally:
            self._left()

    def _left(self) -> None:
        with self._lock:
            self._readers -= 1
            if self._shut or self._closed:
                self._gate.notify_all()

    @contextmanager
    def read(self) -> Iterator[Txn]:
        """Open a read transaction for a block."""
        txn = self.enter()
        try:
            yield txn
        finally:
            self.leave(txn)

    def begin_write(self) -> Txn:
        """Open the write transaction; the caller commits or aborts it."""
        if self._closed:
            raise Closed("the store")
        with translated(self.folder):
            return self._env.begin(write=True)

    def grow(self) -> None:
        """Double the map (64 GiB more at most); waits for readers, and holds new ones back.

        Call from the writer, without any transaction of your own open.
        """
        with self._gate:
            self._shut = True
            try:
                while self._readers:
                    self._gate.wait()
                current = self.map_bytes
                with translated(self.folder):
                    self._env.set_mapsize(current + min(current, _GROWTH_MAX))
            finally:
                self._shut = False
                self._gate.notify_all()

    def close(self) -> None:
        """Wait for reads under way and close; closing twice is fine."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            while self._readers:
                self._gate.wait()
            self._env.close()


@contextmanager
def translated(folder: FilePath) -> Iterator[None]:
    """Turn LMDB's errors into Sennit's; a full map passes, because the writer grows it."""
    try:
        yield
    except lmdb.MapFullError:
        raise
    except lmdb.Error as error:
        free = shutil.disk_usage(folder).free if folder.exists() else None
        if isinstance(error, lmdb.DiskError) or (free is not None and free < _NEARLY_FULL):
            raise StorageFull(str(folder), free_bytes=free) from error
        raise Unavailable(f"the store at {folder}", message=f"LMDB: {error}") from error
