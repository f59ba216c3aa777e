"""The hash of a value as the client SDKs compute it: transactions compare it, and it is the ETag.

SHA-1 in base64 over `type:value` of a leaf (numbers as IEEE 754 in hex), over `:key:hash` of the
children in the order of their priorities, each with `priority:` in front where there is one. As
clients know one kind of number, 1 and 1.0 hash alike.
"""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from hashlib import sha1

from elkyn.tree.paths import order_key, utf16_order
from elkyn.tree.values import Stored

__all__ = ["NULL_ETAG", "etag_of", "hash_of"]

NULL_ETAG = "null_etag"
"""The etag of an absent value: with it, a conditional write requires that no value exists."""

_LN2 = math.log(2)
_MANTISSA = (1 << 52) - 1


def etag_of(value: Stored) -> str:
    """Return the tag of a stored form: its hash, or `null_etag`."""
    return NULL_ETAG if value is None else hash_of(value)


def hash_of(value: Stored) -> str:
    """Return the hash of a stored form; empty for an absent value."""
    if value is None:
        return ""
    text = _text_of(value)
    return b64encode(sha1(text.encode(), usedforsecurity=False).digest()).decode()


def _text_of(value: Stored) -> str:
    if type(value) is not dict:
        return _leaf(value)
    priority = value.get(".priority")
    front = "" if priority is None else f"priority:{_scalar(priority)}:"
    if ".value" in value:
        return front + _leaf(value[".value"])
    children = [(key, child) for key, child in value.items() if key != ".priority"]
    # Without priorities the children are in the order of their keys already, as they are stored.
    if any(type(child) is dict and ".priority" in child for _key, child in children):
        children.sort(key=_by_priority)
    return front + "".join([f":{key}:{hash_of(child)}" for key, child in children])


def _by_priority(item: tuple[str, Stored]) -> tuple[int, float, str, tuple[int, int, str]]:
    key, child = item
    priority = child.get(".priority") if type(child) is dict else None
    # Firebase's order of priorities: none, then numbers, then text; equal ones by key.
    if priority is None:
        return (0, 0.0, "", order_key(key))
    if isinstance(priority, str):
        return (2, 0.0, utf16_order(priority), order_key(key))
    return (1, float(priority), "", order_key(key))


def _leaf(value: Stored) -> str:
    kind = type(value)
    if kind is str:
        return f"string:{value}"
    if kind is bool:
        return "boolean:true" if value else "boolean:false"
    return f"number:{_number(value)}"


def _scalar(value: Stored) -> str:
    return f"string:{value}" if type(value) is str else f"number:{_number(value)}"


def _number(value: float) -> str:
    number = float(value)
    # The SDKs build the IEEE 754 bits in JavaScript, by arithmetic. It equals the machine's bits
    # except where the logarithm is inexact: at and just below powers of two.
    bits: int = struct.unpack(">Q", struct.pack(">d", number))[0]
    mantissa = bits & _MANTISSA
    if (mantissa == 0 or mantissa >> 14 == _MANTISSA >> 14) and abs(number) >= 2.0**-1022:
        return _number_by_logarithm(number)
    return f"{bits:016x}"


def _number_by_logarithm(number: float) -> str:
    # The SDKs compute the exponent by a logarithm, which is off by one at some powers of two and just
    # below them; the hash must equal theirs, or a transaction on such a number would never succeed.
    size = abs(number)
    exponent = min(math.floor(math.log(size) / _LN2), 1023)
    try:
        fraction = math.floor(size * 2.0 ** (52 - exponent) - 2.0**52 + 0.5)
    except OverflowError:
        fraction = 0
    low = fraction & _MANTISSA
    return f"{(number < 0) << 63 | (exponent + 1023) << 52 | low:016x}"
