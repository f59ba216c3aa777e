"""Interning of key lists: a map whose list of keys the store knows is packed without its keys.

A *shape* is the tuple of a map's keys. The table `shapes` numbers the store's shapes:

    number (2 bytes, big-endian) -> MessagePack list of keys

and a map of shape 7 is packed as the array `[7, value, …]`; the stored form has no lists, so an
array is always a folded map. A row of only a few scalars encodes a low number in its tag. A shape is
interned when several rows have had it; maps without one are packed with their keys, so a full table
only costs space.
"""

from __future__ import annotations

import threading
from itertools import islice
from typing import Any

import ormsgpack

from elkyn.storage.environment import Environment, Txn
from elkyn.storage.rows import FLAT, FOLDED, LONG, PACKED, SHAPED
from elkyn.storage.rows import unpack as unpack_row
from elkyn.tree.values import Stored

__all__ = ["DATABASES", "Shapes"]

DATABASES = ("shapes",)

# The whole table is kept in memory, and shapes are never removed. A full table only costs space.
SHAPES_MAX = 4096
_KEYS_MAX = 64
_KEY_BYTES_MIN = 3  # minimum length of the key of a map with a single key
_KEY_BYTES_MAX = 1024
# One row that is written over and over (a counter, a list that grows) is no sign of a shape.
_ROWS_BEFORE = 3  # rows that must have had a shape before it is interned
_SEEN_MAX = 4096
_TAGGED = 0x80 - SHAPED  # shapes with lower numbers have their own tags
_HEADS = tuple(bytes((0x90 + count,)) for count in range(16))  # headers of short MessagePack arrays

Shape = tuple[str, ...]


class Shapes:
    """The shapes of one store, loaded on first use. Any thread may read, one may write."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._loaded = False
        # Shapes by number. Append-only except for `forget`, so a reader's numbers stay valid.
        self._keys: list[Shape] = []
        # The inverse of `_keys`; used by the writer only.
        self._numbers: dict[Shape, int] = {}
        # Candidates: the last row that had the shape, and how many rows had it. Lost at a restart.
        self._seen: dict[Shape, tuple[bytes, int]] = {}

    @property
    def _db(self) -> Any:
        return self._env.databases["shapes"]

    def _load(self, txn: Txn) -> None:
        # No shape is interned before this has run, so every transaction sees the whole table.
        with self._lock:
            if self._loaded:
                return
            with txn.cursor(db=self._db) as cursor:
                for _number, packed in cursor:
                    self._add(tuple(ormsgpack.unpackb(packed)))
            self._loaded = True

    def _add(self, shape: Shape) -> int:
        number = self._numbers[shape] = len(self._keys)
        self._keys.append(shape)
        return number

    def mark(self, txn: Txn) -> int:
        """Return the number of shapes before the write transaction `txn`; see `forget`."""
        if not self._loaded:
            self._load(txn)
        return len(self._keys)

    def forget(self, count: int) -> None:
        """Drop the shapes after the first `count`: the transaction that interned them failed."""
        # No reader has met these numbers, because no row with them was committed.
        for shape in self._keys[count:]:
            del self._numbers[shape]
        del self._keys[count:]

    def pack(self, value: dict[str, Stored], txn: Txn, row_key: bytes) -> tuple[int, bytes]:
        """Return tag and payload of the row of a map.

        Args:
            value: a stored form.
            txn: the write transaction, marked; new shapes are written in it.
            row_key: the row's key: repeated writes of one row count once towards interning.
        """
        if dict in map(type, value.values()):
            folded = self._fold(value, txn, row_key)
            return PACKED if folded is value else FOLDED, ormsgpack.packb(folded)
        number = self._number(tuple(value), txn, row_key)
        if number is None:
            return PACKED, ormsgpack.packb(value)
        values = list(value.values())
        if number < _TAGGED and len(values) < len(_HEADS):
            # The header of an array of up to 15 values is one byte (MessagePack fixarray), which
            # the shape implies.
            return SHAPED + number, ormsgpack.packb(values)[1:]
        return FLAT, ormsgpack.packb([number, *values])

    def _fold(self, value: dict[str, Stored], txn: Txn, row_key: bytes) -> Stored:
        shape = tuple(value)
        number = self._number(shape, txn, row_key)
        inner = list(value.values())
        folded = False
        for index, child in enumerate(inner):
            if type(child) is dict:
                inner[index] = self._fold(child, txn, row_key)
                folded = folded or inner[index] is not child
        if number is not None:
            return [number, *inner]
        return dict(zip(shape, inner, strict=True)) if folded else value

    def _number(self, shape: Shape, txn: Txn, row_key: bytes) -> int | None:
        number = self._numbers.get(shape)
        return self._learn(shape, txn, row_key) if number is None else number

    def _learn(self, shape: Shape, txn: Txn, row_key: bytes) -> int | None:
        if len(shape) > _KEYS_MAX or len(self._keys) >= SHAPES_MAX:
            return None
        if len(shape) == 1 and len(shape[0]) < _KEY_BYTES_MIN:
            return None
        where, count = self._seen.get(shape, (b"", 0))
        # The same row again.
        if where == row_key:
            return None
        if count + 1 < _ROWS_BEFORE:
            if len(self._seen) >= _SEEN_MAX:
                # Bounds the memory; a shape that matters is seen again soon.
                self._seen.clear()
            self._seen[shape] = (row_key, count + 1)
            return None
        self._seen.pop(shape, None)
        if sum(map(len, shape)) > _KEY_BYTES_MAX:
            return None
        number = self._add(shape)
        txn.put(number.to_bytes(2, "big"), ormsgpack.packb(shape), db=self._db)
        return number

    def read(self, data: bytes, txn: Txn) -> Stored:
        """Return the stored form of a row value that is not a branch."""
        if SHAPED <= data[0] < LONG and self._loaded:
            keys = self._keys[data[0] - SHAPED]
            values = ormsgpack.unpackb(_HEADS[len(keys)] + data[1:])
            return dict(zip(keys, values, strict=True))
        row = unpack_row(data)
        return self.unpack(row.tag, row.payload, txn)

    def unpack(self, tag: int, payload: memoryview | bytes, txn: Txn) -> Stored:
        """Return the stored form of a row that is not a branch."""
        if tag == PACKED:
            return ormsgpack.unpackb(payload)
        if not self._loaded:
            self._load(txn)
        if tag >= SHAPED:
            keys = self._keys[tag - SHAPED]
            values = ormsgpack.unpackb(_HEADS[len(keys)] + payload)
            return dict(zip(keys, values, strict=True))
        value = ormsgpack.unpackb(payload)
        if tag == FLAT:
            number, *values = value
            return dict(zip(self._keys[number], values, strict=True))
        return self._unfold(value)

    def _unfold(self, value: Stored) -> Stored:
        if type(value) is list:
            value = dict(zip(self._keys[value[0]], islice(value, 1, None), strict=True))
        for key, child in value.items():
            if type(child) is list or type(child) is dict:
                value[key] = self._unfold(child)
        return value
