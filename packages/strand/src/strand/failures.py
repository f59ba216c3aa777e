"""Convert the failure codes of the C base classes to Python errors."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from sennit_core.errors import Closed, Corrupt, SennitError, UnknownColumn, UsageError
from strand.errors import (
    CorruptRecord,
    PayloadTooLarge,
    RingExhausted,
    RoleInherited,
    StrandAbortError,
)
from strand.fields import FIELD_TYPES, StrandField

if TYPE_CHECKING:
    from strand.header import StrandMap

__all__ = ["Failing", "Failure"]

V5_PAYLOAD_MAX = 0xFFFF


class Failure(IntEnum):
    """The failure codes: enum strand_failure of `_native.h`, which documents each detail."""

    TOO_LARGE = 2
    ABORTED = 3
    EXHAUSTED = 4
    CORRUPT = 5
    RANGE = 6
    CLOSED = 16
    VALUE = 17
    NULL = 18
    RECORD = 19
    FIELD = 20
    TYPE = 21
    INTERN = 22
    TEXT = 23
    NO_RECORD = 24
    ORDER = 25
    BLOCKS = 26
    COUNT = 27
    ACKNOWLEDGE = 28


class Failing:
    """Mixin for writers and views: raises the failures that the C base classes report."""

    def _fail(self: Any, reason: int, position: int | None, detail: object) -> NoReturn:
        """Raise the error for an enum strand_failure; `position` is the field it is about."""
        if reason == Failure.CLOSED:
            noun = type(self).__name__
            if getattr(self, "_inherited", False):  # unset if it never opened
                raise RoleInherited(what=f"a {noun} inherited through fork")
            raise Closed(f"this {noun}")
        field = None if position is None else self.map.schema.fields[position]
        cause = detail if isinstance(detail, Exception) else None
        raise _ERRORS[reason](self, field, detail) from cause


class _Role(Protocol):
    map: StrandMap


class _Describe(Protocol):
    def __call__(self, role: Any, field: Any, detail: Any, /) -> SennitError: ...


def _too_large(role: _Role, field: StrandField | None, size: int) -> SennitError:
    if field is not None:
        return PayloadTooLarge(
            what=f"field {field.name!r} in a v5 ring",
            limit_bytes=V5_PAYLOAD_MAX,
            actual_bytes=size,
            hint="open the ring with version=6",
        )
    return PayloadTooLarge(
        limit_bytes=role.map.heap_bytes // 2,
        actual_bytes=size,
        hint="slice it, or open the ring with a larger heap: a record may use half of it",
    )


def _aborted(role: _Role, field: None, detail: object) -> SennitError:
    return StrandAbortError(reason="the consumer asked the producer to stop")


def _exhausted(role: _Role, field: None, detail: object) -> SennitError:
    return RingExhausted(
        "a v5 ring carries at most 2147483647 records", hint="open the ring with version=6"
    )


def _corrupt(role: _Role, field: StrandField | None, size: int) -> SennitError:
    if field is None:
        return Corrupt("the ring", found="a shared counter or heap pointer is impossible")
    item_bytes = field.facts.item_bytes
    if size % item_bytes:
        return _corrupt_value(role, field, f"elements of {item_bytes} bytes", f"{size} bytes")
    return _corrupt_value(role, field, "a payload inside the heap", f"{size} bytes")


def _corrupt_value(
    role: Any, field: StrandField, expected: str | None, found: str
) -> Corrupt | CorruptRecord:
    """Return the error for a value that cannot be decoded; it names the record if that is known."""
    what = f"field {field.name!r}"
    record = getattr(role, "_reading", None)
    if record is None:
        return Corrupt(what, expected, found)
    hint = f"acknowledge_read({record + 1}) skips this record; then iterate again"
    return CorruptRecord(what, expected, found, record=record, hint=hint)


def _range(role: _Role, field: None, seq: int) -> SennitError:
    return UsageError(f"record {seq} is not committed, or was acknowledged already")


def _value(role: _Role, field: StrandField, detail: object) -> SennitError:
    why = detail if isinstance(detail, Exception) else f"{_show(detail)} is not {_bounds(field)}"
    return UsageError(f"field {field.name!r} is {field.type}, and {why}")


def _null(role: _Role, field: StrandField, detail: None) -> SennitError:
    return UsageError(f"field {field.name!r} cannot be null")


def _record(role: _Role, field: None, record: Any) -> SennitError:
    names = role.map.schema.names
    wanted = f"a record has {len(names)} fields ({', '.join(names)})"
    if isinstance(record, tuple | list | Mapping):
        return UsageError(f"{wanted}, not {len(record)}")
    return UsageError(f"{wanted}: a tuple, list or mapping, not {type(record).__name__}")


def _field(role: _Role, field: None, name: object) -> SennitError:
    return UnknownColumn(str(name), role.map.schema.names)


def _type(role: _Role, field: StrandField, type_name: str) -> SennitError:
    return UsageError(
        f"field {field.name!r} is {field.type}: read it with {field.facts.getter}, "
        f"not {FIELD_TYPES[type_name].getter}"
    )


def _intern(role: _Role, field: StrandField, detail: str | int) -> SennitError:
    if isinstance(detail, str):
        return UsageError(
            f"field {field.name!r}: {detail!r} is not in the intern table",
            hint='open the ring with metadata={"intern": [...]}, or pass categories that contain it',
        )
    return _corrupt_value(role, field, "a handle in the intern table", f"handle {detail}")


def _text(role: _Role, field: StrandField, error: Exception) -> SennitError:
    return _corrupt_value(role, field, None, str(error))


def _no_record(role: _Role, field: None, seq: int) -> SennitError:
    if seq < 0:
        return UsageError("seek a record before reading it")
    return UsageError(f"record {seq} was acknowledged and may be overwritten")


def _order(role: Any, field: None, seq: int) -> SennitError:
    return UsageError(f"slot {role._sealed} is next to be committed, not {seq}")  # noqa: SLF001 - of its C base


def _blocks(role: _Role, field: None, detail: object) -> SennitError:
    return UsageError(
        "payloads need a block ring: open it with strand.BLOCKS",
        hint="typed records are written with write(), and read with a cursor or tuples()",
    )


def _count(role: _Role, field: None, count: int) -> SennitError:
    return UsageError(f"1 to {role.map.records} slots may be claimed at once, not {count}")


def _acknowledge(role: Any, field: None, upto: int) -> SennitError:
    return UsageError(
        f"cannot acknowledge up to {upto}: {role.acknowledged_count} are acknowledged "
        f"and {role.committed_count} committed"
    )


_ERRORS: Mapping[int, _Describe] = {
    Failure.TOO_LARGE: _too_large,
    Failure.ABORTED: _aborted,
    Failure.EXHAUSTED: _exhausted,
    Failure.CORRUPT: _corrupt,
    Failure.RANGE: _range,
    Failure.VALUE: _value,
    Failure.NULL: _null,
    Failure.RECORD: _record,
    Failure.FIELD: _field,
    Failure.TYPE: _type,
    Failure.INTERN: _intern,
    Failure.TEXT: _text,
    Failure.NO_RECORD: _no_record,
    Failure.ORDER: _order,
    Failure.BLOCKS: _blocks,
    Failure.COUNT: _count,
    Failure.ACKNOWLEDGE: _acknowledge,
}


def _bounds(field: StrandField) -> str:
    """Describe the range of an integer or f32 field."""
    if field.facts.limits is None:
        return "within the range of 32 bits (3.4e38)"
    least, most = field.facts.limits
    return f"from {least} to {most}"


def _show(number: object) -> str:
    try:
        text = repr(number)
    except ValueError:  # more digits than Python prints
        return "a number of many digits"
    return text if len(text) <= 40 else f"{text[:37]}..."
