"""Bytes of one row: how a child's key becomes an LMDB key and its value an LMDB value.

Row key: the parent's node id (8 bytes, big-endian), then the encoded key of the child:

    0x01, int32 + 2^31 big-endian      a canonical integer
    0x02, UTF-8                        any other key of up to SHORT_BYTES_MAX bytes
    0x02, 470 bytes of it, SHA-256[16] a longer key; LMDB keys end at 511 bytes, Firebase's at 768

so a cursor walks children in Firebase's order (longer keys are sorted after reading). Row value: a
tag byte, for longer keys their length (2 bytes) and UTF-8, then the payload:

    0x01 packed: MessagePack of the whole subtree      0x02 branch: the node id (8 bytes)
    + 0x80 when the true key follows the tag
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import ormsgpack

from elkyn.paths import as_integer
from elkyn.values import Stored

__all__ = ["ROOT_ROW", "SHORT_BYTES_MAX", "Row", "child_row", "pack_branch", "pack_value", "unpack"]

SHORT_BYTES_MAX = 480
_PREFIX_BYTES = 470
_PACKED, _BRANCH, _LONG = 0x01, 0x02, 0x80
_NODE = struct.Struct(">Q")
_INTEGER = struct.Struct(">QBI")

ROOT_ROW = _NODE.pack(0) + b"\x00"
"""The row of the tree itself: child of no node."""


class Row(NamedTuple):
    """A row read back: the child's key (None when the row key holds it), and one of the two."""

    key: str | None
    packed: memoryview | None
    branch: int


def node_prefix(node: int) -> bytes:
    """Return what the keys of all rows of `node` start with."""
    return _NODE.pack(node)


def child_row(node: int, key: str) -> bytes:
    """Return the LMDB key of the child `key` of `node`."""
    number = as_integer(key)
    if number is not None:
        return _INTEGER.pack(node, 0x01, number + 2**31)
    text = key.encode()
    if len(text) > SHORT_BYTES_MAX:
        text = text[:_PREFIX_BYTES] + hashlib.sha256(text).digest()[:16]
    return _NODE.pack(node) + b"\x02" + text


def key_of(row_key: bytes) -> str:
    """Return the child's key that a row key holds (not for longer keys: those stand in `Row`)."""
    if row_key[8] == 0x01:
        return str(int.from_bytes(row_key[9:13], "big") - 2**31)
    return row_key[9:].decode()


def is_long(key: str) -> bool:
    """Whether the row of `key` carries the true key in its value."""
    return len(key) > SHORT_BYTES_MAX // 4 and len(key.encode()) > SHORT_BYTES_MAX


def pack_value(key: str, packed: bytes) -> bytes:
    """Return the row value of a subtree that is already MessagePack."""
    return _head(key, _PACKED) + packed


def pack_branch(key: str, node: int) -> bytes:
    """Return the row value of a child whose children have rows of their own."""
    return _head(key, _BRANCH) + _NODE.pack(node)


def _head(key: str, tag: int) -> bytes:
    if not is_long(key):
        return bytes((tag,))
    text = key.encode()
    return bytes((tag | _LONG,)) + len(text).to_bytes(2, "big") + text


def unpack(data: bytes) -> Row:
    """Read a row value."""
    tag, start, key = data[0], 1, None
    if tag & _LONG:
        start = 3 + int.from_bytes(data[1:3], "big")
        key = data[3:start].decode()
    payload = memoryview(data)[start:]
    if tag & ~_LONG == _BRANCH:
        return Row(key, None, int.from_bytes(payload, "big"))
    return Row(key, payload, 0)


def pack(value: Stored) -> bytes:
    """Return MessagePack of a stored form."""
    return ormsgpack.packb(value)


def unpack_value(packed: memoryview | bytes) -> Stored:
    """Return the stored form in a packed row."""
    return ormsgpack.unpackb(packed)
