"""Whole plans run inside the test's own process, in a fixed amount of memory.

Three ways that must agree: operators over batches in memory, the arrow tier from files to a file,
and the text tier from CSV to CSV.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from fuzz_oracle import rows_of

from emsqrt.choices import JoinChoice
from emsqrt.execution_context import ExecutionContext
from emsqrt.executor.context import EntryContext
from emsqrt.expr.sql import sql_name, sql_type
from emsqrt.memory import MemoryBudget
from emsqrt.operators import Operator, make_operator
from emsqrt.plan import Files, FileTarget, Plan, Scan, Sink, plan_to_json
from emsqrt.plan.check import scan_schema
from emsqrt.plan.tree import fold
from emsqrt.planner import lower_to_physical
from emsqrt.session import run_plan
from emsqrt.testing import InputRows
from emsqrt.text_engine.compile import try_compile
from emsqrt.text_engine.session import run_text
from sennit_core.errors import CapTooSmall
from sennit_core.schema import DataType, Schema

Rows = list[tuple[Any, ...]]
Tables = Mapping[str, pa.Table]
T = TypeVar("T")


@dataclass(slots=True)
class Ran:
    """The result of a run: its rows, and how many bytes it spilled."""

    rows: Rows
    spilled_bytes: int


@contextmanager
def a_run(memory_bytes: int, scratch: Path) -> Iterator[ExecutionContext]:
    """Yield a session of the arrow tier with so much memory; all of it must be free at the end."""
    with MemoryBudget(memory_bytes) as budget:
        spill = scratch / "spill"
        context = EntryContext(
            "the test", memory_bytes, NullStream(), lambda _: None, spill, None, budget
        )
        with closing(context), ExecutionContext(context, scratch) as run:
            yield run


def run_batches(
    plan: Plan,
    tables: Tables,
    memory_bytes: int,
    scratch: Path,
    batch_rows: int = 1000,
    build: tuple[bool, int | None] = (False, None),
) -> Ran:
    """Run the operators of a plan as it is written; its scans read tables in memory.

    Args:
        plan: without a sink.
        tables: by the first path of the scans.
        memory_bytes: all that is to be used.
        scratch: where spilled bytes go.
        batch_rows: in each batch of a table.
        build: for joins that hash: whether the left side is built, and its supposed bytes.
    """

    def scan(node: Scan) -> Operator:
        assert isinstance(node.source, Files)
        schema = scan_schema(node)
        table = tables[node.source.paths[0]].select(list(schema.names))
        return InputRows(schema, table.to_batches(max_chunksize=batch_rows))

    with a_run(memory_bytes, scratch) as run:
        run.choose(_choices(plan, *build))
        places = count()

        def make(node: Plan, inputs: tuple[Operator, ...]) -> Operator:
            place = next(places)
            return (
                scan(node)
                if isinstance(node, Scan)
                else make_operator(node, inputs, run.view(place))
            )

        operator = fold(plan, make)
        run.map_working_set()
        with run.translate_memory_errors(), closing(operator.batches()) as batches:
            made = list(batches)
        table = pa.Table.from_batches(made, operator.schema.to_arrow())
        return Ran(rows_of(table), run.spilled_bytes)


def _choices(plan: Plan, build_left: bool, build_bytes: int | None) -> dict[int, JoinChoice]:
    """Return the strategy of each join: merged where possible, else as passed."""
    choices = {}
    for node in lower_to_physical(plan).plan.nodes:
        if node.choice is not None:
            left = build_left and not node.choice.merge and node.strategy.startswith("hash")
            choices[node.id] = replace(node.choice, build_left=left, build_bytes=build_bytes)
    return choices


def run_files(plan: Plan, memory_bytes: int, scratch: Path, kind: str, schema: Schema) -> Ran:
    """Run a plan in the arrow tier, from its files to a file of `kind`; read that back."""
    target = scratch / f"out.{kind}"
    document = plan_to_json(Sink(plan, FileTarget(str(target), kind)))
    with ExitStack() as stack:
        budget = stack.enter_context(MemoryBudget(memory_bytes))
        spill = scratch / "spill"
        context = EntryContext(
            "the test", memory_bytes, NullStream(), lambda _: None, spill, None, budget
        )
        stack.enter_context(closing(context))
        manifest = run_plan(document, context, scratch)
    return Ran(read_rows(target, kind, schema), manifest.spilled_bytes)


def run_text_plan(
    plan: Plan, memory_bytes: int, scratch: Path, schema: Schema, kind: str = "csv"
) -> Ran | None:
    """Run a plan in the text tier, from its text to text; None when it is not for that tier."""
    target = scratch / f"text.{kind}"
    program = try_compile(Sink(plan, FileTarget(str(target), kind)), scratch)
    if program is None:
        return None
    with ExitStack() as stack:
        budget = stack.enter_context(MemoryBudget(memory_bytes))
        spill = scratch / "spill"
        context = EntryContext(
            "the test", memory_bytes, NullStream(), lambda _: None, spill, None, budget
        )
        stack.enter_context(closing(context))
        report = run_text(program, context)
    return Ran(read_rows(target, kind, schema), report.get("spilledBytes", 0))


def smallest(
    run: Callable[[int], T],
    memory_bytes: int = 1 << 16,
    most_bytes: int = 1 << 30,
    refusals: int = 3,
) -> tuple[T, int]:
    """Call `run` with the memory that its refusals ask for, until it is not refused.

    Returns:
        What it returned, and the memory it then had.
    """
    for _ in range(refusals + 1):
        try:
            return run(memory_bytes), memory_bytes
        except CapTooSmall as error:
            if not memory_bytes < error.needed_bytes <= most_bytes:
                raise
            memory_bytes = error.needed_bytes
    raise AssertionError(f"refused {refusals + 1} times, last with {memory_bytes} bytes")


def write_table(table: pa.Table, schema: Schema, path: Path) -> None:
    """Write a table as the file's suffix says, in plain Python where the format is text."""
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path, row_group_size=4096, data_page_size=1 << 14)
        case ".arrow":
            with pa.ipc.new_file(path, table.schema) as arrow:
                arrow.write_table(table, max_chunksize=3000)
        case ".jsonl":
            with path.open("w", encoding="utf-8", newline="") as file:
                for row in rows_of(table):
                    values = zip(schema, row, strict=True)
                    line = {field.name: json_value(value, field.type) for field, value in values}
                    file.write(json.dumps(line) + "\n")
        case _:
            with path.open("w", encoding="utf-8", newline="") as file:
                file.write(",".join(schema.names) + "\n")
                for row in rows_of(table):
                    fields = map(csv_field, row, (field.type for field in schema))
                    file.write(",".join(fields) + "\n")


