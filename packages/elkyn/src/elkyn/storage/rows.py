"""The encoding of tree rows: a child's key as LMDB key and its value as LMDB value.

Row key: the node of the parent, then the encoded key of the child:

    0x01, int32 + 2^31 big-endian      a canonical integer
    0x01, the same, length (2 bytes)   an integer with leading zeros; 0x01 after that for "-0", "-00"
    0x02, text                         any other key of up to SHORT_BYTES_MAX bytes
    0x02, 470 bytes of it, SHA-256[16] a longer key; LMDB keys have up to 511 bytes, Firebase's 768

Text is UTF-8, but a character above U+FFFF is its two surrogates, three bytes each (CESU-8): bytes
then sort like UTF-16 units. Stores of formats 1 and 2 hold such characters, and integers with
leading zeros, as UTF-8 text after 0x02; `key_order` rewrites those rows.

so a cursor visits children in Firebase's order (longer keys are sorted after reading). A node is a
big-endian number of 1 to 7 bytes, preceded by its length, or 8 bytes without a length in rows of older
stores: no node is a prefix of another one. Row value: a tag byte, for longer keys their length (2 bytes)
and UTF-8, then the payload:

    0x01 packed: MessagePack of the whole subtree      0x02 branch: the node
    0x03 folded: the same, maps of known shapes as arrays (`shapes`)
    0x04 flat: a folded map of scalars
    0x10 to 0x7f shaped: the values of a map of scalars of shape 0 to 111, an array without header
    + 0x80 when the true key follows the tag

Some rows of a tree that is too large for one row, in the order of LMDB (hex, and text in quotes).
The root is node 1, `users` node 2; `ann` was written before the shape of its map was known, `bob`
after:

    row key                      row value
    00 × 9                       02 01 01                    the root: a branch, node 1
    01 01  02 "users"            02 01 02                    a branch, node 2
    01 01  02 "version"          01 03                       packed: 3
    01 02  02 "ann"              01 81 a3 "age" 1e           packed: {"age": 30}
    01 02  02 "bob"              10 1f                       shape 0: [31]
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import ormsgpack

from elkyn.tree.paths import as_integer, is_canonical, padding_of, utf16_order
from elkyn.tree.values import Stored

__all__ = ["ROOT_ROW", "SHORT_BYTES_MAX", "Row", "child_row", "pack_branch", "pack_value", "unpack"]

# With the node (8 bytes at most) and the type byte a row key stays below LMDB's 511 bytes.
SHORT_BYTES_MAX = 480
_PREFIX_BYTES = 470
PACKED, BRANCH, FOLDED, FLAT, SHAPED = 0x01, 0x02, 0x03, 0x04, 0x10
LONG = 0x80
# A character has at most 6 bytes in CESU-8: two surrogates of 3 bytes each.
_SURELY_SHORT = SHORT_BYTES_MAX // 6  # characters
# Made once: nearly every row value begins with one of them.
_TAGS = tuple(bytes((tag,)) for tag in range(LONG))
_COPIED_MAX = 4096  # up to this size a copy of a payload is cheaper than a view of it
_INTEGER = struct.Struct(">BI")

ROOT_ROW = bytes(9)
"""The row of the tree's root, which has no parent node."""


class Row(NamedTuple):
    """A decoded row: the child's key (None when the row key holds it), the tag and the payload."""

    key: str | None
    tag: int
    payload: memoryview | bytes


def node_of(number: int) -> bytes:
    """Return the node with a number of 1 or more: the prefix of its rows' keys."""
    size = (number.bit_length() + 7) // 8
    return size.to_bytes(1, "big") + number.to_bytes(size, "big")


def number_of(node: bytes) -> int:
    """Return the number of a node."""
    return int.from_bytes(node[1:], "big")


def node_bytes(row_key: bytes) -> int:
    """Return the length of the node in a row key."""
    return 1 + row_key[0] if row_key[0] else 8


def child_row(node: bytes, key: str) -> bytes:
    """Return the LMDB key of the child `key` of `node`."""
    number = as_integer(key) if key[0] <= "9" else None
    if number is not None:
        return node + _integer_bytes(key, number)
    text = text_bytes(key)
    if len(text) > SHORT_BYTES_MAX:
        text = text[:_PREFIX_BYTES] + hashlib.sha256(key.encode()).digest()[:16]
    return node + b"\x02" + text


