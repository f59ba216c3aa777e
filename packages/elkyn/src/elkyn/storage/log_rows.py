"""The log of durable writes: a row for each, written in the transaction of the write itself.

    index (8 bytes, big-endian) -> MessagePack [term, time_ms, kind, base, [[path, stored], …], key]

Indexes are consecutive. Paths are text (`/a/b`), server values are resolved, and ephemeral values
that a durable write promoted are included: applying the rows in order to the tree before the first
row yields the tree after the last. `kind` is `put` or `patch`; `settings` for a change of the store's
settings (base `/`, the name of the setting instead of a path); `start` for a log that begins at a
position (no places). `term` is the leader's term. `key` is the idempotency key of the write, if it
had one: a store that applies the row then also keeps its receipt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import ormsgpack

from elkyn.storage.environment import Environment, Txn
from elkyn.storage.receipts import IdempotencyKey
from elkyn.tree.large_map import LargeMap
from elkyn.tree.paths import Path, format_path
from elkyn.tree.values import Stored

__all__ = ["DATABASES", "Entry", "LogRows", "pack_entry", "time_in", "unpack_entry"]

DATABASES = ("oplog",)

# MessagePack: a positive fixint is its own byte; 0xcc to 0xcf precede integers of 1 to 8 bytes.
_SHORT_MAX = 0x80
_INTEGER_BYTES = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


class Entry(NamedTuple):
    """One durable write.

    `kind`, `base` and `places` describe the write, see the module docstring; `time_ms` is its time,
    in milliseconds since 1970. `idempotency_key` identifies its receipt (`receipts.IdempotencyKey`),
    None without one.
    """

    position: int
    term: int
    time_ms: int
    kind: str
    base: Path
    places: list[tuple[Path, Stored]]
    idempotency_key: IdempotencyKey | None = None


class LogRows:
    """The log in one transaction."""

    __slots__ = ("_db", "_txn")

    def __init__(self, env: Environment, txn: Txn) -> None:
        self._db = env.databases["oplog"]
        self._txn = txn

    def last(self) -> int:
        """Return the index of the newest row, 0 when there is none."""
        with self._txn.cursor(db=self._db) as cursor:
            return int.from_bytes(cursor.key(), "big") if cursor.last() else 0

    def first(self) -> int:
        """Return the index of the oldest row, 0 when there is none."""
        with self._txn.cursor(db=self._db) as cursor:
            return int.from_bytes(cursor.key(), "big") if cursor.first() else 0

    def append(self, entry: Entry) -> int:
        """Append `entry`; returns the size of its row in bytes."""
        return self.append_raw(entry.position, pack_entry(entry))

    def append_raw(self, index: int, packed: bytes) -> int:
        """Append a packed row; returns its size in bytes."""
        # `append` (MDB_APPEND): the index is the greatest, so LMDB need not search for its place.
        self._txn.put(index.to_bytes(8, "big"), packed, append=True, db=self._db)
        return len(packed)

    def read(self, after: int, rows: int, bytes_max: int) -> list[Entry]:
        """Return up to `rows` entries after index `after`, fewer when they exceed `bytes_max`."""
        found: list[Entry] = []
        size = 0
        for index, packed in self.raw(after):
            size += len(packed)
            if len(found) == rows or (found and size > bytes_max):
                break
            found.append(unpack_entry(index, packed))
        return found

    def row(self, index: int) -> bytes | None:
        """Return the packed row at `index`; None when there is none."""
        found: bytes | None = self._txn.get(index.to_bytes(8, "big"), db=self._db)
        return found

    def raw(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield index and packed row of every entry after index `after`."""
        with self._txn.cursor(db=self._db) as cursor:
            if cursor.set_range((after + 1).to_bytes(8, "big")):
                for key, packed in cursor:
                    yield int.from_bytes(key, "big"), packed

    def size_bytes(self) -> int:
        """Return the size of the log's pages in bytes."""
        stat = self._txn.stat(self._db)
        pages = stat["leaf_pages"] + stat["branch_pages"] + stat["overflow_pages"]
        return int(pages * stat["psize"])

    def trim(self, excess_bytes: int, before_ms: int | None, rows_max: int) -> None:
        """Delete the oldest rows; the newest one always stays.

        Args:
            excess_bytes: delete rows until this number of bytes is freed.
            before_ms: also delete rows older than this time; None: ignore the age.
            rows_max: the maximum number of rows to delete.
        """
        last = self.last()
        freed = 0
        with self._txn.cursor(db=self._db) as cursor:
            found = cursor.first()
            for _row in range(rows_max):
                # The newest row is the store's position; without it the next write would begin at 1
                # again.
                if not found or int.from_bytes(cursor.key(), "big") == last:
                    return
                packed = cursor.value()
                old = before_ms is not None and ormsgpack.unpackb(packed)[1] < before_ms
                if freed >= excess_bytes and not old:
                    return
                freed += len(packed)
                found = cursor.delete()

    def clear(self) -> None:
        """Delete every row."""
        self._txn.drop(self._db, delete=False)


def pack_entry(entry: Entry) -> bytes:
    """Return the row of an entry."""
    base = format_path(entry.base)
    places = [
        (base if path is entry.base else format_path(path), stored) for path, stored in entry.places
    ]
    if any(type(stored) is LargeMap for _path, stored in places):
        return b"".join(_packed_in_pieces(entry, base, places))
    row = (entry.term, entry.time_ms, entry.kind, base, places)
    return ormsgpack.packb(
        row if entry.idempotency_key is None else (*row, tuple(entry.idempotency_key))
    )


def _packed_in_pieces(entry: Entry, base: str, places: list[tuple[str, Stored]]) -> Iterator[bytes]:
    """Yield the bytes of `pack_entry`, reusing the packed parts of large maps."""
    # MessagePack headers: an array of 5 or 6, an array with a 32-bit length, and an array of 2.
    yield b"\x95" if entry.idempotency_key is None else b"\x96"
    yield from map(ormsgpack.packb, (entry.term, entry.time_ms, entry.kind, base))
    yield b"\xdd" + len(places).to_bytes(4, "big")
    for path, stored in places:
        yield b"\x92" + ormsgpack.packb(path)
        if type(stored) is LargeMap:
            yield from stored.packed()
        else:
            yield ormsgpack.packb(stored)
    if entry.idempotency_key is not None:
        yield ormsgpack.packb(tuple(entry.idempotency_key))


def unpack_entry(index: int, packed: bytes | memoryview) -> Entry:
    """Read a row."""
    term, time_ms, kind, base, places, *more = ormsgpack.unpackb(packed)
    found = [(_path(text), stored) for text, stored in places]
    key = IdempotencyKey(*more[0]) if more else None
    return Entry(index, term, time_ms, kind, _path(base), found, key)


def time_in(packed: bytes) -> int:
    """Return the time of a row's write, without decoding its values."""
    # After the header of the array, which is one byte (fixarray).
    _term, start = _integer(packed, 1)
    return _integer(packed, start)[0]


def _integer(packed: bytes, start: int) -> tuple[int, int]:
    """Return a non-negative MessagePack integer, and the offset of its end."""
    tag = packed[start]
    if tag < _SHORT_MAX:
        return tag, start + 1
    end = start + 1 + _INTEGER_BYTES[tag]
    return int.from_bytes(packed[start + 1 : end], "big"), end


def _path(text: str) -> Path:
    return tuple(text.split("/")[1:]) if len(text) > 1 else ()
