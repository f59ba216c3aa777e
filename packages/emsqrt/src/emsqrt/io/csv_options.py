"""How one CSV file is written: the reader's options, its byte order mark and its header."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from emsqrt.io.records import CsvDialect, record_ends, split_records
from sennit_core.errors import BadInput, UsageError, nearest
from sennit_core.units import parse_bytes

_UTF8_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HEADER_BYTES_MAX = 1 << 20
_NAMES = {
    "delimiter": "delimiter",
    "quote": "quote",
    "header": "header",
    "nullValues": "null_values",
    "recordBytesMax": "record_bytes_max",
}


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """What a plan's `options` say about its CSV files.

    Args:
        delimiter: one ASCII character between fields.
        quote: one ASCII character around fields, None when nothing is quoted.
        header: whether the first record holds the names; without it they are `column0`, ...
        null_values: unquoted fields that mean NULL; a quoted field is never NULL.
        record_bytes_max: the longest record accepted; None derives it from the memory budget.
    """

    delimiter: str = ","
    quote: str | None = '"'
    header: bool = True
    null_values: tuple[str, ...] = ("",)
    record_bytes_max: int | None = None

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
        if "null_values" in values:
            values["null_values"] = tuple(values["null_values"])
        if values.get("record_bytes_max") is not None:
            values["record_bytes_max"] = parse_bytes(values["record_bytes_max"])
        return cls(**values)

    @property
    def dialect(self) -> CsvDialect:
        """Delimiter and quote, as the splitter takes them."""
        return CsvDialect(self.delimiter, self.quote)


def skip_byte_order_mark(file: BinaryIO, what: str) -> int:
    """Position `file` after a UTF-8 mark and return the position; refuse other encodings' marks."""
    start = file.read(3)
    if start[:2] in _WIDE_MARKS:
        raise BadInput(what, byte_offset=0, reason="this is UTF-16; convert it to UTF-8 first")
    offset = len(_UTF8_MARK) if start == _UTF8_MARK else 0
    file.seek(offset)
    return offset


def first_block(path: Path, options: CsvOptions, sample_bytes: int) -> tuple[bytes, int]:
    """Return whole records from the start of a file, and the offset of the first one.

    Raises:
        BadInput: the file is empty, or its first record has no end within 1 MiB.
    """
    with path.open("rb", buffering=0) as file:
        offset = skip_byte_order_mark(file, str(path))
        blocks = split_records(
            file,
            options.dialect,
            block_bytes=sample_bytes,
            record_bytes_max=max(_HEADER_BYTES_MAX, sample_bytes),
            offset=offset,
            what=str(path),
        )
        for block in blocks:
            return bytes(block.data), offset
    raise BadInput(str(path), byte_offset=0, reason="the file is empty")


def read_header(path: Path, options: CsvOptions) -> tuple[tuple[str, ...], int]:
    """Return the columns' names and the offset of the first data record.

    Raises:
        BadInput: the file is empty, not UTF-8, or two columns have one name.
    """
    data, offset = first_block(path, options, 1 << 16)
    record = first_record(data, options)
    fields = parse_fields(record, options, str(path), offset)
    if not options.header:
        return tuple(f"column{index}" for index in range(len(fields))), offset
    seen: dict[str, int] = {}
    for index, name in enumerate(fields, start=1):
        if name in seen:
            raise BadInput(
                str(path),
                line=1,
                byte_offset=offset,
                reason=f"columns {seen[name]} and {index} are both named {name!r}",
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
            what, byte_offset=offset + error.start, reason="this is not UTF-8"
        ) from error
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=options.delimiter,
        quotechar=options.quote,
        quoting=csv.QUOTE_NONE if options.quote is None else csv.QUOTE_MINIMAL,
    )
    return next(reader, [])
