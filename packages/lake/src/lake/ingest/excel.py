"""Convert a sheet of an Excel workbook (.xlsx, .xlsm) to a CSV file, which is then ingested as such.

So header, titles, types, widening and bad rows are those of CSV. Line numbers are those of the sheet,
except below cells with line ends. `openpyxl` reads a sheet row by row; what it holds in memory whole,
the shared texts and the styles, is limited by the sizes that the archive declares, and `zipfile` reads
no more than these.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from itertools import islice
from typing import Any

from lake.encryption.files import Source
from lake.ingest.source import PartsFile
from lake.objects.durable import storage_errors
from sennit_core.errors import BadInput, SennitError, TooLarge, UsageError, nearest
from sennit_core.optional import import_optional
from sennit_core.units import MIB, format_bytes

__all__ = ["Sheet", "convert_sheet", "is_workbook"]

_ZIP = b"PK\x03\x04"
_BOOK = "xl/workbook.xml"
_TEXTS = "xl/sharedStrings.xml"
_ROWS_MAX = 1_048_576  # of Excel; a file may claim any number, and rows between are yielded
_RATIO_MAX = 250  # as of compressed files
_ALWAYS_ALLOWED_BYTES = 256 * MIB
# A shared text of ten characters is 27 bytes of XML and 60 bytes as a Python string.
_MEMORY_PER_BYTE = 4
_LOOKED_AT_ROWS = 200
_TITLE_ROWS_MAX = 20
_TICK_ROWS = 256
_ERRORS = frozenset(
    ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#SPILL!", "#CALC!")
)


@dataclass
class Sheet:
    """A converted sheet.

    Args:
        name: Its name.
        names: The names of all sheets.
        errors: Number of cells with an Excel error, which are NULL.
    """

    name: str
    names: tuple[str, ...]
    errors: int = field(default=0)


def is_workbook(paths: Sequence[Source], head: bytes) -> bool:
    """Return whether a file is an Excel workbook of the format of 2007 and later."""
    if not head.startswith(_ZIP):
        return False
    try:
        with PartsFile(paths) as file, zipfile.ZipFile(io.BufferedReader(file)) as archive:
            return _BOOK in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError):
        return False


def convert_sheet(
    paths: Sequence[Source],
    target: Source,
    *,
    what: str,
    sheet: str | int | None,
    memory_bytes: int,
    tick: Callable[[int], None],
) -> Sheet:
    """Write a sheet to `target` as CSV.

    Args:
        paths: The workbook's parts.
        target: A new file.
        what: The upload's name, for errors.
        sheet: Name of the sheet, or its number from 1; None for the first.
        memory_bytes: What the workbook's shared texts may need.
        tick: Called after some rows, with the number of bytes written since the last call.

    Raises:
        MissingPackage: `openpyxl` is not installed (the extra `excel`).
        UsageError: There is no such sheet.
        TooLarge: The workbook unpacks to more than the limits.
        BadInput: The workbook is damaged.
    """
    openpyxl = import_optional("openpyxl", "Excel workbooks")
    _check_sizes(paths, what, memory_bytes)
    with PartsFile(paths) as file, io.BufferedReader(file, MIB) as whole:
        try:
            book = openpyxl.load_workbook(whole, read_only=True, data_only=True, keep_links=False)
            try:
                found = _find_sheet(book, sheet, what)
                # The declared size of a sheet may be wrong in both directions.
                book[found.name].reset_dimensions()
                rows = book[found.name].iter_rows(values_only=True)
                with (
                    storage_errors(target.parent, 0),
                    io.TextIOWrapper(target.open("xb"), encoding="utf-8", newline="") as out,
                ):
                    _write(rows, out, found, what, tick)
            finally:
                book.close()
        except (SennitError, MemoryError):
            raise
        # Any error of the parser, which has no common class, is the file's.
        except Exception as error:
            reason = f"not a readable Excel workbook: {type(error).__name__}: {error}"
            raise BadInput(what=what, reason=reason[:300], hint="save it again in Excel") from error
    return found


def _check_sizes(paths: Sequence[Source], what: str, memory_bytes: int) -> None:
    try:
        with PartsFile(paths) as file, zipfile.ZipFile(io.BufferedReader(file)) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            packed_bytes = file.size
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise BadInput(what=what, reason=f"not a readable Excel workbook: {error}") from error
    limit = max(_ALWAYS_ALLOWED_BYTES, _RATIO_MAX * packed_bytes)
    if sum(sizes.values()) > limit:
        raise TooLarge(
            what=f"{what}, unpacked,",
            limit_bytes=limit,
            actual_bytes=sum(sizes.values()),
            hint="save the sheet as CSV and upload that",
        )
    # The sheets and media are streamed or not read at all; everything else is parsed whole.
    whole = sum(
        size
        for name, size in sizes.items()
        if not name.startswith(("xl/worksheets/", "xl/media/")) or name == _TEXTS
    )
    if whole * _MEMORY_PER_BYTE > memory_bytes:
        raise TooLarge(
            what=f"the texts of {what}",
            limit_bytes=memory_bytes // _MEMORY_PER_BYTE,
            actual_bytes=whole,
            hint=f"save the sheet as CSV, or start the node with more --memory: the workbook needs "
            f"{format_bytes(whole * _MEMORY_PER_BYTE)}",
        )


def _find_sheet(book: Any, asked: str | int | None, what: str) -> Sheet:
    # Sheets of charts have no cells.
    names = tuple(sheet.title for sheet in book.worksheets)
    if not names:
        raise BadInput(what=what, reason="the workbook has no sheet with cells")
    if asked is None:
        return Sheet(names[0], names)
    if isinstance(asked, int) and not isinstance(asked, bool) and 1 <= asked <= len(names):
        return Sheet(names[asked - 1], names)
    if asked in names:
        return Sheet(str(asked), names)
    near = nearest(str(asked), names)
    hint = f"did you mean {near!r}?" if near else f"it has {', '.join(map(repr, names[:10]))}"
    raise UsageError(f"{what} has no sheet {asked!r}", hint=hint)


def _write(
    rows: Iterator[tuple[Any, ...]],
    out: io.TextIOBase,
    sheet: Sheet,
    what: str,
    tick: Callable[[int], None],
) -> None:
    first = [_trimmed(row) for row in islice(rows, _LOOKED_AT_ROWS)]
    width = max(map(len, first), default=0)
    start = min((_blank_before(row) for row in first if row), default=0)
    header = _header(first, width - start, start)
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    # Empty rows are written as empty lines once a row follows: Excel saves many below the last one.
    empty = reported = 0
    for number, row in enumerate(_chain(first, rows), 1):
        if number > _ROWS_MAX:
            raise BadInput(what=what, line=number, reason=f"a sheet has {_ROWS_MAX:,} rows at most")
        if number % _TICK_ROWS == 0:
            tick(out.tell() - reported)
            reported = out.tell()
        if not row:
            empty += 1
            continue
        if any(cell is not None for cell in row[:start]):
            raise BadInput(
                what=what, line=number, reason="the row has a value to the left of the table"
            )
        out.write("\n" * empty)
        empty = 0
        cells = [_text(cell, sheet) for cell in row[start:]]
        # Rows above the header keep their own width: that is how titles are recognized.
        if number > header:
            cells += [""] * (width - start - len(cells))
        if cells == [""]:  # csv would write "", which is empty text and not NULL
            out.write("\n")
        else:
            writer.writerow(cells)


def _chain(
    first: list[tuple[Any, ...]], rows: Iterator[tuple[Any, ...]]
) -> Iterator[tuple[Any, ...]]:
    yield from first
    for row in rows:
        yield _trimmed(row)


def _trimmed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row without the empty cells at its end."""
    end = len(row)
    while end and (row[end - 1] is None or row[end - 1] == ""):
        end -= 1
    return row[:end]


def _blank_before(row: tuple[Any, ...]) -> int:
    return next(index for index, cell in enumerate(row) if cell is not None)


def _header(rows: list[tuple[Any, ...]], width: int, start: int) -> int:
    """Return the number of rows above the first row that fills the table's width."""
    for index, row in enumerate(rows[: _TITLE_ROWS_MAX + 1]):
        cells = row[start:]
        if len(cells) == width and all(cell is not None for cell in cells):
            return index
    return 0


def _text(cell: Any, sheet: Sheet) -> str:
    """Return a cell as the CSV text that has its value."""
    match cell:
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case datetime() if cell.time() == time():
            return cell.date().isoformat()
        case datetime():
            return cell.isoformat(sep=" ")
        case date() | time():
            return cell.isoformat()
        case str() if cell in _ERRORS:
            sheet.errors += 1
            return ""
        case _:
            return str(cell)
