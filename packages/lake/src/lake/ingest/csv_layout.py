"""Detect the layout of a CSV text: start of the table, delimiter, header.

Each delimiter is tried on a sample. The best one is that under which the records match the header,
have equal numbers of fields, and the most typed columns: with the wrong one the header of a German
export (`Preis;Menge` above `1,5;2,5`) has one field and its records three, all of them text.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from lake.ingest.columns import infer_kind

__all__ = ["Layout", "find_layout", "has_header"]

_DELIMITERS = ",;\t|"
_TABS_FIRST = "\t,;|"
_SAMPLE_RECORDS = 200
_TYPED_COLUMNS = 64  # columns used for the score; the first ones represent the rest
_HEADER_COLUMNS = 256  # columns used to detect a header
_TITLE_RECORDS_MAX = 20
_EXCEL_LINE = re.compile(r"sep=(.)\r?\n")  # Excel's line that names the delimiter


@dataclass(frozen=True)
class Layout:
    """The layout of a CSV text.

    Args:
        delimiter: The field delimiter.
        records: The sample's records, starting with the header.
        skipped: Number of records above the header.
        trailing: Whether each record except the header ends with an extra delimiter.
    """

    delimiter: str
    records: list[list[str]]
    skipped: int = 0
    trailing: bool = False

    @property
    def width(self) -> int:
        """Number of fields of a record."""
        return len(self.records[0]) + self.trailing if self.records else 0


def find_layout(text: str, delimiter: str | None, *, tabs: bool, whole: bool) -> Layout:
    """Detect the layout of a text.

    Args:
        text: The beginning of the file.
        delimiter: The delimiter, if known.
        tabs: The file's name suggests tabs; used if the fields are ambiguous.
        whole: The text is the whole file.
    """
    if line := _EXCEL_LINE.match(text):
        records = _records(text, line[1] if delimiter is None else delimiter, whole=whole)
        return Layout(delimiter or line[1], records[1:], 1)
    if delimiter is not None:
        return _layout(text, delimiter, whole=whole) or Layout(
            delimiter, _records(text, delimiter, whole=whole)
        )
    candidates = (
        _layout(text, each, whole=whole) for each in (_TABS_FIRST if tabs else _DELIMITERS)
    )
    found = [each for each in candidates if each is not None]
    if not found:
        return Layout("," if not tabs else "\t", _records(text, ",", whole=whole))
    # `max` returns the first of equal scores, so the order of the candidates decides between them.
    return max(found, key=_score)


def has_header(records: list[list[str]]) -> bool:
    """Return whether the first record holds column names.

    Text above a column of numbers or dates is a name; otherwise a number above numbers is a value;
    if all fields are text, the first record is assumed to hold names.
    """
    first, *rest = records or [[]]
    first = first[:_HEADER_COLUMNS]
    rows = [record[:_HEADER_COLUMNS] for record in rest]
    below = list(zip(*(row for row in rows if len(row) >= len(first)), strict=False))
    typed_below = [index for index, column in enumerate(below[: len(first)]) if _typed(column)]
    if not below:
        return not any(_typed([field]) for field in first)
    # An empty first field proves nothing: a header may lack a name, and a record a value.
    if any(first[index] and not _typed([first[index]]) for index in typed_below):
        return True
    return not any(first[index] for index in typed_below)


def _layout(text: str, delimiter: str, *, whole: bool) -> Layout | None:
    """Return the layout with this delimiter; None if no record contains it."""
    records = _records(text, delimiter, whole=whole)
    widths = Counter(map(len, records))
    # The most frequent width; of equally frequent ones the larger, as lines above a table are
    # narrow.
    width = max(widths, key=lambda each: (widths[each], each), default=0)
    # Any text has one field under a delimiter that it does not contain: no evidence for it.
    if width < 2:
        return None
    top = next(index for index, record in enumerate(records) if len(record) == width)
    if top and _is_trailing(records, width):
        return Layout(delimiter, records, trailing=True)
    if top and _are_titles(records, top):
        return Layout(delimiter, records[top:], top)
    return Layout(delimiter, records)


def _is_trailing(records: list[list[str]], width: int) -> bool:
    """Whether all records except the first have one extra field, which is empty."""
    first, *rest = records
    return len(first) == width - 1 and all(
        len(record) == width and not record[-1] for record in rest
    )


def _are_titles(records: list[list[str]], top: int) -> bool:
    """Whether the records above `top` are titles, not part of the table.

    They must be few, and the table below them unambiguous: all records of one width, a header of
    names only, and typed values below it or at least three columns of text.
    """
    table = records[top:]
    header = table[0]
    if top > _TITLE_RECORDS_MAX or len(table) < 2:
        return False
    if any(len(record) != len(header) for record in table):
        return False
    names = [field.strip() for field in header]
    if not all(names) or any(_typed([name]) for name in names):
        return False
    return len(header) > 2 or any(map(_typed, zip(*table[1:], strict=True)))


def _score(layout: Layout) -> tuple[bool, float, float, int]:
    """Score a layout: higher is better; of equal ones, the first in `_DELIMITERS` is used."""
    widths = Counter(map(len, layout.records))
    width = max(widths, key=lambda each: (widths[each], each))
    fits = layout.width == width
    agreeing = (widths[width] + layout.trailing) / widths.total()
    rows = [record for record in layout.records[1:] if len(record) == width]
    columns = list(zip(*(row[:_TYPED_COLUMNS] for row in rows), strict=True))
    typed = sum(map(_typed, columns)) / len(columns) if columns else 0.0
    # Rounded, so that a very small difference does not outweigh the columns' types.
    return fits, round(agreeing, 2), typed, width


def _records(text: str, delimiter: str, *, whole: bool) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    records = []
    try:
        for record in reader:
            if record:
                records.append(record)
            if len(records) > _SAMPLE_RECORDS:
                break
    except csv.Error:
        pass  # an over-long field: use the records before it
    # The end of the sample may have cut the last record.
    return records if whole or len(records) < 2 else records[:-1]


def _typed(fields: Sequence[str]) -> bool:
    text = pa.array([field or None for field in fields], pa.string())
    return infer_kind(text).kind not in ("text", "null")
