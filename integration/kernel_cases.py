"""Random expressions over random rows, computed by the generated code of `@sennit/elytra`."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from random_expressions import COLUMNS, Expressions, random_rows

from emsqrt.expr import Expr, TypeMismatch, ValueOutOfRange, expr_to_json, infer
from emsqrt.expr.evaluate import evaluate
from emsqrt.expr.sql import to_sql
from emsqrt.expr.vectors import same_values
from sennit_core.errors import Unsupported

PROGRAM = """
import { CsvReader } from './node_modules/@sennit/elytra/dist/engine/csv.js'
import { Kernel } from './node_modules/@sennit/elytra/dist/engine/kernel.js'
import { parseType, typeText } from './node_modules/@sennit/elytra/dist/engine/types.js'
import { readArrow } from './node_modules/@sennit/elytra/dist/arrow/read.js'
import { writeArrow } from './node_modules/@sennit/elytra/dist/arrow/write.js'

const bytesOf = (text) => Uint8Array.from(atob(text), (unit) => unit.charCodeAt(0))
const textOf = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))

function computed(expr, fields, batches) {
  const columns = [{ name: 'made', expr }]
  const input = { op: 'scan', source: { dataset: '' } }
  const kernel = Kernel.of([{ op: 'project', input, columns }], fields)
  const [{ type }] = kernel.fields
  return batches.map((batch) => {
    const { columns: [column], rows } = kernel.run(batch)
    return textOf(writeArrow([{ name: 'made', type: typeText(type), column }], rows))
  })
}

function attempt(run) {
  try {
    return { streams: run() }
  } catch (error) {
    return { error: error.code ?? String(error.stack) }
  }
}

/** The values of each case from an Arrow stream and from CSV, or why there are none. */
export function computeCases(cases) {
  return cases.map(({ expr, arrow, csv, schema }) => {
    const stream = readArrow(bytesOf(arrow))
    const batches = [...stream.batches()]
    const fields = schema.map(([name, type]) => ({ name, type: parseType(type) }))
    const reader = new CsvReader(fields, new Set(fields.map(({ name }) => name)))
    const read = [...reader.add(bytesOf(csv)), ...reader.finish()]
    return [
      attempt(() => computed(expr, stream.fields, batches)),
      attempt(() => computed(expr, fields, read)),
    ]
  })
}
"""


@dataclass(frozen=True)
class Case:
    """An expression, and the rows that it is computed for."""

    expr: Expr
    rows: pa.Table

    def to_json(self) -> dict[str, Any]:
        """Return the case as `computeCases` takes it."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.rows.schema) as writer:
            writer.write_table(self.rows)
        return {
            "expr": expr_to_json(self.expr),
            "arrow": base64.b64encode(sink.getvalue().to_pybytes()).decode(),
            "csv": base64.b64encode(_csv_of(self.rows).encode()).decode(),
            "schema": [[field.name, str(field.type)] for field in COLUMNS.fields],
        }


def random_cases(count: int, number: int) -> list[Case]:
    """Return cases, the same ones for the same number."""
    dice = random.Random(number)
    makes = Expressions(dice)
    found: list[Case] = []
    rows = random_rows(dice, 8)
    while len(found) < count:
        expr = makes.make(dice.choice("ifspdt"), dice.randint(1, 4))
        try:
            infer(expr, COLUMNS)
        except TypeMismatch:
            continue  # no integer type holds both an Int64 and a UInt64
        if len(found) % 5 == 0:
            rows = random_rows(dice, 8)
        found.append(Case(expr, rows))
    return found


def check_cases(cases: list[Case], compute: Callable[[str], Any]) -> int:
    """Compare what JavaScript computes with EM-√, and EM-√ with DuckDB.

    Args:
        cases: what is computed.
        compute: runs `computeCases` on a JSON text.

    Returns:
        The number of values that were compared; what JavaScript refuses is not.
    """
    results = compute(json.dumps([case.to_json() for case in cases]))
    compared = 0
    with duckdb.connect() as connection:
        for case, (arrow, text) in zip(cases, results, strict=True):
            for found in (arrow, text):
                compared += _compare(case, found)
            _ask_duckdb(case, connection)
    return compared


def _compare(case: Case, found: dict[str, Any]) -> int:
    expected = _expected(case)
    error = found.get("error")
    if error == "unsupported":
        return 0
    if expected is None or error is not None:
        assert (expected, error) == (None, "value-out-of-range"), f"{case.expr!s}: {error}"
        return int(case.rows.num_rows)
    tables_ = [pa.ipc.open_stream(base64.b64decode(each)).read_all() for each in found["streams"]]
    made = pa.concat_tables(tables_).column("made")
    assert made.type == expected.type, f"{case.expr!s}: {made.type} is not {expected.type}"
    ours, theirs = _values_of(made), _values_of(expected)
    shown = (str(case.expr), ours, theirs, case.rows.to_pylist())
    assert same_values(ours, theirs), shown
    return int(case.rows.num_rows)


def _values_of(column: Any) -> list[Any]:
    """Return the values of a column; days and ticks, as Python has no years beyond 9999."""
    if pa.types.is_date32(column.type):
        column = column.cast(pa.int32())
    elif pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return list(column.to_pylist())


def _expected(case: Case) -> pa.Array | None:
    try:
        return evaluate(case.expr, case.rows.to_batches()[0])
    except ValueOutOfRange:
        return None


def _ask_duckdb(case: Case, connection: duckdb.DuckDBPyConnection) -> None:
    """Fail if DuckDB has other values; it may compute an operand that is not needed, and fail."""
    expected = _expected(case)
    if expected is None:
        return
    try:
        ours = expected.to_pylist()
    except OverflowError:
        return  # a year that Python has not, so that DuckDB's rows cannot be fetched
    try:
        connection.register("t", case.rows)
        sql = f"SELECT {to_sql(case.expr, COLUMNS)} FROM t"
        theirs = [value for (value,) in connection.execute(sql).fetchall()]
    except (Unsupported, duckdb.Error, OverflowError):
        return
    assert same_values(ours, theirs), f"{case.expr!s}: {theirs}"


def _csv_of(rows: pa.Table) -> str:
    """Spell rows as CSV without a header: NULL is nothing, and some texts are quoted."""
    dice = random.Random(rows.num_rows)
    out = io.StringIO()
    for row in rows.to_pylist():
        out.write(",".join(_spelled(value, dice) for value in row.values()) + "\n")
    return out.getvalue()


def _spelled(value: Any, dice: random.Random) -> str:
    if value is None:
        return ""
    text = repr(value) if isinstance(value, float) else str(value)
    must = text == "" or any(mark in text for mark in '",\r\n')
    if must or dice.random() < 0.3:
        return '"' + text.replace('"', '""') + '"'
    return text
