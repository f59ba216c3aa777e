"""Exact numbers compare by value, however many digits the column's type and the constant have."""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt import scan
from emsqrt.expr import Expr, col, lit, parse_expr
from emsqrt.expr.evaluate import evaluate
from emsqrt.expr.fold import fold
from emsqrt.expr.nodes import Case, call
from emsqrt.expr.program import compile_program
from emsqrt.expr.sql import to_sql
from emsqrt.operators.computed import Computed
from emsqrt.sql_plan import sql
from sennit_core.errors import Unsupported
from sennit_core.schema import Schema

EXACT = Context(prec=100)
Test = Callable[[Any, Any], bool]
TESTS: dict[str, Test] = {
    name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
}
SIZES = st.integers(1, 38).flatmap(
    lambda digits: st.tuples(st.just(digits), st.integers(0, digits))
)


@st.composite
def decimals(draw: st.DrawFn, digits: int, scale: int) -> Decimal:
    """A value of Decimal(digits, scale), often near the ends or a small whole number."""
    most = 10**digits - 1
    near = st.sampled_from((most, -most, most - 1, 0, 1, -1, 10**scale, -(10**scale)))
    unscaled = draw(st.integers(-most, most) | near.filter(lambda value: abs(value) <= most))
    return EXACT.scaleb(Decimal(unscaled), -scale)


CONSTANTS: st.SearchStrategy[int | Decimal] = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1),
    st.integers(-(10**6), 10**6),
    SIZES.flatmap(lambda size: decimals(*size)),
)
UNHURRIED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def columns(draw: st.DrawFn) -> pa.RecordBatch:
    arrays = []
    for _ in "xy":
        digits, scale = draw(SIZES)
        values = st.lists(st.none() | decimals(digits, scale), min_size=4, max_size=4)
        arrays.append(pa.array(draw(values), pa.decimal128(digits, scale)))
    whole = st.integers(-(2**63), 2**63 - 1)
    arrays.append(pa.array(draw(st.lists(whole, min_size=4, max_size=4)), pa.int64()))
    return pa.RecordBatch.from_arrays(arrays, ["x", "y", "i"])


def both(test: Test, one: Any, other: Any) -> bool | None:
    return None if one is None or other is None else test(one, other)


def duckdb_text(expr: Expr, schema: Schema) -> str | None:
    """The same as SQL for DuckDB; None where no type of DuckDB holds both sides."""
    with suppress(Unsupported):
        return to_sql(expr, schema)
    return None


def ask_duckdb(parts: list[str], rows: pa.RecordBatch) -> list[list[bool | None]]:
    with duckdb.connect(config={"threads": 1}) as session:
        session.register("t", pa.Table.from_batches([rows]))
        found = session.sql(f"SELECT {', '.join(parts)} FROM t").fetchall()
    return [list(column) for column in zip(*found, strict=True)]


CASES = given(columns(), CONSTANTS, CONSTANTS)


@pytest.mark.slow
@settings(UNHURRIED, max_examples=10)
@CASES
def test_comparisons_are_by_value(rows: pa.RecordBatch, one: Any, two: Any) -> None:
    compare(rows, one, two)


@pytest.mark.nightly
@UNHURRIED
@CASES
def test_many_comparisons_are_by_value(rows: pa.RecordBatch, one: Any, two: Any) -> None:
    compare(rows, one, two)


