"""Protocol Buffers for messages that are declared as dataclasses.

Flight SQL needs thirty small messages and no other feature of Protocol Buffers, so a generated
module with its runtime would be a dependency for a hundred lines. A message is a frozen dataclass
whose members name their field numbers:

    @dataclass(frozen=True)
    class CommandGetDbSchemas:
        catalog: str | None = member(1, TEXT)
        pattern: str | None = member(2, TEXT)

Unknown fields are skipped, and of a repeated singular field the last value counts, as the
specification asks (protobuf.dev/programming-guides/encoding). Groups, packed floats and maps are
absent: no message of Flight SQL that a server reads has any, except one map, which is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from sennit_core.errors import BadInput

__all__ = ["BOOL", "BYTES", "INT", "TEXT", "Kind", "decode", "encode", "member", "message"]

T = TypeVar("T")

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10
_VALUES_MAX = 10_000
"""Values of a message; a request of Flight SQL has at most some tens (ids of GetSqlInfo)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a member: its wire type, and for a message its class."""

    wire: int
    name: str
    message: type | None = None


INT = Kind(_VARINT, "int")
BOOL = Kind(_VARINT, "bool")
BYTES = Kind(_BYTES, "bytes")
TEXT = Kind(_BYTES, "text")


def message(cls: type) -> Kind:
    """Return the kind of a member that is itself a message."""
    return Kind(_BYTES, cls.__name__, cls)


def member(number: int, kind: Kind, *, repeated: bool = False) -> Any:
    """Declare a member; an absent one is None, or an empty tuple if it is repeated."""
    default: Any = () if repeated else None
    return field(default=default, metadata={"number": number, "kind": kind, "repeated": repeated})


def encode(value: Any) -> bytes:
    """Return the bytes of a message; members that are None are absent."""
    pieces: list[bytes] = []
    for each in fields(value):
        number, kind = each.metadata["number"], each.metadata["kind"]
        found = getattr(value, each.name)
        items = found if each.metadata["repeated"] else () if found is None else (found,)
        for item in items:
            pieces.append(varint(number << 3 | kind.wire))
            pieces.append(_encoded(kind, item))
    return b"".join(pieces)


def decode(cls: type[T], data: bytes) -> T:
    """Read a message.

    Raises:
        BadInput: The bytes are not such a message.
    """
    members = {each.metadata["number"]: each for each in fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for count, (number, wire, raw, at) in enumerate(_raw_fields(cls, data)):
        if count >= _VALUES_MAX:
            raise _bad(cls, at, f"it has more than {_VALUES_MAX} values")
        found = members.get(number)
        if found is None:
            continue
        decoded = _decoded(cls, found.metadata["kind"], wire, raw, at)
        if found.metadata["repeated"]:
            values.setdefault(found.name, []).extend(decoded)
        elif decoded:
            values[found.name] = decoded[-1]
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def varint(value: int) -> bytes:
    """Return a number in base 128, the low digits first; a negative one as its 64-bit complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encoded(kind: Kind, item: Any) -> bytes:
    if kind.wire == _VARINT:
        return varint(int(item))
    if kind.message is not None:
        raw = encode(item)
    else:
        raw = item.encode() if kind is TEXT else bytes(item)
    return varint(len(raw)) + raw


def _decoded(cls: type, kind: Kind, wire: int, raw: Any, at: int) -> list[Any]:
    """Return the values of one field; several if its numbers are packed."""
    if kind.wire == _VARINT and wire == _BYTES:
        numbers, position = [], 0
        while position < len(raw):
            number, position = _read_varint(cls, raw, position)
            numbers.append(number)
        if len(numbers) > _VALUES_MAX:
            raise _bad(cls, at, f"it has more than {_VALUES_MAX} values")
        return [_number(kind, number) for number in numbers]
    if wire != kind.wire:
        raise _bad(cls, at, f"a field of wire type {wire} instead of {kind.name}")
    if kind.wire == _VARINT:
        return [_number(kind, raw)]
    if kind.message is not None:
        return [decode(kind.message, raw)]
    try:
        return [raw.decode() if kind is TEXT else raw]
    except UnicodeDecodeError:
        raise _bad(cls, at, "a text that is not UTF-8") from None


def _number(kind: Kind, value: int) -> int | bool:
    if kind is BOOL:
        return bool(value)
    return value - (1 << 64) if value >> 63 else value


def _raw_fields(cls: type, data: bytes) -> Iterator[tuple[int, int, Any, int]]:
    """Yield number, wire type, value and offset of each field."""
    position = 0
    while position < len(data):
        start = position
        tag, position = _read_varint(cls, data, position)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == _VARINT:
            value, position = _read_varint(cls, data, position)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
            if wire == _BYTES:
                size, position = _read_varint(cls, data, position)
            if not 0 <= size <= len(data) - position:
                raise _bad(cls, start, f"a field of wire type {wire} that is cut off or unknown")
            value, position = data[position : position + size], position + size
        if not number:
            raise _bad(cls, start, "a field without a number")
        yield number, wire, value, start


def _read_varint(cls: type, data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        if position + index >= len(data):
            break
        digit = data[position + index]
        value |= (digit & 0x7F) << 7 * index
        if digit < 0x80:
            return value & (1 << 64) - 1, position + index + 1
    raise _bad(cls, position, "a number that does not end")


def _bad(cls: type, at: int, reason: str) -> BadInput:
    return BadInput(what=f"the message {cls.__name__}", byte_offset=at, reason=reason)
