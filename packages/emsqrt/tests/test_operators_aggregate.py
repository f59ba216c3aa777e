"""Aggregates of batches: right against DuckDB, equal bits for every cut, order and memory."""

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt.expr import col, count, median, quantile, quantile_disc
from emsqrt.expr.nodes import Agg
from emsqrt.expr.testing import SCHEMA, tables
from emsqrt.expr.vectors import same_values
from emsqrt.plan import Aggregate, DatasetRef, Scan, check
from emsqrt.plan.check import output_schema
from emsqrt.plan.nodes import Phase
from emsqrt.testing import InputRows, run_operator
from sennit_core.schema import Schema

SCAN = Scan(DatasetRef("t"), SCHEMA)
AGGS: tuple[tuple[str, Agg], ...] = (
    ("rows", count()),
    ("fs", col("f").sum()),
    ("fa", col("f").avg()),
    ("fv", col("f").var()),
    ("js", col("j").sum()),
    ("ja", col("j").avg()),
    ("ms", col("m").sum()),
    ("ma", col("m").avg()),
    *((f"lo_{name}", col(name).min()) for name in SCHEMA.names),
    *((f"hi_{name}", col(name).max()) for name in SCHEMA.names),
    *((f"n_{name}", col(name).count()) for name in SCHEMA.names),
    *((f"u_{name}", col(name).count_distinct()) for name in SCHEMA.names),
    ("jd", Agg("sum", col("j"), distinct=True)),
    ("md", Agg("avg", col("m"), distinct=True)),
    ("fq", quantile(col("f"), 0.3)),
    ("jm", median(col("j"))),
    *((f"q_{name}", quantile_disc(col(name), 0.3)) for name in ("i", "f", "t", "m")),
)
LOOSE = ("fs", "fa", "fv", "ma", "ja", "md", "fq", "jm")
KEYS = st.lists(st.sampled_from(SCHEMA.names), unique=True, max_size=3)


def node_of(keys: list[str], phase: Phase = "full") -> Aggregate:
    return Aggregate(SCAN, tuple((f"k_{key}", col(key)) for key in keys), AGGS, phase)


def run(node: Aggregate, schema: Schema, batches: list[Any], cap: int = 1 << 30) -> pa.Table:
    out = run_operator(node, InputRows(schema, batches), memory_bytes=cap)
    return pa.Table.from_batches(out, output_schema(node, schema).to_arrow())


def cut(table: pa.Table, rows: int) -> list[Any]:
    return list(table.to_batches(max_chunksize=rows))


def serialized(table: pa.Table) -> bytes:
    (batch,) = table.combine_chunks().to_batches()
    return bytes(batch.serialize())


def table_of(columns: dict[str, list[Any]]) -> pa.Table:
    arrays = [pa.array(columns[field.name], field.type.to_arrow()) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA.to_arrow())


def sql_of(keys: list[str]) -> str:
    forms = {"var": "var_samp", "quantile": "quantile_cont"}
    outputs = [f'"{key}" AS "k_{key}"' for key in keys]
    for name, agg in AGGS:
        inner = "*" if agg.arg is None else f"{'DISTINCT ' if agg.distinct else ''}{agg.arg!s}"
        inner += ", 0.3" if agg.fn.startswith("quantile") else ""
        finite = f"CASE WHEN bool_and(isfinite({inner})) THEN {{}} ELSE sum({inner}) END"
        call = f"{forms.get(agg.fn, agg.fn)}({inner})"
        outputs.append(f'{finite.format(call) if agg.fn == "var" else call} AS "{name}"')
    group = f" GROUP BY {', '.join(keys)}" if keys else ""
    return f"SELECT {', '.join(outputs)} FROM t{group}"


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 4, suppress_health_check=list(HealthCheck))
@given(tables(30), KEYS)
def test_groups_agree_with_duckdb(
    oracle: Any, columns: dict[str, list[Any]], keys: list[str]
) -> None:
    rows = table_of(columns)
    # DuckDB adds floats one by one, so values that cancel or overflow would be compared to noise.
    tame = pc.if_else(pc.less(pc.abs(rows["f"]), 1e6), rows["f"], pa.scalar(1.5))
    rows = rows.set_column(2, "f", pc.if_else(pc.is_nan(tame), pa.scalar(0.5), pc.abs(tame)))
    order = ", ".join(f"k_{key} NULLS LAST" for key in keys)
    answer = oracle.ask(f"{sql_of(keys)}{f' ORDER BY {order}' if keys else ''}", rows)
    found = run(node_of(keys), SCHEMA, cut(rows, 7))
    assert found.num_rows == len(answer[0])
    for index, (values, theirs) in enumerate(zip(found.columns, answer, strict=True)):
        loose = found.column_names[index] in LOOSE
        near = [None if v is None else abs(float(v)) for v in theirs] if loose else []
        absolute = max((v for v in near if v is not None and math.isfinite(v)), default=0.0)
        assert same_values(values.to_pylist(), theirs, tolerance=1e-12) or (
            loose and _close(values.to_pylist(), theirs, 1e-9 * max(1.0, absolute))
        )


