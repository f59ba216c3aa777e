"""Print rows as a table of box-drawing characters, as wide as the terminal.

The rows come from CSV that a run wrote, in which an empty field is NULL and `""` is empty text.
Cells are truncated while they are read, so that a value of many MiB uses no more memory than a
short one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TextIO, TypeAlias

Row: TypeAlias = "list[str | None]"

CELL_CHARS_MAX = 200
"""Characters that are kept of a cell; no terminal shows more."""
_COLUMN_WIDTH_MIN = 8
"""Columns are narrowed down to this width; after that, middle columns are omitted."""
_READ_CHARS = 1 << 16
_NULL, _MORE = "NULL", "…"
# Runs of other characters are one token, so the loop below has few steps for long cells.
_TOKENS = re.compile('[^",\n]+|[",\n]')
_ENDS = ",\n"


@dataclass(frozen=True, slots=True)
class Heading:
    """A column's displayed name and type, and whether its values are numbers."""

    name: str
    type: str
    is_number: bool


def read_rows(file: TextIO, cell_chars_max: int = CELL_CHARS_MAX) -> Iterator[Row]:
    """Yield the records of CSV that the engine wrote, NULL as None and long cells truncated.

    Args:
        file: opened with `newline=""`.
        cell_chars_max: characters that are kept of a cell, plus one where it is longer.
    """
    # State between two pieces of the file, which may be cut anywhere: `inside`: within quotes.
    # `quoted`: the cell had quotes, so it is text even if it is empty. `closed`: the token before
    # was a closing quote; a quote now makes it a doubled one.
    row: Row = []
    cell, inside, quoted, closed = "", False, False, False
    for piece in iter(lambda: file.read(_READ_CHARS), ""):
        for token in _TOKENS.findall(piece):
            if token == '"':
                cell += '"' if closed else ""  # a doubled quote is one literal quote
                inside, quoted, closed = not inside, True, inside
            elif inside or token not in _ENDS:
                cell = (cell + token[: cell_chars_max + 1])[: cell_chars_max + 1]
            else:
                row.append(cell if cell or quoted else None)
                cell, quoted, closed = "", False, False
                if token == "\n":
                    yield row
                    row = []


def table_text(
    headings: Sequence[Heading], rows: Iterable[Row], rows_max: int, columns: int
) -> str:
    """Return a table of at most `rows_max` rows, with a line below it that counts the rows.

    Args:
        headings: the columns.
        rows: the rows; one more than `rows_max` indicates that there are more.
        rows_max: most rows shown.
        columns: the width of the terminal; 0 for no limit.
    """
    remaining = iter(rows)
    body = [[_shown(cell) for cell in row] for row in islice(remaining, rows_max)]
    more = next(remaining, None) is not None
    widths = [
        max(_width(heading.name), _width(heading.type), *(_width(row[at]) for row in body), 1)
        for at, heading in enumerate(headings)
    ]
    places = list(range(len(headings)))
    if columns:
        widths = _narrowed(widths, columns)
        places = _fitting(widths, columns)
    lines = _drawn(headings, body, widths, places)
    shown = sum(place >= 0 for place in places)
    lines.append(_summary(len(body), shown, len(headings), more=more))
    return "\n".join(lines) + "\n"


def _summary(rows: int, shown: int, columns: int, *, more: bool) -> str:
    said = f"{rows} row{'' if rows == 1 else 's'}"
    if more:
        said = f"the first {said}; there are more: --rows N shows N, --csv or -o FILE writes all"
    return f"({said})" if shown == columns else f"({said}; {shown} of {columns} columns shown)"


def _drawn(
    headings: Sequence[Heading],
    body: Sequence[Sequence[str]],
    widths: Sequence[int],
    places: Sequence[int],
) -> list[str]:
    spans = [widths[place] if place >= 0 else 1 for place in places]
    bars = ["─" * (span + 2) for span in spans]

    def line(cells: Sequence[str], aligned: Sequence[str]) -> str:
        padded = (
            _padded(cells[place] if place >= 0 else _MORE, span, align)
            for place, span, align in zip(places, spans, aligned, strict=True)
        )
        return "│ " + " │ ".join(padded) + " │"

    centred = ["centre"] * len(places)
    sides = ["right" if p >= 0 and headings[p].is_number else "left" for p in places]
    return [
        "┌" + "┬".join(bars) + "┐",
        line([heading.name for heading in headings], centred),
        line([heading.type for heading in headings], centred),
        "├" + "┼".join(bars) + "┤",
        *(line(row, sides) for row in body),
        "└" + "┴".join(bars) + "┘",
    ]


def _narrowed(widths: Sequence[int], columns: int) -> list[int]:
    """Narrow the widest columns until the table fits, as far as that is possible."""
    narrowed = list(widths)
    # One cell at a time from the widest column, so that columns end up equally wide.
    over = _table_width(narrowed) - columns
    while over > 0:
        widest = max(narrowed, default=0)
        if widest <= _COLUMN_WIDTH_MIN:
            break
        narrowed[narrowed.index(widest)] -= 1
        over -= 1
    return narrowed


def _fitting(widths: Sequence[int], columns: int) -> list[int]:
    """Return the columns that fit, from both ends; -1 marks the omitted ones."""
    places = list(range(len(widths)))
    if _table_width(widths) <= columns:
        return places
    left, right = places[: len(places) // 2], places[len(places) // 2 :]
    # Columns are dropped around the middle, so that the first and the last ones stay visible.
    while len(left) + len(right) > 1:
        longer = left if len(left) >= len(right) else right
        longer.pop(-1 if longer is left else 0)
        if _table_width([*(widths[at] for at in left + right), 1]) <= columns:
            break
    return [*left, -1, *right]


def _table_width(widths: Sequence[int]) -> int:
    # "│ " before each column, " " after it, and a last "│".
    return sum(widths) + 3 * len(widths) + 1


def _shown(cell: str | None) -> str:
    """Return a cell on one line, with control characters escaped."""
    if cell is None:
        return _NULL
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cell)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _padded(text: str, width: int, align: str) -> str:
    if _width(text) > width:
        # One cell is left for the mark.
        while text and _width(text) >= width:
            text = text[:-1]
        text += _MORE
    room = width - _width(text)
    if align == "right":
        return " " * room + text
    before = room // 2 if align == "centre" else 0
    return " " * before + text + " " * (room - before)
