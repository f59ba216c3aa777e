"""Groups in any memory: the results of plain Python, the same bytes in any memory."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt._kernel import Columns, hll_estimate
from emsqrt.expr import approx_count_distinct, col, count, first, last, median, quantile
from emsqrt.expr.nodes import Agg
from emsqrt.external.aggregate import AGGREGATE_BYTES_MIN, VALUES_BYTES_MIN, ExternalAggregate
from emsqrt.external.aggregate_state import (
    F64,
    I64,
    AggregateState,
    KeyColumn,
    Output,
    OutputOp,
    StateOp,
    Values,
)
from emsqrt.external.layout import KINDS, Layout, lay_out
from emsqrt.floats import FloatSum, variance
from emsqrt.operators.aggregate import to_array
from emsqrt.operators.columns import to_columns
from emsqrt.plan.states import state_fields
from emsqrt.spill import SpillManager
from sennit_core.errors import CapTooSmall
from sennit_core.schema import DataType, Field, Schema

SCHEMA = Schema.of(k="Int32", t="Utf8", i="Int64", u="UInt64", f="Float64", d="Decimal(38,2)")
AGGS: tuple[Agg, ...] = (
    count(),
    *(col(name).count() for name in SCHEMA.names),
    *(col(name).min() for name in SCHEMA.names),
    *(col(name).max() for name in SCHEMA.names),
    *(first(col(name)) for name in ("t", "f", "d")),
    *(last(col(name)) for name in ("t", "i")),
    *(col(name).sum() for name in ("k", "f")),
    *(col(name).avg() for name in ("k", "f", "d")),
    *(col(name).var() for name in ("k", "f", "d")),
    col("f").stddev(),
    approx_count_distinct(col("t")),
    col("t").count_distinct(),
    col("f").count_distinct(),
    Agg("avg", col("f"), distinct=True),
    Agg("var", col("d"), distinct=True),
    median(col("k")),
    quantile(col("d"), 0.7),
)
VALUES = 6  # of which the aggregates put in order
NASTY = (0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e308, -1e308, 0.1, 1e16)

floats = st.sampled_from(NASTY) | st.floats(width=64)
decimals = st.integers(-(10**18), 10**18).map(lambda units: Decimal(units).scaleb(-2))
rows_of = st.lists(
    st.tuples(
        st.none() | st.integers(-3, 3),
        st.none()
        | st.sampled_from(["", "a", "a\0", "a\0b", "ä", "long " * 20])
        | st.text(max_size=3),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.integers(0, 2**64 - 1),
        st.none() | floats,
        st.none() | decimals,
    ),
    max_size=40,
)
Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def spill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpillManager]:
    with SpillManager(tmp_path_factory.mktemp("spill"), codec="none") as spill:
        yield spill


def memory_of(size: int) -> memoryview:
    return memoryview(bytearray(size))


def table_of(rows: Sequence[Row]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    arrays = [
        pa.array(list(values), field.type.to_arrow())
        for values, field in zip(columns, SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=SCHEMA.to_arrow())


def layout_of(keys: Sequence[str]) -> tuple[Layout, list[Field]]:
    types = [None if agg.arg is None else SCHEMA.field(str(agg.arg)).type for agg in AGGS]
    states = [
        state_fields(str(at), agg, kind)
        for at, (agg, kind) in enumerate(zip(AGGS, types, strict=True))
    ]
    key_fields = [SCHEMA.field(key) for key in keys]
    layout = lay_out(
        "full", [field.type for field in key_fields], list(zip(AGGS, types, states, strict=True))
    )
    fields = [*key_fields, *(SCHEMA.field(str(AGGS[at].arg)) for at, _ in layout.arguments)]
    return layout, fields


def aggregate(
    spill: SpillManager, keys: Sequence[str], table: pa.Table, cuts: int, memory_bytes: int
) -> tuple[list[list[Any]], int]:
    """Return each result column's values, and how many runs were spilled."""
    layout, fields = layout_of(keys)
    work = ExternalAggregate(
        memory_of(memory_bytes), spill, layout.keys, layout.parts, layout.outputs, layout.values
    )
    with closing(work):
        for batch in table.to_batches(max_chunksize=cuts):
            arrays = [batch.column(field.name) for field in fields]
            work.add(to_columns(arrays, fields, batch.num_rows))
        work.finish()
        return _results(work, layout, keys), work.stats.runs


def _results(work: ExternalAggregate, layout: Layout, keys: Sequence[str]) -> list[list[Any]]:
    types = [SCHEMA.field(key).type.to_arrow() for key in keys]
    types += [_arrow_type(output.kind) for output in layout.outputs]
    results: list[list[Any]] = [[] for _ in types]
    out = memoryview(bytearray(1 << 16))
    for rows, columns in work.columns(out):
        for result, column, kind in zip(results, columns, types, strict=True):
            result += to_array(out, rows, column, kind).to_pylist()
    return results


