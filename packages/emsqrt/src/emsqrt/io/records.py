"""Cuts a stream of CSV bytes into blocks of whole records; a quoted newline never ends a record.

The rules are RFC 4180 with the extensions of Python's `csv` and of Arrow: a quote opens a quoted
field only at the field's start, a doubled quote inside it is a literal, anything after the closing
quote belongs to the field, and a record ends at LF, CRLF or a lone CR outside quotes.

Blocks start at a record; the kernel (`_kernel/csv_split.c`) finds where they end. `record_ends` has
the same rules, slowly and one record at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from emsqrt._kernel import csv_last_record_end
from sennit_core.errors import BadInput
from sennit_core.units import format_bytes

_LF, _CR = 0x0A, 0x0D


LOOK_AHEAD_BYTES = 64 << 20
"""The end of a record that is too long is searched in at least this many further bytes,"""
LOOK_AHEAD = 32
"""and in this many times the longest record accepted."""


class ByteStream(Protocol):
    """The input of the splitter: binary files, sockets' files, decompressors."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer from the stream; 0 at its end."""


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """Delimiter and quote, single ASCII characters; `quote` is None if nothing is quoted."""

    delimiter: str = ","
    quote: str | None = '"'

    def __post_init__(self) -> None:
        for name, mark in (("delimiter", self.delimiter), ("quote", self.quote)):
            if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in "\r\n"):
                raise BadInput("CSV dialect", reason=f"{name} {mark!r} is not one ASCII character")


ENCODING_HINT = (
    'option encoding "latin-1" or "windows-1252" reads such files; or convert it: iconv -t UTF-8'
)


def way_on(fault: str, names: Sequence[str]) -> str:
    """Return the hint for a record that does not fit the columns.

    Args:
        fault: the kernel's name of the error.
        names: the names of the columns.
    """
    if fault == "encoding":
        return ENCODING_HINT
    if fault != "ragged":
        return 'option badRows "null" or "reject" reads the other records'
    mark = next((mark for mark in ",;\t|" if mark in names[0]), "") if len(names) == 1 else ""
    if mark:
        return f"the header is one name, {names[0]!r}: is {mark!r} the delimiter?"
    return 'option badRows "reject" leaves such records out'


@dataclass(eq=False)
class RecordTooLong(BadInput):
    """A record exceeds the longest accepted; `record_bytes` is its length, if its end was found."""

    record_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RecordBlock:
    """Whole records that start at byte `offset`; `data` is valid until the next block is read."""

    offset: int
    data: memoryview


def split_records(
    stream: ByteStream,
    dialect: CsvDialect,
    *,
    block_bytes: int,
    record_bytes_max: int,
    offset: int = 0,
    what: str = "CSV",
) -> Iterator[RecordBlock]:
    """Yield the stream as blocks of whole records, the last one with or without a line end.

    Args:
        stream: positioned at the start of a record.
        dialect: delimiter and quote.
        block_bytes: read this much at a time.
        record_bytes_max: the longest record that is accepted; no more is ever held in memory.
        offset: position of the stream's first byte, for `RecordBlock.offset`.
        what: the input's name in errors.

    Raises:
        RecordTooLong: a record is longer than `record_bytes_max`; `byte_offset` is its start.
        BadInput: a quote in the last record is never closed.
    """
    buffer, held, ended = bytearray(block_bytes), 0, False
    while not ended:
        if held == len(buffer):
            if held >= record_bytes_max:
                size = _whole_bytes(stream, buffer, dialect)
                raise _too_long(what, offset, record_bytes_max, size)
            buffer = _grown(buffer, min(held * 2, record_bytes_max))
        with memoryview(buffer) as view:
            count = stream.readinto(view[held:]) or 0
        held, ended = held + count, count == 0
        cut = last_record_end(buffer, held, dialect)
        if ended and cut < held:
            _check_closed(buffer[cut:held], dialect, what, offset + cut)
            cut = held
        if cut == 0:
            continue
        with memoryview(buffer) as view, view[:cut] as data:
            yield RecordBlock(offset, data)
        buffer[: held - cut] = buffer[cut:held]
        offset, held = offset + cut, held - cut


def last_record_end(data: bytearray | bytes, size: int, dialect: CsvDialect) -> int:
    """Return the end of the last complete record in `data[:size]`, which starts at a record; or 0.

    A CR at the very end is not yet an end: an LF may follow.
    """
    quote = -1 if dialect.quote is None else ord(dialect.quote)
    return csv_last_record_end(data, size, ord(dialect.delimiter), quote)


def record_ends(data: bytearray | bytes, size: int, dialect: CsvDialect) -> Iterator[int]:
    """Yield the end of each complete record in `data[:size]`, slowly and exactly."""
    field, position = _field_pattern(dialect), 0
    while position < size:
        match = field.match(data, position, size)
        if match is None or match.end() == match.start():
            return
        position = match.end()
        last = data[position - 1]
        if last == _LF or (last == _CR and position < size):
            yield position
        elif last == _CR:
            return