def _integer_bytes(key: str, number: int) -> bytes:
    # The offset makes negative integers sort before positive ones.
    encoded = _INTEGER.pack(0x01, number + 2**31)
    if is_canonical(key):
        return encoded
    length, is_minus_zero = padding_of(key, number)
    return encoded + length.to_bytes(2, "big") + b"\x01" * is_minus_zero


def text_bytes(key: str) -> bytes:
    """Encode a key, or any other text, so that the bytes sort like its UTF-16 units."""
    return utf16_order(key).encode("utf-8", "surrogatepass")


def _text(encoded: bytes) -> str:
    if b"\xed" not in encoded:  # the first byte of every encoded surrogate
        return encoded.decode()
    text = encoded.decode("utf-8", "surrogatepass")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def first_row(node: bytes, key: str | None) -> bytes:
    """Return the start of the rows of `node` at or after `key`, which may be any text."""
    return node if key is None else node + _near(key)[0]


def row_beyond(node: bytes, key: str | None) -> bytes:
    """Return the end of the rows of `node` at or before `key`, which may be any text."""
    if key is None:
        return node + b"\xff"
    near, exact = _near(key)
    # An exact key is followed by a zero, so that its own row is included; a prefix by more than the
    # 16 bytes of a hash.
    return node + near + (b"\0" if exact else b"\xff" * 17)


def _near(key: str) -> tuple[bytes, bool]:
    if key and as_integer(key) is not None:
        return child_row(b"", key), True
    text = text_bytes(key)
    return b"\x02" + text[:_PREFIX_BYTES], len(text) < _PREFIX_BYTES


def long_prefix(row_key: bytes, start: int) -> bytes | None:
    """Return the common prefix of long keys, whose rows may be out of order; None for others."""
    end = start + 1 + _PREFIX_BYTES
    return row_key[:end] if len(row_key) >= end else None


def key_of(row_key: bytes, start: int) -> str:
    """Return the child's key in a row key (a longer key is in the row value, see `Row`).

    Args:
        row_key: the key of the row.
        start: the length of the node in it.
    """
    if row_key[start] == 0x01:
        number = int.from_bytes(row_key[start + 1 : start + 5], "big") - 2**31
        padding = row_key[start + 5 :]
        return _padded(number, padding) if padding else str(number)
    return _text(row_key[start + 1 :])


def _padded(number: int, padding: bytes) -> str:
    # The third byte of the padding is the mark of "-0" and "-00".
    sign = "-" if number < 0 or len(padding) == 3 else ""
    digits = int.from_bytes(padding[:2], "big") - len(sign)
    return sign + str(abs(number)).zfill(digits)


def is_long(key: str) -> bool:
    """Whether the row of `key` has the full key in its value."""
    return len(key) > _SURELY_SHORT and len(text_bytes(key)) > SHORT_BYTES_MAX


def pack_value(key: str, packed: bytes, tag: int = PACKED) -> bytes:
    """Return the row value of a subtree that is packed as MessagePack."""
    return _head(key, tag) + packed


def pack_branch(key: str, node: bytes) -> bytes:
    """Return the row value of a child whose children have rows of their own."""
    return _head(key, BRANCH) + node


def _head(key: str, tag: int) -> bytes:
    if len(key) <= _SURELY_SHORT or not is_long(key):
        return _TAGS[tag]
    text = key.encode()
    return bytes((tag | LONG,)) + len(text).to_bytes(2, "big") + text


def unpack(data: bytes) -> Row:
    """Read a row value."""
    tag = data[0]
    if tag < LONG:
        return Row(None, tag, data[1:] if len(data) <= _COPIED_MAX else memoryview(data)[1:])
    start = 3 + int.from_bytes(data[1:3], "big")
    return Row(data[3:start].decode(), tag & ~LONG, memoryview(data)[start:])


def is_branch(data: bytes) -> bool:
    """Whether a row value is a branch."""
    return data[0] & ~LONG == BRANCH


def node_in(data: bytes) -> bytes | None:
    """Return the node of a branch from its row value, None for any other row."""
    if data[0] == BRANCH:
        return data[1:]
    return bytes(unpack(data).payload) if data[0] == BRANCH | LONG else None


def pack(value: Stored) -> bytes:
    """Return MessagePack of a stored form."""
    return ormsgpack.packb(value)


def unpack_value(packed: memoryview | bytes) -> Stored:
    """Unpack a packed row's payload: the stored form, or its folded form if the tag says so."""
    return ormsgpack.unpackb(packed)
