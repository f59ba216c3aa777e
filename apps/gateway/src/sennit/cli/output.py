"""Output of the verbs: JSON for programs, tables for people, errors with hints."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sennit_core.errors import SennitError, SqlError, StorageFull, UsageError

_STATUS_OF_CODE = {
    "usage": 2, "sql": 2, "unknown-column": 2, "unsupported": 2, "bad-input": 2,
    "unavailable": 3, "not-found": 4, "denied": 5, "unauthenticated": 5, "conflict": 5,
    "too-large": 6, "cap-too-small": 6, "memory-cap-exceeded": 6, "storage-full": 6, "busy": 6,
    "cancelled": 130,
}  # fmt: skip


def report(problem: Exception, *, as_json: bool) -> int:
    """Print an error and its hint on stderr; return the exit status."""
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
    """Return the error's position in the statement, unless the message already has it."""
    if not isinstance(error, SqlError) or error.line is None or "line " in str(error).lower():
        return ""
    column = f", column {error.column}" if error.column is not None else ""
    return f" (line {error.line}{column})"


def _as_sennit(problem: Exception) -> SennitError | None:
    if isinstance(problem, SennitError):
        return problem
    from typer.exceptions import Abort, TyperException

    if isinstance(problem, Abort):  # no, or no terminal to ask at
        return UsageError("the question was not answered with yes", hint="--yes does not ask")
    if isinstance(problem, TyperException):
        return UsageError(problem.format_message(), hint="see `platform --help`")
    if isinstance(problem, FileNotFoundError):
        return UsageError(f"no such file: {problem.filename}", hint="check the path")
    if isinstance(problem, IsADirectoryError):
        return UsageError(f"{problem.filename} is a folder", hint="name a file")
    if isinstance(problem, OSError):
        return _system_error(problem)
    return None


def _system_error(problem: OSError) -> SennitError:
    """Convert an OSError to an error that names the file and has a hint."""
    where = problem.filename or "the terminal or the network"
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(path=str(where), hint="make room on the disk, or delete datasets")
    if isinstance(problem, PermissionError):
        return UsageError(
            f"{where}: permission denied", hint="use a file or folder that you can access"
        )
    return UsageError(f"{where}: {problem.strerror or problem}", hint="check the path")


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
    """Print a table; arguments as in `sennit.cli.tables.draw`, with thousands separators."""
    from sennit.cli.tables import draw

    draw(title, columns, rows, right=right, grouped=grouped)


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Show one changing line if stderr is a terminal; yield a function that replaces it."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


@contextmanager
def progress(what: str, unit: str = "bytes") -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar if stderr is a terminal; yield a function to call with (done, total)."""
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
