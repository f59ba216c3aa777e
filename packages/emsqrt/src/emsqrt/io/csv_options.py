"""The format of a CSV file: the reader's options, the lines before the rows, the header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

from emsqrt.io.bad_rows import POLICIES
from emsqrt.io.encodings import ENCODINGS, UTF8, TranscodedSource
from emsqrt.io.records import (
    ENCODING_HINT,
    CsvDialect,
    is_closed,
    last_record_end,
    record_ends,
    split_fields,
)
from emsqrt.io.sources import ByteSource, open_source
from sennit_core.errors import BadInput, Unsupported, UsageError, nearest
from sennit_core.units import format_bytes, parse_bytes

_UTF8_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HEADER_BYTES = 1 << 16
_HEADER_BYTES_MAX = 1 << 20
_NAME_CHARS_MAX = 1 << 16
_NAMES = {
    "delimiter": "delimiter",
    "quote": "quote",
    "header": "header",
    "skipRows": "skip_rows",
    "comment": "comment",
    "encoding": "encoding",
    "nullValues": "null_values",
    "recordBytesMax": "record_bytes_max",
    "badRows": "bad_rows",
    "rejectFile": "reject_file",
}

_KINDS: dict[str, tuple[type, ...]] = {
    "delimiter": (str,),
    "quote": (str, NoneType),
    "header": (bool, int),
    "skipRows": (int,),
    "comment": (str, NoneType),
    "encoding": (str,),
    "nullValues": (tuple,),
    "badRows": (str,),
    "rejectFile": (str, NoneType),
}
_HINTS = {
    "header": "true, false, or the number of the record with the names",
    "skipRows": "a number of lines",
    "nullValues": 'texts, such as ["", "NA"]',
}


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """A plan's `options` for CSV files.

    Args:
        delimiter: one ASCII character between fields.
        quote: one ASCII character around fields, None if nothing is quoted.
        header: whether the first record has the names, or the number of the record with the names,
            counted from 1; records before it are skipped. Without a header the names are
            `column0`, ...
        null_values: unquoted fields that mean NULL; a quoted field is never NULL.
        record_bytes_max: the longest record accepted; None derives it from the memory budget.
        skip_rows: lines to skip at the very beginning of the file.
        comment: one ASCII character; lines before the header that begin with it are skipped.
        encoding: "utf-8", "latin-1", "windows-1252" or "iso-8859-15"; converted to UTF-8.
        bad_rows: "fail" at the first record that violates the schema; "null" to set such values to
            NULL; "reject" to leave such records out.
        reject_file: the CSV file for rejected records: file, line, byte, reason, record.
    """

    delimiter: str = ","
    quote: str | None = '"'
    header: bool | int = True
    null_values: tuple[str, ...] = ("",)
    record_bytes_max: int | None = None
    skip_rows: int = 0
    comment: str | None = None
    encoding: str = "utf-8"
    bad_rows: str = "fail"
    reject_file: str | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: a value is out of its range.
            Unsupported: the encoding cannot be read.
        """
        for name, kinds in _KINDS.items():
            value = getattr(self, _NAMES[name])
            if not isinstance(value, kinds):
                raise UsageError(
                    f"the CSV option {name} cannot be {value!r}", hint=_HINTS.get(name)
                )
        if self.encoding.lower() not in ENCODINGS:
            raise Unsupported(
                f"CSV in {self.encoding} is not read, only in {', '.join(ENCODINGS)}",
                hint=f"convert it: iconv -f {self.encoding} -t UTF-8",
            )
        if self.bad_rows not in POLICIES:
            raise UsageError(f"badRows is one of {', '.join(POLICIES)}, not {self.bad_rows!r}")
        if self.reject_file is not None and self.bad_rows != "reject":
            raise UsageError('a rejectFile needs badRows "reject"')
        if self.header < 0 or self.skip_rows < 0:
            raise UsageError("header and skipRows count from 0 up")
        mark = self.comment
        if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in '\r\n"'):
            raise UsageError(f"comment {mark!r} is not one ASCII character")

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> CsvOptions:
        """Read the plan's JSON options (camelCase); an unknown one is a `UsageError`."""
        values: dict[str, Any] = {}
        for name, value in options.items():
            if name not in _NAMES:
                guess = nearest(name, tuple(_NAMES))
                raise UsageError(
                    f"CSV has no option {name!r}; it has {', '.join(_NAMES)}",
                    hint=f'did you mean "{guess}"?' if guess else None,
                )
            values[_NAMES[name]] = value
        if isinstance(values.get("null_values"), list | tuple):
            values["null_values"] = tuple(values["null_values"])
        elif isinstance(values.get("null_values"), str):
            values["null_values"] = (values["null_values"],)
        if values.get("record_bytes_max") is not None:
            values["record_bytes_max"] = parse_bytes(values["record_bytes_max"])
        return cls(**values)

    def decoded(self, source: ByteSource | Path) -> ByteSource:
        """Return a source whose bytes are UTF-8: unchanged, or transcoded from `encoding`."""
        if isinstance(source, Path):
            source = open_source(source)
        encoding = ENCODINGS[self.encoding.lower()]
        if encoding == UTF8 or isinstance(source, TranscodedSource):
            return source
        return TranscodedSource(source, encoding)

    @property
    def dialect(self) -> CsvDialect:
        """Delimiter and quote, for the splitter."""
        return CsvDialect(self.delimiter, self.quote)


