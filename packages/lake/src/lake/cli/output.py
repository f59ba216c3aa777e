"""Prints results: tables in aligned columns, or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lake.statements.text_tables import cell, table_lines
from sennit_core.text import escape_controls
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from lake.maintenance.scrub import ScrubReport
    from lake.statements.running import RunningStatement

__all__ = ["SHOWN_ROWS", "print_report", "print_result", "print_rows", "print_table", "shown_time"]

SHOWN_ROWS = 1000
"""Rows of a result that are printed as a table."""


def print_result(options: argparse.Namespace, execution: RunningStatement) -> None:
    """Print the result of a statement: a table of its first rows, or with `--csv`, `--json` all."""
    if options.csv or options.json:
        for piece in execution.payloads():
            sys.stdout.buffer.write(piece)
        if options.json:
            sys.stdout.buffer.write(b"\n")
        return
    document = json.loads(b"".join(bytes(piece) for piece in execution.payloads()))
    columns = [column["name"] for column in document["columns"]]
    print_table(columns, [[cell(value) for value in row] for row in document["rows"]])
    if document["truncated"]:
        print(f"The first {SHOWN_ROWS:,} rows; --csv or --json prints all.", file=sys.stderr)


def print_report(options: argparse.Namespace, report: ScrubReport) -> int:
    """Print what a verification found; return the exit status."""
    if options.json:
        print(json.dumps(report.to_json()))
        return 1 if report.findings else 0
    for finding in report.findings:
        print(escape_controls(finding.problem))
    damaged = len({finding.dataset_id for finding in report.findings})
    counts = f"{report.datasets:,} datasets, {report.objects:,} objects"
    result = f"{damaged:,} datasets damaged" if damaged else "no damage"
    aside = f", {report.quarantined:,} objects in quarantine" if report.quarantined else ""
    print(f"{counts}, {format_bytes(report.bytes_done)} read: {result}{aside}")
    return 1 if report.findings else 0


def print_rows(
    options: argparse.Namespace, document: Any, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print the document with `--json`, else the rows as a table."""
    if options.json:
        print(json.dumps(document))
    else:
        print_table(head, rows)


def shown_time(seconds: float) -> str:
    """Return Unix seconds as a time in UTC; "" for 0."""
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in columns, with control characters escaped."""
    for line in table_lines(head, rows):
        print(line)