def compare(rows: pa.RecordBatch, one: Any, two: Any) -> None:
    x, y, i = (column.to_pylist() for column in rows.columns)
    cases: list[tuple[Expr, list[bool | None]]] = []
    for other, values in ((lit(one), [one] * 4), (col("y"), y), (col("i"), i)):
        for name, test in TESTS.items():
            pairs = list(zip(x, values, strict=True))
            cases.append((call(name, col("x"), other), [both(test, *pair) for pair in pairs]))
            mirrored = [both(test, *pair[::-1]) for pair in pairs]
            cases.append((call(name, other, col("x")), mirrored))
    inside = [None if value is None else one <= value <= two for value in x]
    cases.append((col("x").between(one, two), inside))
    among = [None if value is None else value in (one, two) for value in x]
    cases += [(col("x").is_in([one, two] * times), among) for times in (1, 5)]
    equal = call("eq", col("x"), lit(one))
    cases.append((Case(((equal, lit(True)),), lit(False)), [value == one for value in x]))

    schema = Schema.from_arrow(rows.schema)
    for expr, expected in cases:
        assert evaluate(expr, rows).to_pylist() == expected, str(expr)
        assert Computed(expr, schema)(rows).to_pylist() == expected, str(expr)
    sayable = [(text, expected) for expr, expected in cases if (text := duckdb_text(expr, schema))]
    answers = ask_duckdb([text for text, _ in sayable], rows) if sayable else []
    assert answers == [expected for _, expected in sayable], sayable
    kept = evaluate(call("nullif", col("x"), lit(one)), rows).to_pylist()
    assert kept == [None if value == one else value for value in x]


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d > 100000", []),
        ("d < 100000 and d <> 100000", [-99.99, 1.0, 99.99]),
        ("d > -99999999999999999999999999999999999999", [-99.99, 1.0, 99.99]),
        ("d = 123456789012345678901", []),
        ("d <= Decimal(38,38) '0.99999999999999999999999999999999999999'", [-99.99]),
        ("d in (1, 100000, 99999999999999999999)", [1.0]),
        (
            "d between -100000 and Decimal(38,37) '1.0000000000000000000000000000000000001'",
            [-99.99, 1.0],
        ),
        ("not d < 99999999999999999999999999999999999999", []),
        ("coalesce(d, 100000) > 99999", [None]),
        ("case d when 100000 then false else d > 50 end", [99.99]),
        ("case when d is null then 100000 else d end = 100000", [None]),
        ("nullif(d, 100000) > 50", [99.99]),
        ("d + 100000 > 100001", [99.99]),
        ("d * 100000 = 100000", [1.0]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_filters_of_plans_compare_by_value(
    kind: str, text: str, expected: list[float | None], tmp_path: Path
) -> None:
    values = [Decimal("-99.99"), Decimal("1.00"), Decimal("99.99"), None]
    table = pa.table({"d": pa.array(values, pa.decimal128(4, 2)), "n": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1)
    (tmp_path / "in.csv").write_text("d,n\n-99.99,1\n1.00,2\n99.99,3\n,4\n")
    schema = Schema.of(d="Decimal(4,2)", n="Int64")
    rows = scan(tmp_path / f"in.{kind}", schema=schema)
    rows.filter(text).select("n", "d").sink(tmp_path / "out.csv").run("64MiB")
    lines = (tmp_path / "out.csv").read_text().splitlines()[1:]
    found = [line.partition(",")[2] for line in lines]
    assert [float(value) if value else None for value in found] == expected


@pytest.mark.nightly
def test_statements_compare_by_value(tmp_path: Path) -> None:
    values = [Decimal("-99.99"), Decimal("1.00"), Decimal("99.99")]
    pq.write_table(pa.table({"d": pa.array(values, pa.decimal128(4, 2))}), tmp_path / "in.parquet")
    tables = {"t": scan(tmp_path / "in.parquet")}
    for condition in ("d < 99999999999999999999", "d > -99999999999999999999999999999999999999"):
        found = sql(f"SELECT d FROM t WHERE {condition}", tables).collect("64MiB")
        assert found.column("d").to_pylist() == values
    with pytest.raises(Unsupported, match="more than 38 digits"):
        sql(f"SELECT d FROM t WHERE d < 1{'0' * 38}", tables)


@pytest.mark.parametrize("digits", ["9" * 38, "1234567890" * 3 + "12345678", "5" * 29])
def test_constants_of_many_digits_keep_them_all(digits: str) -> None:
    below, above = (
        lit(Decimal(f"-{digits}"), "Decimal(38,0)"),
        lit(Decimal(digits), "Decimal(38,0)"),
    )
    assert fold(call("neg", above)).equals(below)
    assert fold(call("abs", below)).equals(above)
    assert parse_expr(f"-{digits}").equals(lit(-int(digits)))
    assert str(lit(int(digits))).endswith(f"'{digits}'")


def test_lists_of_mixed_constants_compile() -> None:
    schema = Schema.of(d="Decimal(4,2)")
    assert compile_program(col("d").is_in([1, Decimal("2.5"), 100_000]), schema) is not None
