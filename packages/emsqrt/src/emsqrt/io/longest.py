"""Find the longest row of some files, in order to name a memory cap that is enough for all rows.

When a run is refused, text is searched for the ends of records, Parquet pages with texts are read,
and the lengths of Arrow texts are compared. The search is limited to a number of bytes; if a longer
row is beyond them, a run with the named cap may be refused again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from emsqrt.io.locations import Location
from emsqrt.io.records import ByteStream, RecordEnd, last_record_end
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.retry import RowTooLong
from sennit_core.errors import SennitError
from sennit_core.units import format_bytes

PIECE_BYTES = 8 << 10
"""Records up to this length are not measured: they always fit."""
_LOOKED_BYTES = 256 << 20
"""The most bytes of text to search, in all files; at about a gigabyte per second."""
_FAR_LOOKED_BYTES = 16 << 20
"""The most bytes to search of a file on another machine."""

LastEnd = Callable[[bytearray, int], int]
"""Returns the end of the last whole record in the first `size` bytes, or 0."""
FindEnd = Callable[[bytearray, int], int]
"""Returns the end of a record that began in an earlier piece; -1 if it is not in this piece."""


def longest_row(
    kind: str,
    options: Mapping[str, Any],
    places: Sequence[Location],
    room_bytes: int,
    columns: Collection[str] = (),
) -> RowTooLong | None:
    """Return the longest row of files, if one is long and the files can be read again.

    Args:
        kind: their format.
        options: JSON values for the reader.
        places: the files.
        room_bytes: memory that may be used; pages that need more are skipped.
        columns: names of the columns to read; text is always read with all of them.
    """
    found, left_bytes = None, _LOOKED_BYTES
    for place in places:
        source = open_source(place)
        if not source.can_reopen or left_bytes <= 0:
            break
        looked_max = left_bytes if source.path else min(left_bytes, _FAR_LOOKED_BYTES)
        with suppress(SennitError, OSError):  # the reader reports it
            row_bytes, looked_bytes = _longest_of(
                kind, options, source, room_bytes, columns, looked_max
            )
            left_bytes -= looked_bytes
            if row_bytes > max(PIECE_BYTES, 0 if found is None else found.row_bytes):
                because = f"{source.name} has a row of {format_bytes(row_bytes)}"
                found = RowTooLong(row_bytes, because)
    return found


def _longest_of(
    kind: str,
    options: Mapping[str, Any],
    source: ByteSource,
    room_bytes: int,
    columns: Collection[str],
    looked_max: int,
) -> tuple[int, int]:
    """Return the length of the longest row that was searched, and the number of bytes searched."""
    match kind:
        case "csv":
            from emsqrt.io.csv_options import CsvOptions

            csv = CsvOptions.from_json(options)
            with csv.decoded(source).open() as stream:
                return longest_record(
                    stream,
                    lambda data, size: last_record_end(data, size, csv.dialect),
                    lambda: RecordEnd(csv.dialect).find,
                    looked_max,
                )
        case "jsonl":
            with source.open() as stream:
                return longest_record(stream, _last_line_end, lambda: _line_end, looked_max)
        case "parquet":
            from emsqrt.io.parquet_longest import longest_texts

            return longest_texts(source, frozenset(columns), room_bytes, looked_max)
        case _:
            from emsqrt.io import arrow_scan

            return arrow_scan.longest_texts(source, frozenset(columns), room_bytes, looked_max)


def longest_record(
    stream: ByteStream, last_end: LastEnd, begin: Callable[[], FindEnd], looked_max: int
) -> tuple[int, int]:
    """Return the length of the longest record that is longer than a piece, and the bytes read.

    Args:
        stream: positioned at the start of a record.
        last_end: finds the end of the last whole record of a piece.
        begin: returns a function that finds the end of a record longer than a piece.
        looked_max: read about this many bytes.
    """
    piece, held, longest, looked = bytearray(PIECE_BYTES), 0, 0, 0

    def read(held: int) -> int:
        with memoryview(piece) as view, view[held:] as room:
            return stream.readinto(room) or 0

    while looked < looked_max and (count := read(held)):
        held, looked = held + count, looked + count
        end = last_end(piece, held)
        if end == 0 and held == len(piece):
            find_end, before = begin(), 0
            while (end := find_end(piece, held)) < 0 and looked < looked_max:
                before += held
                held = read(0)
                looked += held
                if not held:
                    return max(longest, before), looked
            longest = max(longest, before + max(end, 0))
            end = max(end, 0)
        piece[: held - end] = piece[end:held]
        held -= end
    return longest, looked


def _last_line_end(data: bytearray, size: int) -> int:
    return data.rfind(b"\n", 0, size) + 1


def _line_end(piece: bytearray, size: int) -> int:
    return piece.find(b"\n", 0, size) + 1 or -1
