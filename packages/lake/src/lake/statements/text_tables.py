"""Tables for a terminal: text in aligned columns, bounded in width, without control characters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from unicodedata import east_asian_width

from sennit_core.text import escape_controls

__all__ = ["cell", "table_lines"]

_CELL_CHARACTERS = 60


def cell(value: Any) -> str:
    """Return a value as short text: NULL for None, JSON for lists and structs."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool | int | float | list | dict):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    text = escape_controls(text)
    return text if len(text) <= _CELL_CHARACTERS else f"{text[: _CELL_CHARACTERS - 1]}…"


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table.

    Args:
        head: The names of its columns.
        rows: The cells, as text.
    """
    lines = [[escape_controls(text) for text in row] for row in (head, *rows)]
    columns: Iterator[tuple[str, ...]] = zip(*lines, strict=True)
    widths = [max(map(_width, column)) for column in columns]
    for row in lines:
        padded = (
            text + " " * (width - _width(text)) for text, width in zip(row, widths, strict=True)
        )
        yield "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Return how many places of a terminal the text takes: Chinese characters take two."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