def skip_byte_order_mark(file: BinaryIO, what: str) -> int:
    """Skip a UTF-8 byte order mark and return the position; refuse marks of other encodings."""
    offset = _mark_bytes(file.read(3), what)
    file.seek(offset)
    return offset


def first_block(
    source: ByteSource | Path, options: CsvOptions, sample_bytes: int
) -> tuple[bytes, int]:
    """Return whole records from the start of a file, including the header, and their offset.

    Raises:
        BadInput: the file is empty, or its first record does not end within 1 MiB.
    """
    return _first_bytes(options.decoded(source), options, sample_bytes)


def read_header(source: ByteSource | Path, options: CsvOptions) -> tuple[tuple[str, ...], int]:
    """Return the columns' names and the offset of the first data record.

    Raises:
        BadInput: the file is empty, not UTF-8, or two columns have one name.
    """
    source = options.decoded(source)
    data, offset = _first_bytes(source, options, _HEADER_BYTES)
    record = first_record(data, options)
    fields = parse_fields(record, options, source.name, offset)
    if not options.header:
        return tuple(f"column{index}" for index in range(len(fields))), offset
    seen: dict[str, int] = {}
    for index, name in enumerate(fields, start=1):
        if name in seen:
            raise BadInput(
                source.name,
                line=1 + source.peek(offset).count(b"\n"),
                byte_offset=offset,
                reason=f"columns {seen[name]} and {index} are both named {name!r}",
                hint="set the names in the plan: skipRows 1, header false and a schema",
            )
        seen[name] = index
    return tuple(fields), offset + len(record)


def first_record(data: bytes, options: CsvOptions) -> bytes:
    """Return the first record of `data` with its line end."""
    end = next(record_ends(data, len(data), options.dialect), len(data))
    return data[:end]


def parse_fields(record: bytes, options: CsvOptions, what: str, offset: int) -> list[str]:
    """Split one record into its fields, quotes removed."""
    try:
        text = record.decode()
    except UnicodeDecodeError as error:
        raise BadInput(
            what,
            line=1 + record.count(b"\n", 0, error.start) if not offset else None,
            byte_offset=offset + error.start,
            reason="this is not UTF-8",
            hint=ENCODING_HINT,
        ) from error
    if not is_closed(record, options.dialect):
        raise BadInput(
            what,
            byte_offset=offset,
            reason="a quote in the first record is never closed, or it is over 1 MiB",
            hint="close it, or set another quote; quote null if nothing is quoted",
        )
    fields = split_fields(text, options.dialect)
    if not fields:
        raise BadInput(
            what,
            byte_offset=offset,
            reason="an empty line where the first record is expected",
            hint="option skipRows skips lines before it",
        )
    if options.header and any(len(field) > _NAME_CHARS_MAX for field in fields):
        raise BadInput(
            what,
            byte_offset=offset,
            reason=f"the first record is not a header: a name over {_NAME_CHARS_MAX:,} characters",
            hint="is this CSV? With header false and a schema the first record is data",
        )
    return fields


def _first_bytes(source: ByteSource, options: CsvOptions, size: int) -> tuple[bytes, int]:
    """Return whole records, from the first one after skipped lines, and its offset."""
    for peeked_bytes in (size, max(_HEADER_BYTES_MAX, size)):
        data = source.peek(peeked_bytes)
        whole = len(data) < peeked_bytes
        start = _mark_bytes(data, source.name)
        if b"\0" in data[start : start + 64]:
            raise BadInput(
                source.name,
                byte_offset=data.index(b"\0", start),
                reason="a zero byte: this is not CSV, or it is UTF-16",
                hint="convert it to UTF-8 first",
            )
        start = _start_of_rows(data, start, options)
        rest = data[start:]
        end = len(rest) if whole else last_record_end(rest, len(rest), options.dialect)
        if end:
            return rest[:end], start
        if whole:
            raise BadInput(source.name, byte_offset=start, reason="the file is empty")
    raise BadInput(
        source.name,
        byte_offset=start,
        reason=f"the record that starts here is longer than {format_bytes(_HEADER_BYTES_MAX)}",
        hint="a quote that is never closed, or a wrong delimiter, makes records run together",
    )


def _mark_bytes(data: bytes, what: str) -> int:
    """Return the length of a UTF-8 byte order mark; refuse marks of other encodings."""
    if data[:2] in _WIDE_MARKS:
        raise BadInput(
            what,
            byte_offset=0,
            reason="this is UTF-16; convert it to UTF-8 first",
            hint="iconv -f UTF-16 -t UTF-8",
        )
    return len(_UTF8_MARK) if data.startswith(_UTF8_MARK) else 0


def _start_of_rows(data: bytes, start: int, options: CsvOptions) -> int:
    """Return the offset of the header, or of the first row: after skipped lines and comments."""
    for _ in range(options.skip_rows):
        start = _next_line(data, start)
    start = _after_comments(data, start, options)
    for _ in range(int(options.header) - 1 if options.header else 0):
        start += len(first_record(data[start:], options))
        start = _after_comments(data, start, options)
    return start


def _after_comments(data: bytes, start: int, options: CsvOptions) -> int:
    while options.comment is not None and data.startswith(options.comment.encode(), start):
        start = _next_line(data, start)
    return start


def _next_line(data: bytes, start: int) -> int:
    return data.find(b"\n", start) + 1 or len(data)
