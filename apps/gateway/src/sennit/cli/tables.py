"""Text tables: fitted to the terminal's width; complete when the output is not a terminal.

Rich is not used, because its import takes longer than a small query. A cell cannot move the cursor:
control characters are shown as escapes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Sequence
from typing import Any
from unicodedata import combining, east_asian_width

from sennit_core.text import escape_controls

__all__ = ["draw"]

_GAP = "   "
_FOLDED = 30  # wider columns may be folded to this width before columns are omitted
_NULL = "∅"
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def draw(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Collection[str] = (),
    grouped: bool = False,
) -> None:
    """Print a table with numbers right-aligned; nothing is cut if the output is not a terminal.

    On a terminal too narrow for all columns, the last ones are omitted and their names printed.

    Args:
        title: printed above the table.
        columns: their names.
        rows: their values, one for each column.
        right: text columns to align to the right, such as sizes.
        grouped: whether to print thousands separators; user data may hold years or ids.
    """
    terminal = sys.stdout.isatty()
    names = [escape_controls(name) for name in columns]
    cells = [[_cell(value, grouped=grouped) for value in row] for row in rows]
    widths = [
        max(map(_width, (name, *(line[index] for line in cells))))
        for index, name in enumerate(names)
    ]
    if terminal:
        widths = _fitted(names, widths, shutil.get_terminal_size((80, 24)).columns)
    to_right = [
        name in right or (bool(rows) and all(_is_number(row[index]) for row in rows))
        for index, name in enumerate(columns)
    ]
    lines = [f"\n{_styled(escape_controls(title), _BOLD, terminal)}"] if title else []
    lines += [_styled(line, _BOLD, terminal) for line in _lines(names, widths, to_right)]
    lines.append("─" * (sum(widths) + len(_GAP) * max(len(widths) - 1, 0)))
    for row in cells:
        lines += _lines(row, widths, to_right)
    if hidden := names[len(widths) :]:
        more = f"… and {len(hidden)} more: {', '.join(hidden)}"
        width = shutil.get_terminal_size((80, 24)).columns
        lines += [_styled(part, _DIM, terminal) for part in _folded(more, width)]
    print("\n".join(lines))


def _fitted(names: Sequence[str], widths: Sequence[int], width: int) -> list[int]:
    """Return the widths of the columns that fit the terminal, with long texts folded."""
    room = width + len(_GAP)
    fitted: list[int] = []
    for name, natural in zip(names, widths, strict=True):
        least = max(_width(name), min(natural, _FOLDED))
        if room - least - len(_GAP) < 0 and fitted:
            break
        fitted.append(min(least, width))
        room -= least + len(_GAP)
    for index, natural in enumerate(
        widths[: len(fitted)]
    ):  # the remaining width goes to long texts
        more = max(0, min(natural - fitted[index], room))
        fitted[index] += more
        room -= more
    return fitted


def _lines(cells: Sequence[str], widths: Sequence[int], to_right: Sequence[bool]) -> list[str]:
    """Return the lines of a row: more than one if a cell is folded."""
    folded = [_folded(cell, width) for cell, width in zip(cells, widths, strict=False)]
    lines = []
    for index in range(max(map(len, folded), default=1)):
        parts = []
        for cell, width, is_right in zip(folded, widths, to_right, strict=False):
            text = cell[index] if index < len(cell) else ""
            space = " " * (width - _width(text))
            parts.append(space + text if is_right else text + space)
        lines.append(_GAP.join(parts).rstrip())
    return lines


def _folded(text: str, width: int) -> list[str]:
    if _width(text) <= width:
        return [text]
    lines, line, used = [], "", 0
    for letter in text:
        wide = _width(letter)
        if used + wide > width and line:
            lines.append(line)
            line, used = "", 0
        line += letter
        used += wide
    return [*lines, line]


def _width(text: str) -> int:
    """Return the width of a text in terminal columns (Unicode Standard Annex #11)."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _cell(value: Any, *, grouped: bool) -> str:
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and grouped:
        return f"{value:,}"
    return escape_controls(str(value))


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def _styled(text: str, style: str, terminal: bool) -> str:
    plain = not terminal or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return text if plain else f"{style}{text}{_PLAIN}"