def split_fields(record: str, dialect: CsvDialect) -> list[str]:
    """Return the fields of one record, quotes removed; none if the line is empty."""
    body = record.removesuffix("\n").removesuffix("\r")
    delimiter, mark = dialect.delimiter, dialect.quote
    fields: list[str] = []
    position = 0
    while body and position <= len(body):
        inside = ""
        if mark is not None and body.startswith(mark, position):
            end = _closing_quote(body, position + 1, mark)
            inside = body[position + 1 : end].replace(mark + mark, mark)
            position = end + 1
        stop = body.find(delimiter, position)
        stop = len(body) if stop < 0 else stop
        fields.append(inside + body[position:stop])
        position = stop + 1
    return fields


def _closing_quote(text: str, position: int, mark: str) -> int:
    """Return the position of the closing quote of a field; the end if there is none."""
    while (end := text.find(mark, position)) >= 0:
        if not text.startswith(mark, end + 1):
            return end
        position = end + 2
    return len(text)


@lru_cache(maxsize=8)
def _field_pattern(dialect: CsvDialect) -> re.Pattern[bytes]:
    """Return a pattern of a field and its end; possessive loops reject a quote that stays open."""
    ends = re.escape(dialect.delimiter.encode())
    tail = rb"[^%s\r\n]*+" % ends
    stop = rb"(?:%s|\r\n|\n|\r)" % ends
    if dialect.quote is None:
        return re.compile(tail + stop)
    mark = re.escape(dialect.quote.encode())
    quoted = rb"%b[^%b]*+(?:%b%b[^%b]*+)*+%b" % (mark, mark, mark, mark, mark, mark)
    return re.compile(rb"(?:%b|(?!%b))%b%b" % (quoted, mark, tail, stop))


def is_closed(record: bytes | bytearray, dialect: CsvDialect) -> bool:
    """Return whether a record without a line end ends outside quotes."""
    return last_record_end(record + b"\n", len(record) + 1, dialect) == len(record) + 1


def _check_closed(record: bytearray, dialect: CsvDialect, what: str, offset: int) -> None:
    if not is_closed(record, dialect):
        raise BadInput(
            what,
            byte_offset=offset,
            reason="a quote in the record that starts here is never closed",
            hint="close it, or set another quote; quote null if nothing is quoted",
        )


def _grown(buffer: bytearray, size: int) -> bytearray:
    larger = bytearray(size)
    larger[: len(buffer)] = buffer
    return larger


def _whole_bytes(stream: ByteStream, buffer: bytearray, dialect: CsvDialect) -> int | None:
    """Return the length of the record that fills `buffer`; None if its end is not nearby.

    The buffer is overwritten with the following bytes of the stream.
    """
    end, before, count = RecordEnd(dialect), 0, len(buffer)
    while before < max(LOOK_AHEAD_BYTES, LOOK_AHEAD * len(buffer)):
        found = end.find(buffer, count)
        if found >= 0 or count == 0:
            return before + max(found, 0)
        before += count
        with memoryview(buffer) as view:
            count = stream.readinto(view) or 0
    return None


class RecordEnd:
    """Searches for the end of one record, piece by piece."""

    def __init__(self, dialect: CsvDialect) -> None:
        self._quote = b"" if dialect.quote is None else dialect.quote.encode()
        self._delimiter = dialect.delimiter.encode()
        self._stop = re.compile(b"[\\r\\n%s]" % re.escape(self._delimiter))
        self._in_quotes = False
        self._may_open = True  # a field begins here, or else a quote closed before

    def resume(self, *, inside: bool, before: int) -> None:
        """Search from anywhere in a record instead of from its start.

        Args:
            inside: Whether that is inside quotes.
            before: The byte before.
        """
        self._in_quotes = inside
        self._may_open = before in b"\r\n" or before in (*self._quote, *self._delimiter)

    def find(self, piece: bytearray, size: int) -> int:
        """Return the end of the record in a piece, -1 if it is not there."""
        at = 0
        while at < size:
            if self._in_quotes:
                at = piece.find(self._quote, at, size) + 1
                if not at:
                    return -1
                self._in_quotes, self._may_open = False, True
            elif self._may_open:
                self._may_open = False
                self._in_quotes = piece[at : at + 1] == self._quote
                at += self._in_quotes
            else:
                stop = self._stop.search(piece, at, size)
                if stop is None:
                    return -1
                at = stop.end()
                if stop[0] in b"\r\n":
                    return at
                self._may_open = True
        return -1


def _too_long(what: str, offset: int, limit: int, size: int | None) -> RecordTooLong:
    return RecordTooLong(
        what,
        record_bytes=size,
        byte_offset=offset,
        reason=f"the record that starts here is longer than {format_bytes(limit)}",
        hint="a quote that is never closed, or a wrong delimiter, makes records run together",
    )
