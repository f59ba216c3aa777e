"""Every vector of `spec/semantics` against this engine, and against DuckDB where it has SQL."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from emsqrt.expr import Agg, Expr, expr_from_json, parse_expr
from emsqrt.expr.evaluate import evaluate
from emsqrt.expr.sql import to_sql
from emsqrt.expr.vectors import batch, column, load_cases, same_values
from emsqrt.io.scan import open_scan
from emsqrt.memory import MemoryBudget
from emsqrt.operators.computed import Computed
from emsqrt.plan import Aggregate, DatasetRef, Files, Scan
from emsqrt.plan.check import output_schema
from emsqrt.testing import InputRows, run_operator
from sennit_core.errors import SennitError, Unsupported
from sennit_core.schema import DataType, Schema

Case = dict[str, Any]
SPEC = Path(__file__).resolve().parents[3] / "spec" / "semantics"
EXPRESSIONS = {
    f"{file.stem}: {case['name']}": case
    for file in sorted(SPEC.glob("*.json"))
    for case in load_cases(file)
    if "expr" in case
}
AGGREGATES = {case["name"]: case for case in load_cases(SPEC / "aggregates.json")}
CSV = {case["name"]: case for case in load_cases(SPEC / "csv.json")}


def each(cases: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases.values(), ids=cases)


def with_sql(cases: dict[str, Case]) -> dict[str, Case]:
    return {name: case for name, case in cases.items() if "sql" in case}


def table_of(columns: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_batches([batch(columns)])


def compute(expr: Expr, rows: Any) -> Any:
    return Computed(expr, Schema.from_arrow(rows.schema))(rows)


@pytest.mark.parametrize("work", [evaluate, compute])
@each(EXPRESSIONS)
def test_expression(case: Case, work: Callable[[Expr, Any], Any]) -> None:
    expr, rows = expr_from_json(case["expr"]), batch(case["columns"])
    if "error" in case:
        with pytest.raises(SennitError) as caught:
            work(expr, rows)
        assert caught.value.code == case["error"]
        return
    found = work(expr, rows)
    kind = DataType.parse(case["type"])
    assert DataType.from_arrow(found.type) == kind
    assert same_values(found.to_pylist(), column(case["expected"], kind).to_pylist())


@each(EXPRESSIONS)
def test_the_text_of_a_case_means_its_expression(case: Case) -> None:
    assert parse_expr(case["text"]).equals(expr_from_json(case["expr"]))


@pytest.mark.slow
@each(with_sql(EXPRESSIONS))
def test_the_sql_of_a_case_means_the_same_in_duckdb(case: Case, oracle: Any) -> None:
    query, rows = f"SELECT {case['sql']} FROM t", table_of(case["columns"])
    if "error" in case:
        with pytest.raises(duckdb.Error):
            oracle.ask(query, rows)
        return
    (values,) = oracle.ask(query, rows)
    expected = column(case["expected"], DataType.parse(case["type"])).to_pylist()
    assert same_values(expected, values)


@pytest.mark.slow
@each({name: case for name, case in EXPRESSIONS.items() if "expected" in case})
def test_the_sql_that_is_written_means_the_same_or_is_refused(case: Case, oracle: Any) -> None:
    rows, expr = table_of(case["columns"]), expr_from_json(case["expr"])
    schema = Schema.from_arrow(rows.schema)
    if "sql" in case.get("refusedBy", ()):
        with pytest.raises(Unsupported, match="in SQL"):
            to_sql(expr, schema)
        return
    (values,) = oracle.ask(f"SELECT {to_sql(expr, schema)} FROM t", rows)
    expected = column(case["expected"], DataType.parse(case["type"])).to_pylist()
    assert same_values(expected, values)


@pytest.mark.parametrize("text", ["year(t)", "epoch_ms(t)", "date_trunc('hour', t)"])
def test_sql_is_refused_where_duckdb_would_round_nanoseconds(text: str) -> None:
    with pytest.raises(Unsupported, match="rounded to microseconds"):
        to_sql(parse_expr(text), Schema.of(t="Timestamp(ns)"))


def run_aggregate(case: Case, rows: pa.RecordBatch) -> pa.Table:
    schema = Schema.from_arrow(rows.schema)
    keys = tuple((key["name"], expr_from_json(key["expr"])) for key in case["keys"])
    aggs = [(agg["name"], expr_from_json(agg["agg"])) for agg in case["aggs"]]
    named = tuple((name, agg) for name, agg in aggs if isinstance(agg, Agg))
    node = Aggregate(Scan(DatasetRef("t"), schema), keys, named)
    out = run_operator(node, InputRows(schema, [rows]))
    return pa.Table.from_batches(out, output_schema(node, schema).to_arrow())


@each(AGGREGATES)
def test_aggregate(case: Case) -> None:
    rows = batch(case["columns"])
    if "error" in case:
        with pytest.raises(SennitError) as caught:
            run_aggregate(case, rows)
        assert caught.value.code == case["error"]
        return
    found, expected = run_aggregate(case, rows), batch(case["expected"])
    assert found.schema == expected.schema
    for values, wanted in zip(found.columns, expected.columns, strict=True):
        assert same_values(values.to_pylist(), wanted.to_pylist())


@each(with_sql(AGGREGATES))
def test_the_sql_of_an_aggregate_means_the_same_in_duckdb(case: Case, oracle: Any) -> None:
    answer = oracle.ask(case["sql"], table_of(case["columns"]))
    for values, wanted in zip(answer, batch(case["expected"]).columns, strict=True):
        assert same_values(wanted.to_pylist(), values, tolerance=1e-12)


@each(CSV)
def test_csv(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "case.csv"
    file.write_bytes(case["text"].encode())
    schema = Schema.from_json(case["schema"])
    with (
        MemoryBudget(64 << 20) as budget,
        open_scan(Files((str(file),), "csv"), schema, budget) as scan,
    ):
        table = pa.Table.from_batches(scan, schema.to_arrow())
    for values, field, wanted in zip(table.columns, schema, case["expected"], strict=True):
        assert same_values(values.to_pylist(), column(wanted, field.type).to_pylist())
