"""The encoding of index rows, with which a cursor visits children in the order of `ordering`.

    definition   4 bytes, big-endian
    parent       12 bytes of SHA-256 of the path whose children are indexed
    value        a byte for the type, then
                     boolean   a byte
                     number    8 bytes: the double, encoded so that bytes sort like numbers
                     text      UTF-8 of its UTF-16 units, 00 as 00 FF; ends with 00 00, or with
                               00 01 where it is cut at TEXT_BYTES_MAX
    child's key  as in `rows`, but keys of KEY_BYTES_MAX bytes or more are long

The row's value is the child's key if it is long, else empty. Rows that are equal in order because of
cut text or a long key form a group, which is sorted after the children are read.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import NamedTuple

from elkyn.storage import rows
from elkyn.tree.ordering import BOOLEAN, MAX_NAME, MIN_NAME, NUMBER, TEXT, rank
from elkyn.tree.paths import Path, as_integer
from elkyn.tree.query import Bound
from elkyn.tree.values import Stored

__all__ = [
    "HEAD_BYTES",
    "IndexRow",
    "beyond_bytes",
    "first_bytes",
    "head",
    "parse",
    "row",
    "value_bytes",
]

# With the head (16 bytes), types and ends, value and key together stay within LMDB's 511 bytes.
TEXT_BYTES_MAX = 200
KEY_BYTES_MAX = 270
# With 16 bytes of a hash it is as long as the longest key that is stored whole.
_KEY_PREFIX_BYTES = 254
HEAD_BYTES = 16

_DOUBLE = struct.Struct(">d")
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_FIXED = {BOOLEAN: 1, NUMBER: 8}


class IndexRow(NamedTuple):
    """A decoded row: the child's key, and the prefix that rows of equal order share."""

    key: str
    group: bytes | None


def head(definition: int, parent: Path) -> bytes:
    """Return the common prefix of a definition's rows for the children of one path."""
    return definition.to_bytes(4, "big") + _digest(parent)


@lru_cache(maxsize=1024)
def _digest(parent: Path) -> bytes:
    return hashlib.sha256("/".join(parent).encode()).digest()[: HEAD_BYTES - 4]


def value_bytes(value: Stored) -> tuple[bytes, bool]:
    """Return the bytes of an indexed value, and whether they are complete."""
    kind, comparable = rank(value)
    tag = bytes((kind,))
    if kind == TEXT:
        # 00 becomes 00 FF, so that 00 00 and 00 01 can only be ends, and both sort before any
        # longer text.
        text = comparable.encode("utf-8", "surrogatepass").replace(b"\0", b"\0\xff")
        if len(text) <= TEXT_BYTES_MAX:
            return tag + text + b"\0\0", True
        # Not between the two bytes of an escaped zero.
        cut = TEXT_BYTES_MAX - (text[TEXT_BYTES_MAX - 1] == 0)
        return tag + text[:cut] + b"\0\x01", False
    if kind == NUMBER:
        # IEEE 754 doubles sort like integers once the sign bit is flipped, or all bits of negative
        # ones.
        bits = int.from_bytes(_DOUBLE.pack(comparable), "big")
        return tag + (bits ^ (_ALL if bits & _SIGN else _SIGN)).to_bytes(8, "big"), True
    return (tag + bytes((comparable,)) if kind == BOOLEAN else tag), True


def key_bytes(key: str) -> tuple[bytes, bool]:
    """Return the bytes of a child's key, and whether they are complete."""
    if as_integer(key) is not None:
        return rows.child_row(b"", key), True
    text = rows.text_bytes(key)
    if len(text) <= KEY_BYTES_MAX:
        return b"\x02" + text, True
    return b"\x02" + text[:_KEY_PREFIX_BYTES] + hashlib.sha256(key.encode()).digest()[:16], False


def first_bytes(bound: Bound | None) -> bytes:
    """Return the start, after the head, of the rows that a range from `bound` may contain."""
    if bound is None:
        return b""
    encoded, exact = value_bytes(bound.value)
    if not exact or bound.key is None or bound.key == MIN_NAME:
        return encoded
    return encoded + (b"\xff" if bound.key == MAX_NAME else _near(bound.key)[0])


def beyond_bytes(bound: Bound | None) -> bytes:
    """Return the end, after the head, of the rows that a range to `bound` may contain."""
    if bound is None:
        return b"\xff"
    encoded, exact = value_bytes(bound.value)
    if not exact or bound.key is None or bound.key == MAX_NAME:
        return encoded + b"\xff"
    if bound.key == MIN_NAME:
        return encoded
    near, exact = _near(bound.key)
    return encoded + near + (b"\0" if exact else b"\xff" * 17)


def _near(key: str) -> tuple[bytes, bool]:
    if key and as_integer(key) is not None:
        return rows.child_row(b"", key), True
    text = rows.text_bytes(key)
    return b"\x02" + text[:_KEY_PREFIX_BYTES], len(text) < _KEY_PREFIX_BYTES


def row(start: bytes, value: Stored, key: str) -> tuple[bytes, bytes]:
    """Return the LMDB key and value of the row of a child.

    Args:
        start: see `head`.
        value: the child's indexed value.
        key: the child's key.
    """
    encoded, exact = key_bytes(key)
    return start + value_bytes(value)[0] + encoded, b"" if exact else key.encode()


def parse(row_key: bytes, data: bytes) -> IndexRow:
    """Read a row."""
    end, exact = _value_end(row_key)
    key = data.decode() if data else rows.key_of(row_key, end)
    if not exact:
        return IndexRow(key, row_key[:end])
    if len(row_key) - end - 1 >= _KEY_PREFIX_BYTES:
        return IndexRow(key, row_key[: end + 1 + _KEY_PREFIX_BYTES])
    return IndexRow(key, None)


def _value_end(row_key: bytes) -> tuple[int, bool]:
    kind = row_key[HEAD_BYTES]
    if kind != TEXT:
        return HEAD_BYTES + 1 + _FIXED.get(kind, 0), True
    end = row_key.index(b"\0", HEAD_BYTES + 1)
    while row_key[end + 1] == 0xFF:
        end = row_key.index(b"\0", end + 2)
    return end + 2, row_key[end + 1] == 0