def csv_field(value: Any, kind: DataType) -> str:
    """Return a value as a field of CSV; texts in quotes."""
    if value is None:
        return ""
    if kind.name == "Utf8":
        doubled = str(value).replace('"', '""')
        return f'"{doubled}"'
    return _plain_text(value, kind)


def json_value(value: Any, kind: DataType) -> Any:
    """Return a value as a member of a line of JSON."""
    if value is None or kind.name in ("Utf8", "Bool") or kind.is_integer:
        return value
    return _plain_text(value, kind)


def _plain_text(value: Any, kind: DataType | None = None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, datetime):
        zone = "Z" if value.tzinfo else ""
        unit = "milliseconds" if kind is not None and kind.unit == "ms" else "microseconds"
        return value.replace(tzinfo=None).isoformat(timespec=unit) + zone
    return str(value)


def read_rows(path: Path, kind: str, schema: Schema) -> Rows:
    """Read a file with nothing of the engine: its rows, as values of the schema's types."""
    if kind == "parquet":
        return rows_of(pq.read_table(path))
    if kind == "arrow":
        with pa.ipc.open_file(path) as reader:
            return rows_of(reader.read_all())
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if kind == "jsonl":
            lines = [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
            columns = [[_spelled(line.get(name)) for line in lines] for name in schema.names]
            connection.register("texts", pa.table(columns, names=list(schema.names)))
            source = "texts"
        else:
            names = ", ".join(f"'{name}': 'VARCHAR'" for name in schema.names)
            options = "auto_detect=false, header=true, delim=',', quote='\"', escape='\"', "
            options += "new_line='\\n', nullstr='', allow_quoted_nulls=false, max_line_size=9999999"
            source = f"read_csv('{path}', {options}, columns={{{names}}})"
        wanted = ", ".join(
            f"CAST({sql_name(field.name)} AS {sql_type(field.type)}) AS {sql_name(field.name)}"
            for field in schema
        )
        found = connection.sql(f"SELECT {wanted} FROM {source}")
        return rows_of(found.to_arrow_table())


def _spelled(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else _plain_text(value)


class NullStream:
    """A stream that drops its output."""

    payload_bytes_max = 1 << 20

    def write_bytes(self, payload: Any) -> None:
        """Drop it."""
