"""The ephemeral overlay: one row per ephemeral value, in an environment without sync.

An ephemeral value is the visible value at a path, regardless of the durable value there (None hides
the durable value). No ephemeral value is below another. The row key is `/` and 15 bytes of SHA-256
for each key of the path, so that the rows below a path have its row key as prefix and 32 levels fit
LMDB's 511 bytes; the row holds the path itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

from elkyn.storage import rows
from elkyn.storage.environment import Environment, Txn
from elkyn.tree.paths import ROOT, Path
from elkyn.tree.values import Stored

__all__ = ["DATABASES", "EphemeralOverlay"]

_DATABASE = "shadows"  # the name in the files of older stores
DATABASES = (_DATABASE,)


@lru_cache(maxsize=4096)
def _digest(key: str) -> bytes:
    # 32 levels of 15 bytes and a slash are 481 bytes. Two keys with equal digests are not expected
    # at 120 bits.
    return hashlib.sha256(key.encode()).digest()[:15]


def _row_key(path: Path) -> bytes:
    return b"/" + b"".join(map(_digest, path))


class EphemeralOverlay:
    """The ephemeral values in one transaction."""

    __slots__ = ("_db", "_txn")

    def __init__(self, env: Environment, txn: Txn) -> None:
        self._txn = txn
        self._db = env.databases[_DATABASE]

    def covering(self, path: Path) -> tuple[Path, Stored] | None:
        """Return the ephemeral value at `path` or above it."""
        # At most one row covers a path, because ephemeral values never nest.
        for depth in range(len(path) + 1):
            data = self._txn.get(_row_key(path[:depth]), db=self._db)
            if data is not None:
                return path[:depth], rows.unpack_value(data)[1]
        return None

    def below(self, path: Path) -> Iterator[tuple[Path, Stored]]:
        """Yield the ephemeral values strictly below `path`."""
        prefix = _row_key(path)
        with self._txn.cursor(db=self._db) as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix):
                if cursor.key() != prefix:
                    keys, value = rows.unpack_value(cursor.value())
                    yield tuple(keys), value
                found = cursor.next()

    def put(self, path: Path, value: Stored) -> None:
        """Put a value at `path`, which must have no ephemeral value above or below it."""
        self._txn.put(_row_key(path), rows.pack([path, value]), db=self._db)

    def remove(self, path: Path) -> bool:
        """Remove the ephemeral value at `path`; returns whether there was one."""
        return bool(self._txn.delete(_row_key(path), db=self._db))

    def count(self) -> int:
        """Return the number of ephemeral values."""
        return int(self._txn.stat(self._db)["entries"])

    def all(self) -> list[tuple[Path, Stored]]:
        """Return every ephemeral value."""
        top = self.covering(ROOT)
        return [*([top] if top else []), *self.below(ROOT)]
