"""`emsqrt sql`: run a statement over files; print its rows as a table or text, or write a file.

Two processes, one after the other: this one parses the statement and then becomes the other, which
runs the plan. The SQL parser uses 30 MiB, which the second process does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.cli.console import RunOptions
from emsqrt.cli.running import carry_out, planning_bytes, smallest_cap_of
from emsqrt.environment import LEAN_ENVIRONMENT
from emsqrt.io.locations import STANDARD_NAMES
from emsqrt.plan import Files, Plan, plan_from_json, plan_to_json
from emsqrt.plan.tree import scans_of
from sennit_core.errors import CapTooSmall, NotFound, UsageError

if TYPE_CHECKING:
    from emsqrt.pipeline import Pipeline

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "csv": ("csv", {}),
    "tsv": ("csv", {"delimiter": "\t"}),
    "json": ("jsonl", {"array": True}),
    "jsonl": ("jsonl", {}),
    "parquet": ("parquet", {}),
    "arrow": ("arrow", {}),
}
"""Values of `--format` in addition to "table": the plan's format name, and options of the sink."""
_READING_BYTES = 1 << 20
"""How much more memory parsing a statement may need in the next run."""


def answer(arguments: argparse.Namespace, config: RunOptions) -> int:
    """Parse a statement, plan it, and run it in a process without the parser."""
    from emsqrt.sql_plan import sql

    text = _statement(arguments)
    rows = sql(text, _tables(arguments.table), files=True)
    plan, shown = _ended(rows, arguments)
    options = replace(config, answer=shown)
    if _reads_standard_input(plan):  # only this process holds the bytes read ahead
        _run(plan, options, may_become=False)
        return 0
    # This process, with the SQL parser, is under the cap as well.
    needed = planning_bytes()
    if options.cap_bytes < needed:
        raise _refusal(plan, options, needed + _READING_BYTES)
    return _hand_over(plan, replace(options, planning_bytes=needed), arguments)


def run_planned(descriptor: int, *, may_become: bool) -> int:
    """Run the request that `answer` planned; it is read from a file descriptor."""
    with os.fdopen(descriptor, "rb") as file:
        request = json.loads(file.read())
    _run(plan_from_json(request["plan"]), RunOptions(**request["options"]), may_become=may_become)
    return 0


def _statement(arguments: argparse.Namespace) -> str:
    """Return the statement: the argument, the content of `--file`, or standard input for `-`."""
    named, file = arguments.statement, arguments.file
    if (named is None) == (file is None):
        raise UsageError(
            "sql needs exactly one statement",
            hint="emsqrt sql \"select count(*) from 'orders.parquet'\", or --file query.sql",
        )
    if named is not None:
        return str(sys.stdin.read() if named == "-" else named)
    if not file.is_file():
        raise NotFound(kind="file", name=str(file))
    return str(file.read_text("utf-8"))


def _tables(named: list[str]) -> dict[str, str]:
    tables = {}
    for each in named:
        name, equals, path = each.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"--table {each} has no file", hint="write --table NAME=FILE")
        tables[name] = path
    return tables


def _ended(rows: Pipeline, arguments: argparse.Namespace) -> tuple[Plan, dict[str, Any] | None]:
    """Return the plan with its sink, and how to print its rows; None if they go to a file."""
    from emsqrt.pipeline import SUFFIX_FORMATS, plain_suffix

    target = arguments.output
    is_file = target not in STANDARD_NAMES
    name = arguments.format or (_format_of(target) if is_file else _usual_format())
    if name == "table":
        if is_file:
            raise UsageError(
                "a table cannot be written to a file", hint="use another --format with -o FILE"
            )
        return _shown(rows, arguments.rows)
    if name is None and plain_suffix(target) not in SUFFIX_FORMATS:
        raise UsageError(f"the suffix of {target!r} names no known format", hint="use --format")
    kind, format_options = (None, {}) if name is None else _FORMATS[name]
    plan = rows.sink(target, kind, **format_options).plan
    return plan, None if is_file else {}


def _format_of(target: str) -> str | None:
    return "json" if target.lower().endswith((".json", ".json.gz", ".json.zst")) else None


def _usual_format() -> str:
    return "table" if sys.stdout.isatty() else "csv"