def _arrow_type(kind: int) -> Any:
    names = {"Decimal": "Decimal(38,2)"}
    found = next(name for name, of in KINDS.items() if of == kind)
    return DataType.parse(names.get(found, found)).to_arrow()


# What plain Python says ------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return the key that compares values: NaN above all, one zero."""
    if isinstance(value, float):
        return (1, 0.0) if math.isnan(value) else (0, value + 0.0)
    return value.encode() if isinstance(value, str) else value


def key_order(key: Row) -> tuple[Any, ...]:
    return tuple((value is None, 0 if value is None else plain(value)) for value in key)


def expected(keys: Sequence[str], rows: Sequence[Row]) -> list[list[Any]]:
    places = [SCHEMA.names.index(key) for key in keys]
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key_order(tuple(row[at] for at in places)), []).append(row)
    if not keys and not groups:
        groups[()] = []
    results = []
    for _, members in sorted(groups.items(), key=lambda item: item[0]):
        key = [members[0][at] for at in places] if members else []
        results.append([*key, *(answer(agg, members) for agg in AGGS)])
    return [list(column) for column in zip(*results, strict=True)] or [
        [] for _ in range(len(keys) + len(AGGS))
    ]


def answer(agg: Agg, rows: Sequence[Row]) -> Any:
    if agg.arg is None:
        return len(rows)
    place = SCHEMA.names.index(str(agg.arg))
    values = [row[place] for row in rows if row[place] is not None]
    different = {plain(value): value for value in values}
    if agg.fn == "count":
        return len(different) if agg.distinct else len(values)
    if agg.fn == "approx_count_distinct":
        return len(different)  # exact while there are few
    if not values:
        return None
    if agg.distinct:
        values = list(different.values())
    match agg.fn:
        case "min" | "max":
            best = (min if agg.fn == "min" else max)(values, key=plain)
            return best + 0.0 if isinstance(best, float) else best
        case "first" | "last":
            return values[0 if agg.fn == "first" else -1]
        case "median" | "quantile":
            return interpolated(sorted(map(float, values)), 0.5 if agg.fn == "median" else 0.7)
        case "sum" | "avg":
            return total(agg, values)
    doubles = [float(value) for value in values]
    found = variance(len(doubles), FloatSum.of(doubles), FloatSum.of_squares(doubles))
    return math.sqrt(found) if agg.fn == "stddev" and found is not None else found


def total(agg: Agg, values: Sequence[Any]) -> Any:
    if isinstance(values[0], float):
        whole: Any = FloatSum.of(values).value()
    else:
        exact = sum(map(Fraction, values), Fraction(0))
        whole = int(exact) if agg.fn == "sum" else float(exact)
    return whole if agg.fn == "sum" else whole / len(values)


def interpolated(values: Sequence[float], fraction: float) -> float:
    place = (len(values) - 1) * fraction
    low, weight = int(place), place - int(place)
    if not weight:
        return values[low]
    same = values[low] == values[low + 1]
    return values[low] if same else values[low] * (1.0 - weight) + values[low + 1] * weight


def bits(column: Sequence[Any]) -> list[Any]:
    return [value.hex() if isinstance(value, float) else value for value in column]


# Tests -----------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(rows_of, st.lists(st.sampled_from(SCHEMA.names), unique=True, max_size=2), st.integers(1, 9))
def test_groups_are_those_of_plain_python(
    spill: SpillManager, rows: list[Row], keys: list[str], cuts: int
) -> None:
    found, _ = aggregate(spill, keys, table_of(rows), cuts, 4 << 20)
    wanted = expected(keys, rows)
    for values, theirs in zip(found[len(keys) :], wanted[len(keys) :], strict=True):
        assert bits(values) == bits(theirs)
    for values, theirs in zip(found[: len(keys)], wanted[: len(keys)], strict=True):
        assert list(map(str, values)) == [
            str(v + 0.0 if isinstance(v, float) else v) for v in theirs
        ]


