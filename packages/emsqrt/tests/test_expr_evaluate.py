"""Expressions over batches: what an engine must get right beyond the vectors."""

from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from emsqrt.expr import Expr, ValueOutOfRange, col, infer, lit, parse_expr, when
from emsqrt.expr.evaluate import Evaluator, evaluate
from emsqrt.expr.sql import to_sql
from emsqrt.expr.testing import SCHEMA, expressions, tables
from emsqrt.expr.vectors import same_values
from emsqrt.operators.computed import Computed
from sennit_core.errors import Unsupported
from sennit_core.schema import DataType, Schema

Columns = dict[str, list[Any]]
LAZY = (
    "case",
    "coalesce",
    "nullif",
    "greatest",
    "least",
    " and ",
    " or ",
    " in ",
    "between",
    "try_cast",
)
"""Words of forms where DuckDB may skip, or not skip, an operand that fails."""


def table_of(columns: Columns) -> pa.Table:
    arrays = [pa.array(columns[field.name], field.type.to_arrow()) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA.to_arrow())


KINDS = st.sampled_from("ifspdtm")
UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.nightly
@settings(UNHURRIED, max_examples=400)
@given(tables(), KINDS.flatmap(expressions))
def test_random_expressions_agree_with_duckdb(oracle: Any, columns: Columns, expr: Expr) -> None:
    agree(oracle, columns, expr)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@settings(UNHURRIED, max_examples=20_000)
@given(tables(), KINDS.flatmap(expressions))
def test_many_random_expressions_agree_with_duckdb(
    oracle: Any, columns: Columns, expr: Expr
) -> None:
    agree(oracle, columns, expr)


def agree(oracle: Any, columns: Columns, expr: Expr) -> None:
    """Fail unless DuckDB returns the same values of `expr` or refuses them too."""
    rows = table_of(columns)
    try:
        sql = to_sql(expr, SCHEMA)
    except Unsupported:
        assume(False)
    ours = _attempt(lambda: evaluate(expr, rows.to_batches()[0]), ValueOutOfRange)
    computed = _attempt(lambda: Computed(expr, SCHEMA)(rows.to_batches()[0]), ValueOutOfRange)
    assert (ours is None) == (computed is None)
    assert ours is None or same_values(computed.to_pylist(), ours.to_pylist())
    theirs = _attempt(lambda: oracle.ask(f"SELECT {sql} FROM t", rows)[0], duckdb.Error)
    if ours is None or theirs is None:
        assert ours is theirs or any(word in str(expr) for word in LAZY)
        return
    assert ours.type == infer(expr, SCHEMA).to_arrow()
    assert same_values(ours.to_pylist(), theirs)


ANGLES = ("exp", "ln", "log10", "log2", "sin", "cos", "tan", "asin", "acos", "atan")


@pytest.mark.slow
@given(st.lists(st.floats(-1e6, 1e6) | st.floats(-1.5, 1.5), min_size=1), st.sampled_from(ANGLES))
def test_functions_of_floats_agree_with_duckdb_but_for_the_last_bits(
    oracle: Any, values: list[float], fn: str
) -> None:
    table = pa.table({"x": values})
    (theirs,) = oracle.ask(f"SELECT {fn}(x) FROM t", table)
    ours = evaluate(parse_expr(f"{fn}(x)"), table.to_batches()[0]).to_pylist()
    assert same_values(ours, theirs, tolerance=1e-15)


def _attempt(run: Any, error: type[Exception]) -> Any:
    try:
        return run()
    except error:
        return None


@pytest.mark.slow
@UNHURRIED
@given(tables(), KINDS.flatmap(expressions), st.integers(0, 12))
def test_where_a_batch_is_cut_does_not_matter(columns: Columns, expr: Expr, cut: int) -> None:
    batch = table_of(columns).to_batches()[0]
    work = Evaluator(expr, SCHEMA)
    whole = _attempt(lambda: work(batch).to_pylist(), ValueOutOfRange)
    parts = [batch.slice(0, cut), batch.slice(cut)]
    pieces = [_attempt(lambda part=part: work(part).to_pylist(), ValueOutOfRange) for part in parts]
    if whole is None:
        assert None in pieces
    else:
        assert same_values(whole, [value for piece in pieces for value in piece])


