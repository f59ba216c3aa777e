"""Typed records to slot bytes and back, one field at a time.

A record is encoded completely before anything is claimed, so a value that does not fit its field
leaves the ring as it was.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from sennit_core.errors import Corrupt, UnknownColumn, UsageError
from strand.errors import PayloadTooLarge
from strand.layout import Header
from strand.schema import FieldType, StrandField

__all__ = ["Encoded", "RowDecoder", "RowEncoder"]

Encoded = list[tuple[int, bytes | memoryview]]
"""The fields that are present: position and bytes (slot bytes, or the payload for the heap)."""

V5_PAYLOAD_MAX = 0xFFFF
_POINTER_V5 = struct.Struct("<IH")
_POINTER_V6 = struct.Struct("<QII")


class RowEncoder:
    """Turns tuples and mappings into field bytes for one ring."""

    def __init__(self, header: Header) -> None:
        """Prepare for the schema and version of `header`."""
        self._header = header
        self._schema = header.schema
        self._intern = {text: at for at, text in enumerate(header.metadata.get("intern", ()))}
        self._limit = header.heap_bytes // 2

    def encode(self, record: Sequence[Any] | Mapping[str, Any]) -> Encoded:
        """Encode one record.

        Raises:
            UsageError: a value of the wrong type, a null where none may be, a wrong field count.
            UnknownColumn: a mapping names a field the schema does not have.
            PayloadTooLarge: more than one record may carry.
        """
        encoded: Encoded = []
        heap_bytes = 0
        values = self._values(record)
        for at, (field, value) in enumerate(zip(self._schema.fields, values, strict=True)):
            if value is None:
                if not field.nullable:
                    raise UsageError(f"field {field.name!r} cannot be null")
                continue
            data = self._encode_value(field, value)
            encoded.append((at, data))
            if field.kind.heap and data:
                heap_bytes += self._check_payload(field, len(data))
        if heap_bytes > self._limit:
            raise PayloadTooLarge(limit_bytes=self._limit, actual_bytes=heap_bytes)
        return encoded

    def pointer(self, offset: int, size: int) -> bytes:
        """Return the heap pointer for a payload at monotonic `offset`."""
        if self._header.version == 5:
            return _POINTER_V5.pack(offset & 0xFFFFFFFF, size)
        return _POINTER_V6.pack(offset, size, 0)

    def _values(self, record: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
        names = self._schema.names
        if isinstance(record, Mapping):
            for name in record:
                if name not in self._schema.index:
                    raise UnknownColumn(name, names)
            return [record.get(name) for name in names]
        if len(record) != len(names):
            raise UsageError(
                f"a record has {len(names)} fields ({', '.join(names)}), not {len(record)}"
            )
        return record

    def _encode_value(self, field: StrandField, value: Any) -> bytes | memoryview:
        kind = field.kind
        try:
            if kind.heap:
                return _encode_payload(kind, value)
            if field.type == "bool8":
                return b"\1" if value else b"\0"
            if field.type == "utf8_ref" and isinstance(value, str):
                value = self._intern[value]
            return struct.pack("<" + kind.code, value)
        except KeyError:
            raise UsageError(
                f"field {field.name!r}: {value!r} is not in the intern table"
            ) from None
        except (struct.error, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"field {field.name!r} is {kind.name}, and {error}") from error

    def _check_payload(self, field: StrandField, size: int) -> int:
        if self._header.version == 5 and size > V5_PAYLOAD_MAX:
            raise PayloadTooLarge(
                what=f"field {field.name!r} in a v5 ring",
                limit_bytes=V5_PAYLOAD_MAX,
                actual_bytes=size,
            )
        return size + field.kind.heap_align_in(self._header.version) - 1


class RowDecoder:
    """Reads fields out of slots of one ring; the caller knows that the slot is committed."""

    def __init__(self, header: Header, memory: memoryview) -> None:
        """Prepare for `header`; `memory` is the whole segment."""
        self._memory = memory
        self._version = header.version
        self._fields = header.schema.fields
        self._offsets = header.slots.offsets
        self._null_bits = header.schema.null_bits
        self._heap_start = header.heap_start
        self._heap_bytes = header.heap_bytes
        self._intern: Sequence[str] = header.metadata.get("intern", ())

    def decode(self, slot: int, at: int) -> Any:
        """Return the value of field number `at` in the slot at byte offset `slot`.

        Strings and JSON are decoded, `bytes` and array fields are read-only views into the ring.

        Raises:
            Corrupt: a heap pointer leaves the heap, or text does not decode.
        """
        bit = self._null_bits[at]
        if bit is not None and not self._memory[slot + bit // 8] >> (bit & 7) & 1:
            return None
        field = self._fields[at]
        where = slot + self._offsets[at]
        if field.kind.heap:
            return self._decode_payload(field, where)
        value = struct.unpack_from("<" + field.kind.code, self._memory, where)[0]
        if field.type == "bool8":
            return value != 0
        if field.type == "utf8_ref" and self._intern:
            return self._resolve(field, value)
        return value

    def _decode_payload(self, field: StrandField, where: int) -> Any:
        if self._version == 5:
            offset, size = _POINTER_V5.unpack_from(self._memory, where)
        else:
            offset, size, _ = _POINTER_V6.unpack_from(self._memory, where)
        physical = offset & (self._heap_bytes - 1)
        if size and physical + size > self._heap_bytes:
            raise Corrupt(f"field {field.name!r}", "a payload inside the heap", f"{size} bytes")
        start = self._heap_start + physical if size else self._heap_start
        payload = self._memory[start : start + size].toreadonly()
        try:
            if field.type == "utf8":
                return str(payload, "utf-8")
            if field.type == "json":
                return json.loads(bytes(payload))
        except ValueError as error:
            raise Corrupt(f"field {field.name!r}", found=str(error)) from error
        if field.type == "i32_array":
            return payload.cast("i")
        return payload.cast("f") if field.type == "f32_array" else payload

    def _resolve(self, field: StrandField, handle: int) -> str:
        if handle >= len(self._intern):
            found = f"handle {handle} of {len(self._intern)}"
            raise Corrupt(f"field {field.name!r}", "a handle in the intern table", found)
        return self._intern[handle]


def _encode_payload(kind: FieldType, value: Any) -> bytes | memoryview:
    if kind.name == "utf8":
        if not isinstance(value, str):
            raise TypeError(f"{type(value).__name__} is not a str")
        return value.encode()
    if kind.name == "json":
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    if kind.name == "bytes":
        return memoryview(value).cast("B")
    try:
        view = memoryview(value)
    except TypeError:
        return memoryview(array(kind.code, value)).cast("B")
    if view.format.lstrip("<=@") != kind.code or view.ndim != 1:
        raise TypeError(f"the buffer holds {view.format!r}, not {kind.code!r}")
    return memoryview(view.tobytes())