@pytest.mark.nightly
def test_little_memory_changes_no_byte(spill: SpillManager) -> None:
    draw = random.Random(7)
    rows = [
        (
            draw.choice([None, *range(-40, 40)]),
            draw.choice([None, "x" * draw.randrange(30), str(draw.randrange(60))]),
            draw.randrange(-(2**63), 2**63),
            draw.randrange(2**64),
            draw.choice([None, *NASTY, draw.gauss(0, 1e9)]),
            Decimal(draw.randrange(-(10**30), 10**30)).scaleb(-2),
        )
        for _ in range(2500)
    ]
    table = table_of(rows)
    least = (VALUES + 1) * (VALUES_BYTES_MIN + (16 << 10))
    roomy, runs = aggregate(spill, ["k", "t"], table, 777, 64 << 20)
    assert runs == 0
    tight, runs = aggregate(spill, ["k", "t"], table, 500, least)
    assert runs > 8
    middle, runs = aggregate(spill, ["k", "t"], table, 6000, 5 << 20)
    assert runs > 0
    assert [bits(column) for column in roomy] == [bits(column) for column in tight]
    assert [bits(column) for column in roomy] == [bits(column) for column in middle]
    wanted = expected(["k", "t"], rows)
    sketch = 2 + next(at for at, agg in enumerate(AGGS) if agg.fn == "approx_count_distinct")
    for at, (values, theirs) in enumerate(zip(roomy, wanted, strict=True)):
        assert at == sketch or bits(values) == bits(theirs)


SUM = [AggregateState(StateOp.SUM, 1, I64), AggregateState(StateOp.COUNT_ROWS, -1, I64)]
SUM_OUTPUTS = [Output(OutputOp.STATE, 0, 11), Output(OutputOp.STATE, 1, I64)]


def ints(*columns: Sequence[int]) -> Columns:
    arrays = [pa.array(values, pa.int64()) for values in columns]
    fields = [Field(str(at), DataType("Int64")) for at in range(len(arrays))]
    return to_columns(arrays, fields, len(arrays[0]))


def test_runs_that_do_not_fit_one_merge_are_merged_twice(spill: SpillManager) -> None:
    numbers = list(range(60_000))
    random.Random(1).shuffle(numbers)
    memory = memory_of(AGGREGATE_BYTES_MIN)
    work = ExternalAggregate(memory, spill, [KeyColumn(0, I64)], SUM, SUM_OUTPUTS)
    with closing(work):
        for start in range(0, 60_000, 4000):
            part = numbers[start : start + 4000]
            work.add(ints(part, part))
            work.add(ints([number % 1000 for number in part], part))
        work.finish()
        assert work.stats.passes > 1
        out = memoryview(bytearray(1 << 16))
        keys: list[int] = []
        counts = 0
        for rows, columns in work.columns(out):
            keys += to_array(out, rows, columns[0], pa.int64()).to_pylist()
            counts += sum(to_array(out, rows, columns[2], pa.int64()).to_pylist())
    assert keys == list(range(60_000))
    assert counts == 120_000


def test_sums_carry_beyond_128_bits_on_the_way_only(spill: SpillManager) -> None:
    big = Decimal(10**38 - 1)
    values = pa.array([big] * 9 + [big.copy_negate()] * 8, pa.decimal128(38, 0))
    columns = to_columns([values], [Field("d", DataType.parse("Decimal(38,0)"))], len(values))
    memory = memory_of(AGGREGATE_BYTES_MIN)
    part, output = [AggregateState(StateOp.SUM, 0, 11)], [Output(OutputOp.STATE, 0, 11)]
    with closing(ExternalAggregate(memory, spill, [], part, output)) as work:
        work.add(columns)
        work.finish()
        out = memoryview(bytearray(1 << 12))
        ((rows, found),) = work.columns(out)
        assert to_array(out, rows, found[0], pa.decimal128(38, 0)).to_pylist() == [big]


def test_many_values_of_one_group_need_no_more_memory(spill: SpillManager) -> None:
    parts = [AggregateState(StateOp.COUNT, -1, I64), AggregateState(StateOp.MIN, -1, F64)]
    outputs = [Output(OutputOp.STATE, 0, I64), Output(OutputOp.STATE, 1, F64)]
    values = Values(0, I64, filled=[0], quantiles=[(1, 0.25)])
    memory = memory_of(2 * VALUES_BYTES_MIN)
    with closing(ExternalAggregate(memory, spill, [], parts, outputs, [values])) as work:
        for start in range(0, 50_000, 5000):
            work.add(ints([(number * 7919) % 50_001 for number in range(start, start + 5000)]))
        work.finish()
        assert work.stats.runs > 0
        out = memoryview(bytearray(1 << 12))
        ((_, (different, quarter)),) = work.columns(out)
        assert to_array(out, 1, different, pa.int64()).to_pylist() == [50_000]
        exact = sorted((number * 7919) % 50_001 for number in range(50_000))
        assert to_array(out, 1, quarter, pa.float64()).to_pylist() == [
            interpolated(list(map(float, exact)), 0.25)
        ]