def rows(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


@pytest.mark.parametrize(
    "text", ["date_add('microsecond', a, t)", "date_add('year', a, t)", "date_add('week', a, t)"]
)
def test_a_date_out_of_range_is_an_error_that_names_the_row(text: str) -> None:
    batch = rows(a=pa.array([1, 2**62]), t=pa.array([0, 0], pa.timestamp("us")))
    with pytest.raises(ValueOutOfRange, match=str(2**62)):
        evaluate(parse_expr(text), batch)


def test_an_error_shows_the_first_values_that_fail() -> None:
    batch = rows(a=pa.array([1, 2, 2**62, 2**63 - 1]), b=pa.array([1, None, 2, 1]))
    with pytest.raises(ValueOutOfRange) as caught:
        evaluate(col("a") + col("b") * 2**61, batch)
    assert "add(4611686018427387904, 4611686018427387904)" in str(caught.value)
    assert "a + b * 2305843009213693952" in str(caught.value)


def test_a_strict_cast_shows_the_value_and_the_way_out() -> None:
    with pytest.raises(ValueOutOfRange, match="'12a' is not a Int64") as caught:
        evaluate(col("s").cast("Int64"), rows(s=["12", None, "12a", "x"]))
    assert "try_cast" in str(caught.value.hint)


def test_nested_cases_work_out_only_the_rows_that_reach_them() -> None:
    inner = when(col("a") < 10).then(100 // col("a")).otherwise(col("s").cast("Int64"))
    expr = when(col("a") != 0).then(inner).otherwise(-1)
    batch = rows(a=[0, 5, 20, None], s=["x", "x", "7", "x"])
    assert evaluate(expr, batch).to_pylist() == [-1, 20, 7, -1]


def test_a_branch_that_no_row_selects_is_not_evaluated() -> None:
    fails = when(col("a") > 100).then(lit("x").cast("Int64"))
    expr = fails.when(col("a") > 1).then(7).otherwise(col("a"))
    assert evaluate(expr, rows(a=[1, 2, None])).to_pylist() == [1, 7, None]
    assert evaluate(fails.otherwise(0), rows(a=[1, 2, None])).to_pylist() == [0, 0, 0]
    with pytest.raises(ValueOutOfRange, match="'x' is not a Int64"):
        evaluate(expr, rows(a=[1, 101]))


def test_a_shield_works_in_a_chain_of_three() -> None:
    expr = (col("s") != "") & (col("n") > 0) & (col("s").cast("Int64") > 5)
    batch = rows(s=["", "x", "7", "3"], n=[1, 0, 1, None])
    assert evaluate(expr, batch).to_pylist() == [False, False, True, False]


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array(["a", None, "b"], pa.large_string()),
        pa.array(["a", None, "b"], pa.string_view()),
    ],
    ids=["dictionary", "large", "view"],
)
def test_every_layout_of_text_is_text(values: Any) -> None:
    assert evaluate(col("s").upper(), rows(s=values)).to_pylist() == ["A", None, "B"]


def test_constants_fill_every_row_and_an_empty_batch_has_none() -> None:
    batch = rows(a=[1, 2])
    assert evaluate(lit(1) + 2, batch).to_pylist() == [3, 3]
    assert evaluate(lit(None, "Date"), batch).to_pylist() == [None, None]
    empty = batch.slice(0, 0)
    for text in ("1 + 2", "a + 1", "case when a > 1 then 2 end", "cast(a as Utf8)", "a in (1)"):
        assert evaluate(parse_expr(text), empty).to_pylist() == []


def test_wide_decimals_multiply_exactly_or_fail() -> None:
    big = pa.array([Decimal(10**19), Decimal(3), None], pa.decimal128(38, 0))
    small = pa.array([Decimal(2), Decimal(-5), Decimal(1)], pa.decimal128(38, 0))
    batch = rows(a=big, b=small)
    assert evaluate(col("a") * col("b"), batch).to_pylist() == [
        Decimal(2 * 10**19),
        Decimal(-15),
        None,
    ]
    with pytest.raises(ValueOutOfRange):
        evaluate(col("a") * col("a"), batch)


def test_text_casts_read_the_same_fast_and_slow() -> None:
    plain = ["0", "-12", "999999999999999999", None, "007"]
    fast = evaluate(col("s").try_cast("Int64"), rows(s=plain)).to_pylist()
    slow = evaluate(col("s").try_cast("Int64"), rows(s=[*plain, "x"])).to_pylist()
    assert [*fast, None] == slow == [0, -12, 999999999999999999, None, 7, None]


@pytest.mark.parametrize("kind", ["Date", "Timestamp(us)", "Timestamp(us,UTC)"])
def test_a_text_of_the_year_0_is_the_same_day_in_any_column(kind: str) -> None:
    texts = ["0000-01-01", "0000-02-29", "0000-12-31"]
    cast = col("s").try_cast(kind)

    alone = evaluate(cast, pa.record_batch({"s": texts}))
    together = evaluate(cast, pa.record_batch({"s": [*texts, "0000-02-30"]}))

    assert together[:3].equals(alone)
    assert not together[3].is_valid
    ticks = alone.cast(pa.int32() if kind == "Date" else pa.int64()).to_pylist()
    assert [tick // (1 if kind == "Date" else 86_400_000_000) for tick in ticks] == [
        *(-719_528, -719_469, -719_163),
    ]