def _close(left: list[Any], right: list[Any], within: float) -> bool:
    pairs = zip(left, right, strict=True)
    return all(a is b or (a is not None and abs(a - float(b)) <= within) for a, b in pairs)


@pytest.mark.nightly
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(tables(30), KEYS, st.integers(1, 9), st.randoms())
def test_no_cut_order_or_merge_changes_a_bit(
    columns: dict[str, list[Any]], keys: list[str], rows: int, draw: Any
) -> None:
    table = table_of(columns)
    whole = run(node_of(keys), SCHEMA, cut(table, 1000))
    mixed = table.take(draw.sample(range(table.num_rows), table.num_rows))
    partial, final = node_of(keys, "partial"), node_of(keys, "final")
    states = [run(partial, SCHEMA, [batch]) for batch in cut(mixed, rows)]
    merged = run(final, check(partial), [b for state in states for b in state.to_batches()])
    assert serialized(merged) == serialized(whole)
    small = run(node_of(keys), SCHEMA, cut(mixed, rows), cap=5 << 20)
    assert serialized(small) == serialized(whole)
    together = run(partial, SCHEMA, cut(mixed, rows))
    assert serialized(together) == serialized(run(partial, SCHEMA, cut(table, 1000)))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 0.7, 0.999, 1.0])