def test_a_sketch_is_near_and_the_same_for_every_cut(spill: SpillManager) -> None:
    parts = [AggregateState(StateOp.SKETCH, 0, I64, 12)]
    outputs = [Output(OutputOp.ESTIMATE, 0, I64), Output(OutputOp.STATE, 0, 13)]
    found = []
    for cut in (1000, 7777, 100_000):
        memory = memory_of(1 << 20)
        with closing(ExternalAggregate(memory, spill, [], parts, outputs)) as work:
            for start in range(0, 100_000, cut):
                work.add(ints(range(start, min(start + cut, 100_000))))
            work.finish()
            out = memoryview(bytearray(1 << 16))
            ((_, (estimate, state)),) = work.columns(out)
            (number,) = to_array(out, 1, estimate, pa.int64()).to_pylist()
            (data,) = to_array(out, 1, state, pa.binary()).to_pylist()
            assert hll_estimate(data) == number
            found.append((number, data))
    assert found[0] == found[1] == found[2]
    assert abs(found[0][0] - 100_000) < 5000


def test_a_group_longer_than_the_memory_is_refused(spill: SpillManager) -> None:
    text = pa.array(["x" * 300_000], pa.utf8())
    columns = to_columns([text], [Field("t", DataType("Utf8"))], 1)
    memory = memory_of(AGGREGATE_BYTES_MIN)
    work = ExternalAggregate(memory, spill, [KeyColumn(0, 12)], [], [])
    with closing(work), pytest.raises(CapTooSmall):
        work.add(columns)


def test_too_little_memory_is_refused_before_it_starts(spill: SpillManager) -> None:
    memory = memory_of(AGGREGATE_BYTES_MIN - 1)
    with pytest.raises(CapTooSmall):
        ExternalAggregate(memory, spill, [KeyColumn(0, I64)], SUM, SUM_OUTPUTS)


@pytest.mark.slow
@pytest.mark.parametrize("memory_bytes", [1 << 20, 2 << 20, 64 << 20])
def test_long_keys_and_texts_among_short_ones(spill: SpillManager, memory_bytes: int) -> None:
    dice = random.Random(7)
    long = (1 << 20) // 30
    keys = [chr(97 + at) * (long - at if at % 2 else at) for at in range(24)]
    rows = [(dice.choice(keys), str(dice.random())) for _ in range(600)]
    rows += [(str(dice.randrange(9000)), str(dice.random())) for _ in range(20_000)]
    rows += [("long text", chr(97 + at) * long) for at in range(5)] * 2
    dice.shuffle(rows)
    fields = [Field("k", DataType("Utf8")), Field("t", DataType("Utf8"))]
    text = KINDS["Utf8"]
    grouped = ExternalAggregate(
        memory_of(memory_bytes),
        spill,
        [KeyColumn(0, text)],
        [AggregateState(StateOp.MAX, 1, text)],
        [Output(OutputOp.STATE, 0, text)],
    )
    found: dict[str, str] = {}
    with closing(grouped):
        for start in range(0, len(rows), 700):
            arrays = [
                pa.array(list(column)) for column in zip(*rows[start : start + 700], strict=True)
            ]
            grouped.add(to_columns(arrays, fields, len(arrays[0])))
        grouped.finish()
        out = memory_of(1 << 18)
        for count_, columns in grouped.columns(out):
            made = [to_array(out, count_, column, pa.string()).to_pylist() for column in columns]
            assert made[0] == sorted(made[0], key=str.encode)
            found |= dict(zip(*made, strict=True))
        assert grouped.stats.runs > 1
    wanted: dict[str, str] = {}
    for key, value in rows:
        wanted[key] = max(wanted.get(key, value), value)
    assert found == wanted


def test_texts_of_a_group_that_come_from_several_runs_have_room_together(
    spill: SpillManager,
) -> None:
    long, text = 1 << 14, KINDS["Utf8"]
    fillers = [(f"{at:05}", "s", "s") for at in range(9000)]
    rows = [("x", "a" * long, ""), *fillers, ("x", "", "b" * long)]
    fields = [Field(name, DataType("Utf8")) for name in "kab"]
    parts = [AggregateState(StateOp.MAX, 1, text), AggregateState(StateOp.MAX, 2, text)]
    outputs = [Output(OutputOp.STATE, at, text) for at in range(2)]
    work = ExternalAggregate(memory_of(1 << 20), spill, [KeyColumn(0, text)], parts, outputs)
    with closing(work):
        for start in range(0, len(rows), 700):
            arrays = [pa.array(column) for column in zip(*rows[start : start + 700], strict=True)]
            work.add(to_columns(arrays, fields, len(arrays[0])))
        work.finish()
        assert work.stats.runs > 1
        assert 2 * long < work.row_bytes_max < 3.1 * long
        out = memory_of(4 * work.row_bytes_max)
        found = [
            [to_array(out, count_, column, pa.string()).to_pylist() for column in columns]
            for count_, columns in work.columns(out)
        ]
    assert [made[-1] for made in found[-1]] == ["x", "a" * long, "b" * long]
    assert sum(len(made[0]) for made in found) == 9001
