"""Write Avro object container files: what Iceberg's manifests are made of, and no more.

Format: Apache Avro 1.12, "Binary Encoding" and "Object Container Files", without compression.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

__all__ = ["container"]

_MAGIC = b"Obj\x01"


def container(schema: Mapping[str, Any], metadata: Mapping[str, str], rows: Iterable[Any]) -> bytes:
    """Return a file with these rows.

    Args:
        schema: Of a row; a record.
        metadata: Written into the header.
        rows: A dict for each record, with all its fields; None for an optional value that is absent.
    """
    header = {"avro.schema": json.dumps(schema), "avro.codec": "null", **metadata}
    encoded = [_encode(schema, row) for row in rows]
    block = b"".join(encoded)
    # Any 16 bytes that do not occur by chance; a hash, so that equal rows are equal files.
    sync = sha256(block).digest()[:16]
    pieces = [_MAGIC, _map(header), sync]
    if encoded:
        pieces += [_long(len(encoded)), _long(len(block)), block, sync]
    return b"".join(pieces)


def _map(values: Mapping[str, str]) -> bytes:
    items = b"".join(_text(key) + _text(value) for key, value in values.items())
    return _long(len(values)) + items + _long(0)


def _long(value: int) -> bytes:
    """Return a number in zigzag form, base 128, the low digits first."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _bytes(value: bytes) -> bytes:
    return _long(len(value)) + value


def _text(value: str) -> bytes:
    return _bytes(value.encode())


_PLAIN: Mapping[str, Callable[[Any], bytes]] = {
    "null": lambda _: b"",
    "boolean": lambda value: struct.pack("<?", value),
    "int": _long,
    "long": _long,
    "bytes": _bytes,
    "string": _text,
}


def _encode(schema: Any, value: Any) -> bytes:
    if isinstance(schema, list):  # an optional value: ["null", type]
        return _long(0) if value is None else _long(1) + _encode(schema[1], value)
    if isinstance(schema, str):
        return _PLAIN[schema](value)
    if schema["type"] == "record":
        return b"".join(_encode(each["type"], value[each["name"]]) for each in schema["fields"])
    if schema["type"] in _PLAIN:  # a type with a meaning, such as a date
        return _PLAIN[schema["type"]](value)
    assert schema["type"] == "array", schema
    items = b"".join(_encode(schema["items"], item) for item in value)
    return (_long(len(value)) + items if value else b"") + _long(0)