def _shown(rows: Pipeline, rows_max: int) -> tuple[Plan, dict[str, Any]]:
    """Return a plan of at most `rows_max` rows plus one, which indicates that there are more."""
    from emsqrt.sql_plan.types import sql_type_name

    if rows_max < 0:
        raise UsageError(f"--rows {rows_max} is not a number of rows")
    headings = [(f.name, sql_type_name(f.type), f.type.is_numeric) for f in rows.schema()]
    # Now: in `print_answer`, standard output is the file of rows.
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    shown = {"headings": headings, "rows": rows_max, "columns": columns}
    return rows.limit(rows_max + 1).sink("-", "csv").plan, shown


def _reads_standard_input(plan: Plan) -> bool:
    sources = [scan.source for scan in scans_of(plan)]
    return any(
        path in STANDARD_NAMES for each in sources if isinstance(each, Files) for path in each.paths
    )


def _refusal(plan: Plan, options: RunOptions, reading_bytes: int) -> CapTooSmall:
    least = smallest_cap_of(plan, options)
    if least["capBytes"] > reading_bytes:
        return CapTooSmall(options.cap_bytes, least["capBytes"], least["because"])
    because = "parsing the statement needs this much: it loads the SQL parser"
    return CapTooSmall(options.cap_bytes, reading_bytes, because)


def _hand_over(plan: Plan, options: RunOptions, arguments: argparse.Namespace) -> int:
    """Become the process that runs the plan, or start it as a child if this one must continue."""
    request = {"plan": plan_to_json(plan), "options": asdict(options)}
    # As in `running._become`: any length, and not visible in `ps`.
    handed = os.memfd_create("emsqrt-statement", 0)  # inherited
    os.write(handed, json.dumps(request).encode())
    os.lseek(handed, 0, os.SEEK_SET)
    sys.stdout.flush()
    sys.stderr.flush()
    words = [sys.executable, "-P", "-m", "emsqrt.cli", "sql", "--planned", str(handed)]
    environment = {**os.environ, **LEAN_ENVIRONMENT}
    if arguments.may_become:
        os.execve(sys.executable, words, environment)
    with os.fdopen(handed, "rb"):
        pid = os.posix_spawn(sys.executable, words, environment)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run(plan: Plan, options: RunOptions, *, may_become: bool) -> None:
    """Run a plan; if its rows are to be printed as a table, write them to an unnamed file first."""
    if not options.answer:
        carry_out(plan, options, may_become=may_become)
        return
    # Column widths are known only after the last row, and rows of any length must not be held in
    # memory. In the spill folder, because /tmp may be memory.
    #     descriptor 1 ──▶ unnamed file ──print_answer──▶ screen (the former descriptor 1)
    with tempfile.TemporaryFile(dir=_folder(options)) as rows:
        # Descriptors, not `sys.stdout`: they survive `execv` if they are inheritable, and the
        # process that follows prints the table.
        screen = os.dup(1)
        os.set_inheritable(screen, True)
        try:
            os.dup2(rows.fileno(), 1)
            shown = {**options.answer, "descriptor": screen}
            carry_out(plan, replace(options, answer=shown), may_become=may_become)
        finally:
            # Also after an error, whose message must not go into the file.
            os.dup2(screen, 1)
            os.close(screen)


def _folder(options: RunOptions) -> Path:
    """Return the folder on a disk where the run may spill."""
    from emsqrt.spill.placement import default_spill_dir

    folder = default_spill_dir() if options.spill_dir is None else Path(options.spill_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def print_answer(shown: Mapping[str, Any]) -> None:
    """Print the rows of the file that replaced standard output, as a table."""
    from emsqrt.cli.table import Heading, read_rows, table_text

    headings = [Heading(*each) for each in shown["headings"]]
    with (
        suppress(BrokenPipeError),
        os.fdopen(os.dup(1), "r", encoding="utf-8", errors="replace", newline="") as written,
        os.fdopen(os.dup(shown["descriptor"]), "w", encoding="utf-8", errors="replace") as screen,
    ):
        written.seek(0)
        rows = read_rows(written)
        next(rows, None)  # the header
        screen.write(table_text(headings, rows, shown["rows"], shown["columns"]))
