"""JSON Lines, one JSON value per line: split into blocks, parse lines, infer types. Without Arrow.

The types of a sample are merged by one rule. Numbers become the first of Int64, UInt64,
Decimal(38,0) and Float64 that holds all of them. NULL fits any type. Objects have the members of
all objects. Text is Date or Timestamp if all of it has that format. All other mixtures are Utf8, in
which a value that is not a string is its JSON text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emsqrt.io.bad_rows import POLICIES
from emsqrt.io.records import LOOK_AHEAD, LOOK_AHEAD_BYTES, ByteStream, RecordBlock, RecordTooLong
from emsqrt.io.sources import ByteSource
from sennit_core.errors import BadInput, UsageError, nearest
from sennit_core.schema import DataType, Field, Schema
from sennit_core.units import format_bytes, parse_bytes

_NAMES = {"recordBytesMax": "record_bytes_max", "badRows": "bad_rows", "rejectFile": "reject_file"}
_DATE = re.compile(r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)")
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d"
_INSTANT = re.compile(
    _DATE.pattern + rf"[T ]{_CLOCK}(\.\d{{1,9}})?(?P<zone>Z|[+-]([01]\d|2[0-3]):?[0-5]\d)?"
)
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
_DECIMAL, _DECIMAL_DIGITS = "Decimal(38,0)", 38
_NUMBERS = {"Int64", "UInt64", _DECIMAL, "Float64"}
_MARK = b"\xef\xbb\xbf"
_DEPTH_MAX = 32
"""The deepest nesting of inferred types; deeper values are text."""
_FIRST_LINE_BYTES_MAX = 32 << 20
_CAP_SHARE = 64


@dataclass(frozen=True, slots=True)
class JsonlOptions:
    """A plan's `options` for JSON Lines files.

    Args:
        record_bytes_max: the longest line accepted; None derives it from the memory budget.
        bad_rows: "fail", "null" or "reject", as for CSV.
        reject_file: the file for rejected lines, as for CSV.
    """

    record_bytes_max: int | None = None
    bad_rows: str = "fail"
    reject_file: str | None = None

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> JsonlOptions:
        """Read the plan's JSON options (camelCase); an unknown one is a `UsageError`."""
        values: dict[str, Any] = {}
        for name, value in options.items():
            if name not in _NAMES:
                guess = nearest(name, tuple(_NAMES))
                raise UsageError(
                    f"JSON Lines has no option {name!r}; it has {', '.join(_NAMES)}",
                    hint=f'did you mean "{guess}"?' if guess else None,
                )
            values[_NAMES[name]] = value
        if values.get("record_bytes_max") is not None:
            values["record_bytes_max"] = parse_bytes(values["record_bytes_max"])
        if values.get("bad_rows", "fail") not in POLICIES:
            raise UsageError(f"badRows is one of {', '.join(POLICIES)}")
        return cls(**values)


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def split_lines(
    stream: ByteStream, *, block_bytes: int, record_bytes_max: int, what: str
) -> Iterator[RecordBlock]:
    """Yield the stream as blocks of whole lines, the last one with or without a line feed.

    A byte order mark at the start is skipped.

    Raises:
        RecordTooLong: a line is longer than `record_bytes_max`; `byte_offset` is its start.
    """
    buffer, held, offset, ended = bytearray(block_bytes), 0, 0, False
    while not ended:
        if held == len(buffer):
            if held >= record_bytes_max:
                raise RecordTooLong(
                    what,
                    record_bytes=_line_bytes(stream, buffer),
                    byte_offset=offset,
                    reason=f"the line that starts here is over {format_bytes(record_bytes_max)}",
                    hint="JSON Lines has one value per line; reformat a document of many lines",
                )
            larger = bytearray(min(held * 2, record_bytes_max))
            larger[:held] = buffer
            buffer = larger
        with memoryview(buffer) as view:
            count = stream.readinto(view[held:]) or 0
        held, ended = held + count, count == 0
        cut = held if ended else buffer.rfind(b"\n", 0, held) + 1
        if cut == 0:
            continue
        start = len(_MARK) if offset == 0 and buffer.startswith(_MARK) else 0
        with memoryview(buffer) as view, view[start:cut] as data:
            yield RecordBlock(offset + start, data)
        buffer[: held - cut] = buffer[cut:held]
        offset, held = offset + cut, held - cut


def _line_bytes(stream: ByteStream, buffer: bytearray) -> int | None:
    """Return the length of the line that fills `buffer`; None if its end is not nearby."""
    before, count = 0, len(buffer)
    while before < max(LOOK_AHEAD_BYTES, LOOK_AHEAD * len(buffer)):
        found = buffer.find(b"\n", 0, count) + 1
        if found or count == 0:
            return before + found
        before += count
        with memoryview(buffer) as view:
            count = stream.readinto(view) or 0
    return None