def test_a_discrete_quantile_is_one_of_the_values(oracle: Any, fraction: float) -> None:
    """Shares that no double is: 0.1 of 30 values are three, and 0.7 of ten are seven."""
    texts = [f"{'long ' * (at % 60)}{at:03}" for at in range(70)]
    rows = pa.table({"k": [at // 30 for at in range(70)], "n": range(70), "t": texts})
    schema = Schema.of(k="Int64", n="Int64", t="Utf8")
    named = [("n", quantile_disc(col("n"), fraction)), ("t", quantile_disc(col("t"), fraction))]
    node = Aggregate(SCAN, (("k", col("k")),), tuple(named))
    found = run(node, schema, cut(rows, 11))
    quantiles = f"quantile_disc(n, {fraction}), quantile_disc(t, {fraction})"
    theirs = oracle.ask(f"SELECT k, {quantiles} FROM t GROUP BY k ORDER BY k", rows)
    assert [column.to_pylist() for column in found.columns] == [list(each) for each in theirs]


@pytest.mark.slow
def test_groups_that_outgrow_the_memory_are_spilled_and_merged() -> None:
    schema = Schema.of(k="Int64", x="Float64")
    numbers = [(number * 7919) % 100_000 for number in range(200_000)]
    rows = pa.table({"k": numbers, "x": [number / 8 for number in range(200_000)]})
    node = Aggregate(Scan(DatasetRef("t"), schema), (("k", col("k")),), (("s", col("x").sum()),))
    found = [run(node, schema, cut(rows, 33_333), cap) for cap in (3 << 20, 5 << 20, 1 << 30)]
    sums = [0.0] * 100_000
    for number, key in enumerate(numbers):
        sums[key] += number / 8
    assert found[0].to_pydict() == {"k": list(range(100_000)), "s": sums}
    assert serialized(found[0]) == serialized(found[1]) == serialized(found[2])


def test_few_groups_fit_a_small_budget_for_any_rows() -> None:
    schema = Schema.of(k="Utf8", x="Float64")
    batch = pa.RecordBatch.from_pydict({"k": ["a", "b"] * 50_000, "x": [0.1] * 100_000})
    node = Aggregate(Scan(DatasetRef("t"), schema), (("k", col("k")),), (("s", col("x").sum()),))
    found = run(node, schema, [batch] * 20, cap=8 << 20)
    assert found.to_pydict() == {"k": ["a", "b"], "s": [100_000.0, 100_000.0]}


def test_a_key_may_be_an_expression_and_keys_only_are_distinct_rows() -> None:
    schema = Schema.of(a="Int64")
    node = Aggregate(Scan(DatasetRef("t"), schema), (("odd", col("a") % 2 == 1),), ())
    rows = pa.table({"a": pa.array([1, 2, 3, None], pa.int64())})
    assert run(node, schema, cut(rows, 2)).to_pydict() == {"odd": [False, True, None]}


TYPED: dict[str, list[Any]] = {
    "Bool": [False, True],
    "Int8": [-128, 127],
    "UInt64": [0, 2**64 - 1],
    "Float32": [1.5, math.inf],
    "Decimal(3,1)": [Decimal("-2.5"), Decimal("1.5")],
    "Utf8": ["a", "b"],
    "Binary": [b"a", b"b"],
    "Date": [date(1969, 12, 31), date(2013, 1, 1)],
    "Timestamp(ms,UTC)": [datetime(1969, 12, 31, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)],
    "Time": [time(4), time(5)],
    "Duration": [timedelta(-1), timedelta(1)],
}


@pytest.mark.parametrize("kind", TYPED)
def test_values_of_every_type_with_an_order_are_keys_and_have_extremes(kind: str) -> None:
    low, high = TYPED[kind]
    schema = Schema.of(v=kind)
    rows = pa.table({"v": pa.array([high, None, low, high], schema.field("v").type.to_arrow())})
    aggs = (("lo", col("v").min()), ("hi", col("v").max()), ("u", col("v").count_distinct()))
    scan = Scan(DatasetRef("t"), schema)
    grouped = run(
        Aggregate(scan, (("k", col("v")),), (("n", count()), *aggs)), schema, cut(rows, 2)
    )
    assert grouped.select(["k", "n", "lo", "hi"]).to_pydict() == {
        "k": [low, high, None],
        "n": [1, 2, 1],
        "lo": [low, high, None],
        "hi": [low, high, None],
    }
    whole = run(Aggregate(scan, (), aggs), schema, cut(rows, 2))
    assert whole.to_pylist() == [{"lo": low, "hi": high, "u": 2}]


def test_a_sum_over_38_digits_is_an_error() -> None:
    schema = Schema.of(m="Decimal(38,0)")
    rows = pa.table({"m": pa.array([Decimal(9 * 10**37)] * 2, pa.decimal128(38, 0))})
    node = Aggregate(Scan(DatasetRef("t"), schema), (), (("s", col("m").sum()),))
    with pytest.raises(ValueError, match="38 digits"):
        run(node, schema, cut(rows, 10))


def test_partials_of_nothing_merge_to_the_row_of_nothing() -> None:
    partial = node_of([], "partial")
    states = run(partial, SCHEMA, [])
    assert states.num_rows == 1
    merged = run(node_of([], "final"), check(partial), states.to_batches() * 3)
    assert merged.slice(0, 1).to_pydict()["rows"] == [0]
    assert merged.to_pydict() == run(node_of([]), SCHEMA, []).to_pydict()


@pytest.mark.parametrize("size", [0, 1, 4, 5, 11, 12, 13, 20, 27, 28, 29, 40])
def test_texts_that_differ_in_one_byte_are_different_groups(size: int) -> None:
    zeros = b"\0" * size
    changed = [zeros[:at] + b"\1" + zeros[at + 1 :] for at in range(size)]
    texts = [text.decode() for text in (zeros, *changed)] * 2
    schema = Schema.of(s="Utf8")
    node = Aggregate(Scan(DatasetRef("t"), schema), (("s", col("s")),), (("n", count()),))
    groups = run(node, schema, [pa.RecordBatch.from_pydict({"s": texts})]).to_pydict()
    assert groups == {"s": sorted(set(texts)), "n": [2] * (size + 1)}


def test_decimals_of_any_length_add_up() -> None:
    schema = Schema.of(g="Int64", m="Decimal(38,0)")
    values = [Decimal(10**n * sign) for n in range(38) for sign in (1, 3, -1)] + [None]
    arrays = [pa.array([n % 3 for n in range(len(values))]), pa.array(values, pa.decimal128(38, 0))]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema.to_arrow())
    source = Scan(DatasetRef("t"), schema)
    for keys in ((), (("g", col("g")),)):
        sums = run(Aggregate(source, keys, (("m", col("m").sum()),)), schema, [batch]).to_pydict()
        total = sum(value for value in values if value is not None)
        assert sum(sums["m"]) == total
        assert len(sums["m"]) == (3 if keys else 1)


EDGES = st.sampled_from([2**63 - 1, -(2**63), 2**62, -(2**62), 1, -1, 0])


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 2), EDGES), min_size=1, max_size=40), st.integers(1, 40))
def test_intermediate_sums_beyond_64_bits_are_exact(
    rows: list[tuple[int, int]], batch_rows: int
) -> None:
    schema = Schema.of(k="Int64", v="Int64")
    node = Aggregate(Scan(DatasetRef("t"), schema), (("k", col("k")),), (("mean", col("v").avg()),))
    table = pa.table({"k": [k for k, _ in rows], "v": [v for _, v in rows]})
    found = run(node, schema, cut(table, batch_rows)).to_pylist()
    groups = {k: [v for key, v in rows if key == k] for k, _ in rows}
    assert found == [
        {"k": k, "mean": pytest.approx(sum(values) / len(values), rel=1e-15, abs=0)}
        for k, values in sorted(groups.items())
    ]