@pytest.mark.parametrize("kind", ["Decimal(9,2)", "Decimal(38,0)"])
def test_decimals_of_0_and_1_are_booleans(kind: str) -> None:
    values = pa.array([Decimal(0), Decimal(1), None], DataType.parse(kind).to_arrow())
    batch = pa.record_batch({"d": values})
    assert evaluate(col("d").cast("Bool"), batch).to_pylist() == [False, True, None]

    with pytest.raises(ValueOutOfRange):
        evaluate((col("d") + 1).cast("Bool"), batch)
    no_one = pa.record_batch({"d": pa.array([Decimal(0), Decimal("0.5")], pa.decimal128(38, 38))})
    assert evaluate(col("d").try_cast("Bool"), no_one).to_pylist() == [False, None]


@pytest.mark.parametrize("part", ["year", "week", "doy", "quarter", "month", "day"])
@pytest.mark.parametrize("unit", [None, "s", "ms", "us"])
def test_parts_of_days_beyond_arrows_calendar_are_those_of_duckdb(
    oracle: Any, part: str, unit: str | None
) -> None:
    days = [20_000_000, -20_000_000, 11_248_738, -12_687_429, 0, None]
    values = pa.array(days, pa.int32()).cast(pa.date32())
    if unit is not None:
        seconds = pa.array([None if day is None else day * 86_400 - 1 for day in days])
        values = seconds.cast(pa.timestamp("s")).cast(pa.timestamp(unit))
    batch = pa.record_batch({"x": values})
    expr = parse_expr(f"{part}(x)")

    query = f"SELECT {to_sql(expr, Schema.from_arrow(batch.schema))} FROM t"
    assert [evaluate(expr, batch).to_pylist()] == oracle.ask(query, pa.table(batch))


@pytest.mark.parametrize("text", ["cast(x as Timestamp(ns))", "date_add('year', 1, x)"])
def test_an_error_shows_a_timestamp_that_python_cannot_represent(text: str) -> None:
    moments = pa.array([2**63 - 1], pa.int64()).cast(pa.timestamp("us"))
    with pytest.raises(ValueOutOfRange, match="9223372036854"):
        evaluate(parse_expr(text), pa.record_batch({"x": moments}))


@pytest.mark.slow
@given(st.lists(st.floats(width=64), min_size=1), st.sampled_from(["Int8", "Int64", "UInt64"]))
def test_a_float_becomes_an_integer_only_when_it_is_one(values: list[float], kind: str) -> None:
    found = evaluate(col("x").try_cast(kind), rows(x=pa.array(values, pa.float64()))).to_pylist()
    low, high = {"Int8": (-128, 127), "Int64": (-(2**63), 2**63 - 1), "UInt64": (0, 2**64 - 1)}[
        kind
    ]
    whole = [int(v) if v == v and abs(v) != float("inf") and v == int(v) else None for v in values]
    assert found == [v if v is not None and low <= v <= high else None for v in whole]


def test_initcap_is_upper_and_lower_of_each_run_of_letters() -> None:
    texts = ["hello wORLD", "o'neil 1abc x_y", "ßtrasse éA", "中a bÉ-ñn", "", None]
    made = evaluate(parse_expr("initcap(s)"), rows(s=texts)).to_pylist()
    assert made == ["Hello World", "O'Neil 1Abc X_Y", "ẞtrasse Éa", "中A Bé-Ñn", "", None]
    assert evaluate(col("s").initcap().lower(), rows(s=made)).to_pylist() == [
        None if text is None else text.lower() for text in texts
    ]


def test_upper_and_lower_agree_with_duckdb_up_to_unicode_15(oracle: Any) -> None:
    letters = [chr(code) for code in range(1, 0x2C00) if not 0xD800 <= code < 0xE000]
    answer = oracle.ask("SELECT upper(s), lower(s) FROM t", pa.table({"s": letters}))
    theirs = zip(*answer, strict=True)
    batch = rows(s=letters)
    ours = zip(
        evaluate(col("s").upper(), batch).to_pylist(),
        evaluate(col("s").lower(), batch).to_pylist(),
        strict=True,
    )
    newer = {"ƛ", "ɤ", "ɷ", "ɼ", "\u1c89", "\u1c8a"}  # got a partner in Unicode 16 or later
    differ = {a for a, b, c in zip(letters, ours, theirs, strict=True) if b != c}
    assert differ <= newer


def test_schema_of_a_batch_may_hold_columns_that_no_expression_reads() -> None:
    batch = rows(a=[1], l=pa.array([[1]], pa.list_(pa.int64())))
    assert Evaluator(col("a") + 1, Schema.from_arrow(batch.schema))(batch).to_pylist() == [2]
