"""The commands `stats` and `doctor`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.cli.running import run_here, smallest_cap_of
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt.cli.console import RunOptions
    from emsqrt.expr import Agg
    from emsqrt.pipeline import Pipeline
    from emsqrt.planner.sampling import SampledRows
    from sennit_core.schema import Field

HISTOGRAM_BOUNDS = 13
"""Twelve parts: halves, thirds and quarters are among their bounds."""
SAMPLE_ROWS = 10_000
COLUMNS_AT_ONCE = 60
"""Most columns per pass over the rows, as each needs a sketch in memory."""
_NARROW_CELLS, _WIDE_CELLS = 12, 28


def print_stats(rows: Pipeline, cap_bytes: int, *, as_json: bool) -> None:
    """Print count, NULLs, distinct values, extremes and a histogram of each column of a file.

    All rows are read; distinct values are estimated by a sketch of fixed size. Histograms are
    computed from rows sampled across the file, or from all rows of a small file.
    """
    from emsqrt.expr import approx_count_distinct, col, count

    columns = rows.schema()
    found: dict[str, str] = {}
    # A file without columns is read once as well, to count its rows.
    for start in range(0, max(len(columns), 1), COLUMNS_AT_ONCE):
        named: dict[str, Agg] = {"rows": count()}
        for at, field in enumerate(columns.fields[start : start + COLUMNS_AT_ONCE], start):
            # Results are named by position, because the name of a column may contain anything.
            column = col(field.name)
            named |= {
                f"values{at}": column.count(),
                f"different{at}": approx_count_distinct(column),
                f"least{at}": column.min(),
                f"most{at}": column.max(),
            }
        found |= _first_row(rows.agg(**named), cap_bytes)
    sample = _sampled(rows, cap_bytes)
    report = [
        {
            "column": field.name,
            "type": str(field.type),
            "nulls": int(found["rows"]) - int(found[f"values{at}"]),
            # The sketch's estimate may exceed the number of values.
            "different": min(int(found[f"different{at}"]), int(found[f"values{at}"])),
            "min": found[f"least{at}"],
            "max": found[f"most{at}"],
            "histogram": _histogram(sample, field),
        }
        for at, field in enumerate(columns)
    ]
    if as_json:
        head = {"rows": int(found["rows"]), "histogramRows": sample.rows}
        print(json.dumps({**head, "columns": report}, indent=2))
        return
    print(f"{found['rows']} rows")
    print_table([_with_quarters(column) for column in report])
    if sample.rows < int(found["rows"]):
        print(f"quarters by {sample.rows} of the rows")


def _sampled(rows: Pipeline, cap_bytes: int) -> SampledRows:
    """Return a sample of rows across the file: pieces of text, single rows of other formats."""
    from emsqrt.plan import Files
    from emsqrt.planner import scan_of
    from emsqrt.planner.sampling import sample_text

    schema, files = rows.schema(), scan_of(rows.plan).source
    assert isinstance(files, Files), "it was named on the command line"
    source = Path(files.paths[0])
    if files.format in ("csv", "jsonl") and source.is_file() and "encoding" not in files.options:
        return sample_text([source], files.format, files.options, schema)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.csv"
        # A text file can be sampled at offsets; other formats, and other encodings, by a run.
        run_here(rows.sample(count=SAMPLE_ROWS).sink(target).plan, cap_bytes)
        return sample_text([target], "csv", {}, schema, target.stat().st_size)


def _histogram(sample: SampledRows, field: Field) -> list[str]:
    """Return bounds that divide the sampled values into equal shares, as text."""
    from emsqrt.planner.statistics import equal_parts

    # Without NaN, which is not equal to itself and has no place in an order.
    values = [value for value in sample.values(field.name) if value == value]
    return [_spelled(value) for value in equal_parts(sorted(values), HISTOGRAM_BOUNDS)]


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _with_quarters(column: dict[str, Any]) -> dict[str, Any]:
    bounds = column["histogram"]
    last = len(bounds) - 1
    quarters = [bounds[last * part // 4] for part in (1, 2, 3)] if bounds else []
    shown = {name: value for name, value in column.items() if name != "histogram"}
    return {**shown, "quarters": " | ".join(quarters)}


def _first_row(rows: Pipeline, cap_bytes: int) -> dict[str, str]:
    """Run a pipeline of one row into a scratch file, and read the row back as text."""
    import csv

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "row.csv"
        run_here(rows.sink(target).plan, cap_bytes)
        with target.open(newline="", encoding="utf-8") as file:
            return next(csv.DictReader(file))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print dictionaries with the same keys as columns of text."""
    names = list(rows[0]) if rows else []
    cells = [[_short(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for line in (names, *cells):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)))


def _short(value: object) -> str:
    text = str(value) if str(value).isprintable() else repr(str(value))[1:-1]
    return text if len(text) <= _WIDE_CELLS else text[: _WIDE_CELLS - 1] + "…"


def print_doctor(rows: Pipeline | None, options: RunOptions, *, as_json: bool) -> None:
    """Print the limits of this machine, and for a file the smallest cap of each command."""
    from emsqrt.memory.auto import auto_cap

    limit = auto_cap()
    report: dict[str, Any] = {
        "auto": {"capBytes": limit.cap_bytes, "limit": limit.source},
        "verbs": {} if rows is None else smallest_caps(rows, options),
    }
    if as_json:
        print(json.dumps(report, indent=2))
        return
    print(f'mem_cap "auto" is {format_bytes(limit.cap_bytes)} here: {limit.source} less headroom')
    for verb, needed in report["verbs"].items():
        print(f"{verb:<6} {format_bytes(needed['capBytes']):>{_NARROW_CELLS}}  {needed['because']}")


def smallest_caps(rows: Pipeline, options: RunOptions) -> dict[str, dict[str, Any]]:
    """Return the smallest cap under which sort, agg and join of a file are admitted, and why.

    Args:
        rows: of a file; the commands use its first column as key.
        options: where and how they would spill.
    """
    from emsqrt.plan import Files
    from emsqrt.planner import scan_of

    files = scan_of(rows.plan).source
    assert isinstance(files, Files), "it was named on the command line"
    key = rows.schema().fields[0].name
    verbs = {
        "sort": rows.sort(key),
        "agg": rows.group_by(key).agg(n="count(*)"),
        "join": rows.join(rows, on=[(key, key)]),
    }
    with tempfile.TemporaryDirectory() as folder:
        # Never written, but the sink's format decides how much memory it reserves.
        target = str(Path(folder) / f"out{Path(files.paths[0]).suffix}")
        plans = {verb: made.sink(target).plan for verb, made in verbs.items()}
        return {verb: smallest_cap_of(plan, options) for verb, plan in plans.items()}
