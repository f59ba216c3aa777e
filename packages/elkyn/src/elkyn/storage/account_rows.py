"""Rows of the account store: a separate LMDB environment, which no tree path can reach.

Folder 0700, files 0600. Every row is a MessagePack map; every commit is synced. Other processes may
have the same store open: LMDB lets one process write at a time, and when another process has grown
the memory map, it is grown here too.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any, TypeAlias, TypeVar

import lmdb
import ormsgpack

from elkyn.storage.environment import Environment, MapFull, Txn, translated
from sennit_core.errors import UsageError

__all__ = ["KEY_BYTES_MAX", "AccountFile", "RowSet", "Rows"]

T = TypeVar("T")

Rows: TypeAlias = Iterator[tuple[bytes, dict[str, Any]]]

KEY_BYTES_MAX = 500
_MAP_BYTES = 256 * 1024 * 1024


class RowSet:
    """The rows of all databases in one transaction."""

    __slots__ = ("_databases", "_txn")

    def __init__(self, env: Environment, txn: Txn) -> None:
        self._databases = env.databases
        self._txn = txn

    def get(self, database: str, key: bytes) -> dict[str, Any] | None:
        """Return a row, None when there is none."""
        if not 0 < len(key) <= KEY_BYTES_MAX:
            return None
        data = self._txn.get(key, db=self._databases[database])
        return None if data is None else ormsgpack.unpackb(data)

    def put(self, database: str, key: bytes, row: dict[str, Any]) -> None:
        """Write a row.

        Raises:
            UsageError: the key is longer than LMDB allows.
        """
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise UsageError(f"a name in the account store must have 1 to {KEY_BYTES_MAX} bytes")
        self._txn.put(key, ormsgpack.packb(row), db=self._databases[database])

    def delete(self, database: str, key: bytes) -> bool:
        """Remove a row; whether it was there."""
        return bool(self._txn.delete(key, db=self._databases[database]))

    def scan(self, database: str, *, prefix: bytes = b"", after: bytes = b"") -> Rows:
        """Iterate over the rows whose keys start with `prefix` and come after `after`."""
        with self._txn.cursor(db=self._databases[database]) as cursor:
            start = (after or prefix)[:KEY_BYTES_MAX]
            found = cursor.set_range(start) if start else cursor.first()
            while found:
                key = bytes(cursor.key())
                if not key.startswith(prefix):
                    return
                if key > after or not after:
                    yield key, ormsgpack.unpackb(cursor.value())
                found = cursor.next()


class AccountFile:
    """The open environment of an account store.

    Args:
        folder: created with mode 0700 when missing; None uses unlinked temporary files.
        databases: names of the databases.
    """

    def __init__(self, folder: FilePath | None, databases: tuple[str, ...]) -> None:
        self.folder = FilePath(tempfile.mkdtemp(prefix="elkyn-")) if folder is None else folder
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        self._lock = threading.Lock()
        self._env = Environment(
            self.folder, databases, sync=folder is not None, map_bytes=_MAP_BYTES
        )
        for file in self.folder.glob("*.mdb"):
            file.chmod(0o600)
        if folder is None:
            shutil.rmtree(self.folder)

    @contextmanager
    def read(self) -> Iterator[RowSet]:
        """Read one consistent state for a block."""
        txn = self._begin_read()
        try:
            yield RowSet(self._env, txn)
        finally:
            self._env.leave(txn)

    def _begin_read(self) -> Txn:
        while True:
            try:
                return self._env.enter()
            # LMDB: a process that did not resize the map itself learns of it by this error, and
            # must enlarge its own.
            except lmdb.MapResizedError:  # another process has grown it
                self._env.grow()

    def write(self, body: Callable[[RowSet], T]) -> T:
        """Run `body` in a write transaction and commit; runs it again if the map had to grow.

        Args:
            body: reads and writes; an exception aborts the transaction.
        """
        while True:
            # LMDB's own lock orders processes; this one orders the threads of this process.
            with self._lock:
                try:
                    return self._write_once(body)
                except (MapFull, lmdb.MapResizedError):
                    self._env.grow()

    def _write_once(self, body: Callable[[RowSet], T]) -> T:
        with self.read():
            pass  # adopts a map that another process has grown: otherwise `begin_write` would fail
        txn = self._env.begin_write()
        try:
            with translated(self.folder):
                result = body(RowSet(self._env, txn))
                txn.commit()
        except BaseException:
            txn.abort()
            raise
        return result

    def copy(self, folder: FilePath) -> None:
        """Write a consistent copy to `folder`, which is created with mode 0700 and must be empty."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        self._env.copy(folder)
        for file in folder.glob("*.mdb"):
            file.chmod(0o600)

    def close(self) -> None:
        """Wait for reads under way and close."""
        self._env.close()
