"""Cut a CSV text at record ends near given places, without reading what lies between.

The state at a place is known from the marks of the parts before it (`lake.ingest.csv_marks`); from there the
first record end is searched, in a few kilobytes. Of a text with irregular quotes, the rules of quotes are followed
from the beginning instead, byte by byte, as the ingest does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from emsqrt.io.records import CsvDialect, RecordEnd, last_record_end
from lake.ingest.csv_marks import PartMarks
from sennit_core.errors import BadInput
from sennit_core.units import KIB, MIB, format_bytes

__all__ = ["RECORD_BYTES_MAX", "is_regular", "record_start_at", "record_starts", "states_of"]

RECORD_BYTES_MAX = 64 * MIB
_LF, _CR = 0x0A, 0x0D
_SEARCH_BYTES = 64 * KIB
_BLOCK_BYTES = MIB


def states_of(marks: Sequence[PartMarks]) -> list[bool]:
    """Return for each part whether it begins inside quotes; of regular texts only.

    Args:
        marks: Those of consecutive parts from the beginning of the text.
    """
    states, inside = [], False
    for each in marks:
        states.append(inside)
        inside ^= each.odd
    return states


def is_regular(marks: Sequence[PartMarks]) -> bool:
    """Return whether the parity of quotes tells the state everywhere in the parts."""
    return all(each.regular[inside] for each, inside in zip(marks, states_of(marks), strict=True))


def record_start_at(
    file: io.BufferedIOBase, place: int, dialect: CsvDialect, *, inside: bool, what: str = "CSV"
) -> int | None:
    """Return the first record start at or after a place; None if the text has none there.

    Args:
        file: The text, buffered and seekable.
        place: Offset in it, over 0.
        dialect: The delimiter and the quote.
        inside: Whether the place is inside quotes.
        what: The file's name, for the error.

    Raises:
        BadInput: The record around the place is too long.
    """
    file.seek(place - 1)
    before = file.read(1)[0]
    if not inside and before == _LF:
        return place
    if not inside and before == _CR:
        following = file.read(1)
        return None if not following else place + (following[0] == _LF)
    search = RecordEnd(dialect)
    search.resume(inside=inside, before=before)
    at = place
    while piece := file.read(_SEARCH_BYTES):
        end = search.find(bytearray(piece), len(piece))
        if end >= 0:
            return _after_line_end(file, at + end)
        at += len(piece)
        if at - place > RECORD_BYTES_MAX:
            raise _too_long(what, place)
    return None


def record_starts(
    file: io.BufferedIOBase,
    start: int,
    places: Sequence[int],
    dialect: CsvDialect,
    what: str = "CSV",
) -> Iterator[int | None]:
    """Yield the first record start at or after each place, by reading the text from a record on.

    Args:
        file: The text, buffered and seekable.
        start: Offset of a record.
        places: Offsets after it, ascending.
        dialect: The delimiter and the quote.
        what: The file's name, for the error.

    Raises:
        BadInput: A record is too long.
    """
    at = start
    for index, place in enumerate(places):
        while at < place:
            file.seek(at)
            piece = file.read(min(_BLOCK_BYTES, place - at))
            if end := last_record_end(piece, len(piece), dialect):
                at += end
                continue
            # The record around the place, or one that is longer than a block.
            following = _next_record(file, at, dialect, what)
            if following is None:
                yield from [None] * (len(places) - index)
                return
            at = following
        yield at


def _next_record(file: io.BufferedIOBase, start: int, dialect: CsvDialect, what: str) -> int | None:
    """Return the end of the record at `start`; None if the text ends first."""
    search = RecordEnd(dialect)
    at = start
    file.seek(start)
    while piece := file.read(_SEARCH_BYTES):
        end = search.find(bytearray(piece), len(piece))
        if end >= 0:
            return _after_line_end(file, at + end)
        at += len(piece)
        if at - start > RECORD_BYTES_MAX:
            raise _too_long(what, start)
    return None


def _after_line_end(file: io.BufferedIOBase, end: int) -> int | None:
    """Return where the next record begins: after the LF of a CRLF; None if the text ends there."""
    file.seek(end - 1)
    found = file.read(2)
    if len(found) < 2:
        return None
    return end + (found == b"\r\n")


def _too_long(what: str, place: int) -> BadInput:
    return BadInput(
        what,
        byte_offset=place,
        reason=f"the record here is longer than {format_bytes(RECORD_BYTES_MAX)}",
        hint="a quote that is never closed, or a wrong delimiter, makes records run together",
    )