def parse_line(line: bytes) -> dict[str, Any] | str:
    """Return the object in a line, numbers as `Number`; or the error in the line."""
    try:
        value = json.loads(line, parse_int=Number, parse_float=Number, parse_constant=Number)
    except UnicodeDecodeError:
        return "this is not UTF-8"
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(value, dict):
        return f"not an object: {line[:40].decode(errors='replace')!r}"
    return value


def lines_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and text of each line that is not blank."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        if (line := data[start:end]).strip():
            yield start, line
        start = end


def first_lines(source: ByteSource, size: int, cap_bytes: int | None = None) -> bytes:
    """Return the whole lines at a source's start, without a byte order mark.

    A first line may be longer than `size`: up to 32 MiB and, with a cap, up to a 64th of the cap,
    because its parsed values need up to 40 times the memory.

    Args:
        source: the source of lines.
        size: how many bytes of it to read.
        cap_bytes: the run's memory cap; None if there is none.

    Raises:
        BadInput: the first line alone is longer.
    """
    most = _FIRST_LINE_BYTES_MAX
    longest = max(size, most if cap_bytes is None else min(most, cap_bytes // _CAP_SHARE))
    hint = "set a schema; JSON Lines has one value per line, so reformat a document of many lines"
    if longest < most:
        hint = f"use a larger cap, {_CAP_SHARE} times the line, or {hint}"
    while len(sample := source.peek(size)) == size:
        if end := sample.rfind(b"\n") + 1:
            return sample[:end]
        if size >= longest:
            raise BadInput(
                source.name,
                line=1,
                byte_offset=0,
                reason=f"the first line is over {format_bytes(size)}, too long to infer columns",
                hint=hint,
            )
        size = min(4 * size, longest)
    return sample


def infer_lines(data: bytes, what: str) -> Schema:
    """Return the columns of a sample of whole lines; all are nullable.

    Raises:
        BadInput: a line is not an object, or the sample has no line.
    """
    members: dict[str, _Kind] = {}
    for number, (offset, line) in enumerate(lines_of(data), start=1):
        value = parse_line(line)
        if isinstance(value, str):
            raise BadInput(what, line=number, byte_offset=offset, reason=value)
        for name, inner in value.items():
            members.setdefault(name, _Kind()).see(inner)
    if not members:
        raise BadInput(what, byte_offset=0, reason="the file has no row")
    return Schema(tuple(Field(name, kind.type()) for name, kind in members.items()))


class _Kind:
    """The kinds of values that were seen for one member or list item."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._seen: set[str] = set()
        self._below_zero = False
        self._members: dict[str, _Kind] = {}
        self._item: _Kind | None = None

    def see(self, value: Any) -> None:
        if value is None:
            return
        kind = _kind_of(value)
        if kind in ("object", "list") and self._depth == _DEPTH_MAX:
            kind = "Utf8"
        self._seen.add(kind)
        self._below_zero |= kind == "Int64" and value.startswith("-")
        if kind == "object":
            for name, inner in value.items():
                self._members.setdefault(name, _Kind(self._depth + 1)).see(inner)
        elif kind == "list":
            self._item = self._item or _Kind(self._depth + 1)
            for inner in value:
                self._item.see(inner)

    def type(self) -> DataType:
        if len(self._seen) > 1 and self._seen <= _NUMBERS:
            return DataType.parse(self._type_of_numbers())
        if len(self._seen) != 1:
            return DataType("Utf8")
        (kind,) = self._seen
        if kind == "list":
            return DataType("List", item=self._item.type() if self._item else DataType("Utf8"))
        if kind == "object" and self._members:
            fields = (Field(name, inner.type()) for name, inner in self._members.items())
            return DataType("Struct", fields=tuple(fields))
        return DataType("Utf8") if kind == "object" else DataType.parse(kind)

    def _type_of_numbers(self) -> str:
        if "Float64" in self._seen:
            return "Float64"
        return "UInt64" if self._seen == {"UInt64", "Int64"} and not self._below_zero else _DECIMAL


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "Bool"
    if isinstance(value, Number):
        return _kind_of_number(value)
    if isinstance(value, str):
        return _kind_of_text(value)
    return "object" if isinstance(value, dict) else "list"


def _kind_of_number(text: str) -> str:
    digits = text.removeprefix("-")
    if len(digits) > _DECIMAL_DIGITS or not digits.isdigit():
        return "Float64"
    number = int(text)
    return "Int64" if number in _INT64 else "UInt64" if number in _UINT64 else _DECIMAL


def _kind_of_text(text: str) -> str:
    match = _DATE.fullmatch(text) or _INSTANT.fullmatch(text)
    if match is None or not _is_in_calendar(*map(int, match.group("year", "month", "day"))):
        return "Utf8"
    if match.re is _DATE:
        return "Date"
    return "Timestamp(us,UTC)" if match["zone"] else "Timestamp(us)"


def _is_in_calendar(year: int, month: int, day: int) -> bool:
    """Return whether the date exists; as for readers of dates, the year 0 does."""
    if not 1 <= month <= len(_MONTH_DAYS):
        return False
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 1 <= day <= _MONTH_DAYS[month - 1] + (month == 2 and is_leap)
