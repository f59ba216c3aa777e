"""Receipts of writes with an idempotency key, written in the transaction of the write.

    k, 16 bytes of SHA-256 of the key         MessagePack [time_ms, fingerprint, position, base,
                                              [[path, stored], …]]
    t, time_ms (8 bytes, big-endian), digest  empty: orders receipts by age

A retried write, also after a crash or to a promoted follower, finds its receipt and is not applied
again. Old receipts are deleted, and the oldest ones when there are too many.
"""

from __future__ import annotations

from typing import NamedTuple

import ormsgpack

from elkyn.storage.environment import Environment, Txn
from elkyn.tree.paths import Path, format_path, parse_path
from elkyn.tree.values import Stored

__all__ = ["DATABASES", "ROWS_MAX", "SECONDS_MAX", "IdempotencyKey", "Receipt", "Receipts"]

DATABASES = ("receipts",)
SECONDS_MAX = 3600
ROWS_MAX = 20_000
BYTES_MAX = 32 * 1024 * 1024
# More than the one receipt that a write adds, so a backlog shrinks; few enough for every write to
# pay.
_FORGET_ROWS = 8


class IdempotencyKey(NamedTuple):
    """An idempotency key: its `digest`, and the `fingerprint` of the write's body."""

    digest: bytes
    fingerprint: bytes


class Receipt(NamedTuple):
    """The result of a write; `fingerprint` identifies its body."""

    time_ms: int
    fingerprint: bytes
    position: int
    base: Path
    places: list[tuple[Path, Stored]]


class Receipts:
    """The receipts in one transaction."""

    __slots__ = ("_db", "_txn")

    def __init__(self, env: Environment, txn: Txn) -> None:
        self._db = env.databases["receipts"]
        self._txn = txn

    def get(self, digest: bytes, now_ms: int) -> Receipt | None:
        """Return the receipt of the write with this key, None when there is none or it is too old."""
        data = self._txn.get(b"k" + digest, db=self._db)
        if data is None:
            return None
        time_ms, fingerprint, position, base, places = ormsgpack.unpackb(data)
        if time_ms < now_ms - SECONDS_MAX * 1000:
            return None
        found = [(parse_path(path), stored) for path, stored in places]
        return Receipt(time_ms, fingerprint, position, parse_path(base), found)

    def put(self, digest: bytes, receipt: Receipt) -> None:
        """Store a receipt, and delete a few that are too old or too many."""
        self._forget(receipt.time_ms)
        # An expired receipt with the same key: its row of the order by age must go as well.
        self._remove(digest)
        places = [(format_path(path), stored) for path, stored in receipt.places]
        row = (*receipt[:3], format_path(receipt.base), places)
        self._txn.put(b"k" + digest, ormsgpack.packb(row), db=self._db)
        self._txn.put(_aged(receipt.time_ms, digest), b"", db=self._db)

    def _remove(self, digest: bytes) -> None:
        data = self._txn.get(b"k" + digest, db=self._db)
        if data is not None:
            self._txn.delete(_aged(ormsgpack.unpackb(data)[0], digest), db=self._db)

    def _forget(self, now_ms: int) -> None:
        stat = self._txn.stat(self._db)
        pages = stat["leaf_pages"] + stat["branch_pages"] + stat["overflow_pages"]
        # Two rows for each receipt.
        full = stat["entries"] >= 2 * ROWS_MAX or pages * stat["psize"] > BYTES_MAX
        gone: list[bytes] = []
        with self._txn.cursor(db=self._db) as cursor:
            found = cursor.set_range(b"t")
            while found and len(gone) < _FORGET_ROWS:
                key = bytes(cursor.key())
                old = int.from_bytes(key[1:9], "big") < now_ms - SECONDS_MAX * 1000
                if not (old or full):
                    break
                gone.append(key)
                found = cursor.next()
        for key in gone:
            self._txn.delete(key, db=self._db)
            self._txn.delete(b"k" + key[9:], db=self._db)

    def count(self) -> int:
        """Return the number of receipts."""
        return int(self._txn.stat(self._db)["entries"]) // 2


def _aged(time_ms: int, digest: bytes) -> bytes:
    return b"t" + time_ms.to_bytes(8, "big") + digest
