"""How verbs speak: JSON for programs, tables for people, errors with what to do next."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sennit_core.errors import SennitError, SqlError, UsageError

_STATUS_OF_CODE = {
    "usage": 2, "sql": 2, "unknown-column": 2, "unsupported": 2, "bad-input": 2,
    "unavailable": 3, "not-found": 4, "denied": 5, "unauthenticated": 5, "conflict": 5,
    "too-large": 6, "cap-too-small": 6, "memory-cap-exceeded": 6, "storage-full": 6, "busy": 6,
    "cancelled": 130,
}  # fmt: skip
_WIDE = 240  # columns, where the output is not a terminal and nothing should be cut
_GAP = 3  # between two columns of a table
_FOLDED = 30  # a longer text may be folded before its column is left out


def report(problem: Exception, *, as_json: bool) -> int:
    """Say on stderr what went wrong and what to do; answer the exit status."""
    error = _as_sennit(problem)
    if error is None:
        raise problem
    if as_json:
        print(json.dumps(error.to_json()), file=sys.stderr)
    else:
        print(f"error: {error}{_place(error)}", file=sys.stderr)
        if error.hint:
            print(f"hint:  {error.hint}", file=sys.stderr)
    return _STATUS_OF_CODE.get(error.code, 1)


def _place(error: SennitError) -> str:
    """Where in a statement the error is, when it knows and its sentence does not say."""
    if not isinstance(error, SqlError) or error.line is None or "line " in str(error).lower():
        return ""
    column = f", column {error.column}" if error.column is not None else ""
    return f" (line {error.line}{column})"


def _as_sennit(problem: Exception) -> SennitError | None:
    from typer.exceptions import TyperException

    if isinstance(problem, SennitError):
        return problem
    if isinstance(problem, TyperException):
        return UsageError(problem.format_message(), hint="see `platform --help`")
    if isinstance(problem, FileNotFoundError):
        return UsageError(f"no such file: {problem.filename}", hint="check the path")
    if isinstance(problem, IsADirectoryError):
        return UsageError(f"{problem.filename} is a folder", hint="name a file")
    return None


def emit_json(value: Any) -> None:
    """Print one JSON document."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
    print()


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Collection[str] = (),
    grouped: bool = True,
) -> None:
    """Print a table; numbers to the right, nothing cut when the output is no terminal.

    On a terminal too narrow for every column the last ones are left out and named.

    Args:
        title: printed above the table.
        columns: their names.
        rows: their values, as many as there are columns.
        right: columns that go to the right although they hold text, such as sizes.
        grouped: whether thousands are set apart; a year or an id in somebody's data is no amount.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    cells = [[_cell(value, grouped=grouped) for value in row] for row in rows]
    shown = _fitting(columns, cells, console.width) if console.is_terminal else len(columns)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, name in enumerate(columns[:shown]):
        numeric = all(isinstance(row[index], (int, float)) or row[index] is None for row in rows)
        to_right = (rows and numeric) or name in right
        drawn.add_column(Text(name), justify="right" if to_right else "left", overflow="fold")
    for line in cells:
        drawn.add_row(*map(Text, line[:shown]))
    if title:
        console.print(f"\n{title}", style="bold", markup=False)
    console.print(drawn)
    if hidden := columns[shown:]:
        console.print(f"… and {len(hidden)} more: {', '.join(hidden)}", style="dim", markup=False)


def _fitting(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> int:
    """How many columns a terminal has room for, at their natural width or _FOLDED of it."""
    room = width + _GAP
    for index, name in enumerate(columns):
        natural = max(map(len, (name, *(line[index] for line in cells))))
        room -= max(len(name), min(natural, _FOLDED)) + _GAP
        if room < 0:
            return max(index, 1)
    return len(columns)


def _cell(value: Any, *, grouped: bool) -> str:
    if value is None:
        return "∅"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and grouped:
        return f"{value:,}"
    return str(value)


@contextmanager
def progress(what: str, unit: str = "bytes") -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr when that is a terminal; the yielded function takes (done, total)."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount = (
        (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    )
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
