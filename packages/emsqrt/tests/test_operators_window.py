from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.expr import Column, lit
from emsqrt.expr.errors import ValueOutOfRange
from emsqrt.external.window_buffer import SLOTS_MIN
from emsqrt.floats.exact import FloatSum
from emsqrt.operators import Operator, registry, window
from emsqrt.pipeline import scan
from emsqrt.plan import DatasetRef, Frame, Scan, SortKey, Window, WindowCall, check
from emsqrt.plan.window import WINDOW_FUNCTIONS, FrameUnit
from emsqrt.testing import InputRows, run_operator
from sennit_core.errors import CapTooSmall
from sennit_core.schema import Schema

MIB = 1 << 20
LEAST = 2 * MIB + MIB // 4
"""The least that a plan with one such operator is run with."""
HERE = Scan(DatasetRef("here"))
SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "p": pa.string(),
        "o": pa.int64(),
        "x": pa.int64(),
        "f": pa.float64(),
        "d": pa.decimal128(12, 2),
        "s": pa.string(),
    }
)


def windowed(
    table: pa.Table,
    functions: Sequence[tuple[str, WindowCall]],
    *,
    by: Sequence[str] = ("p",),
    order: Sequence[SortKey] = (),
    memory_bytes: int = 16 * MIB,
    batch_rows: int = 1000,
) -> pa.Table:
    rows = InputRows(Schema.from_arrow(table.schema), table.to_batches(max_chunksize=batch_rows))
    node = Window(HERE, tuple(map(Column, by)), tuple(order), tuple(functions))
    batches = run_operator(node, rows, memory_bytes=memory_bytes)
    return pa.Table.from_batches(batches, make_schema(node, table))


def make_schema(node: Window, table: pa.Table) -> pa.Schema:
    from emsqrt.plan.check import window_schema

    return window_schema(node, Schema.from_arrow(table.schema)).to_arrow()


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or math.isclose(
            left, right, rel_tol=1e-9, abs_tol=1e-9
        )
    return bool(left == right)


@dataclass(frozen=True)
class Case:
    """A window function and how SQL writes it."""

    call: WindowCall
    text: str


def sql_frame(frame: Frame | None) -> str:
    if frame is None:
        return ""

    def bound(at: int | None, side: str) -> str:
        if at is None:
            return f"unbounded {side}"
        if at == 0:
            return "current row"
        return f"{abs(at)} {'preceding' if at < 0 else 'following'}"

    low, high = bound(frame.start, "preceding"), bound(frame.end, "following")
    return f" {frame.unit} between {low} and {high}"


def duckdb_rows(
    table: pa.Table, cases: Sequence[Case], by: Sequence[str], order: Sequence[SortKey]
) -> dict[int, list[Any]]:
    """What DuckDB says of each row, by its id."""
    keys = ", ".join(
        f"{key.expr!s} {'desc' if key.descending else 'asc'} nulls "
        f"{'first' if key.nulls_first else 'last'}"
        for key in order
    )
    columns = []
    for case in cases:
        frame = case.call.frame
        # Where the frame goes by rows or place, equals stay in the order of the input.
        exact = case.call.fn in ("row_number", "ntile", "lag", "lead") or (
            frame is not None and frame.unit == "rows"
        )
        wanted = f"{keys}, id" if exact and keys else "id" if exact else keys
        if case.call.fn in ("first_value", "last_value") and not exact:
            wanted = keys
        over = f"partition by {', '.join(by)}" if by else ""
        over += f" order by {wanted}" if wanted else ""
        columns.append(f"{case.text} over ({over}{sql_frame(frame)})")
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        connection.register("t", table)
        found = connection.execute(f"select id, {', '.join(columns)} from t").fetchall()
    return {row[0]: list(row[1:]) for row in found}


class Draw:
    """Random windows over random tables, all from one number."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.one_of: Any = self.random.choice

    def frame(self, *, by_value: bool) -> Frame | None:
        unit: FrameUnit | None = self.one_of(["rows", "range", None])
        if unit is None:
            return None
        start, end = (self.one_of([None, 0, -3, -1, 1, 2, -50, 50]) for _ in range(2))
        if unit == "range" and not by_value:
            start, end = start and 0, end and 0
        if start is not None and end is not None and start > end:
            start, end = end, start
        return Frame(unit, start, end)

    def call(self, *, by_value: bool) -> Case:
        fn = self.one_of([*WINDOW_FUNCTIONS, "star"])
        if fn in ("row_number", "rank", "dense_rank"):
            return Case(WindowCall(fn), f"{fn}()")
        if fn == "ntile":
            tiles = self.one_of([1, 2, 3, 7])
            return Case(WindowCall(fn, None, (lit(tiles),)), f"ntile({tiles})")
        if fn == "star":
            return Case(WindowCall("count", None, (), self.frame(by_value=by_value)), "count(*)")
        column = self.one_of(["x", "f", "d"] if fn in ("sum", "avg") else ["x", "f", "d", "s"])
        arg = Column(column)
        if fn in ("lag", "lead"):
            offset = self.one_of([0, 1, 2, 40])
            if column == "x" and self.one_of([True, False]):
                call = WindowCall(fn, arg, (lit(offset), lit(-7)))
                return Case(call, f"{fn}(x, {offset}, -7)")
            return Case(WindowCall(fn, arg, (lit(offset),)), f"{fn}({column}, {offset})")
        frame = self.frame(by_value=by_value)
        if fn in ("first_value", "last_value") and (frame is None or frame.unit == "range"):
            frame = Frame("rows", *(() if frame is None else (frame.start, frame.end)))
        return Case(WindowCall(fn, arg, (), frame), f"{fn}({column})")

    def table(self) -> pa.Table:
        count = self.one_of([0, 1, 5, 60, 200])
        partitions: list[Any] = self.one_of([["a"], ["a", "b", None], [f"p{n}" for n in range(40)]])
        spread, one = self.one_of([0, 2, 30]), self.random
        floats: list[Any] = [None, -0.0]
        if one.random() < 0.3:
            floats += [0.0, math.nan, math.inf, 1e18]

        def maybe(value: Any) -> Any:
            return None if one.random() < 0.15 else value

        columns = [
            range(count),
            [one.choice(partitions) for _ in range(count)],
            [maybe(one.randint(-spread, spread)) for _ in range(count)],
            [maybe(one.randint(-(10**6), 10**6)) for _ in range(count)],
            [one.choice([*floats, *(one.uniform(-99, 99) for _ in "123")]) for _ in range(count)],
            [maybe(Decimal(one.randint(-99999, 99999)).scaleb(-2)) for _ in range(count)],
            [maybe("".join(one.choices("ab\0é", k=one.randint(0, 3)))) for _ in range(count)],
        ]
        arrays = [pa.array(list(c), f.type) for c, f in zip(columns, SCHEMA, strict=True)]
        return pa.table(arrays, schema=SCHEMA)

    def order(self) -> tuple[SortKey, ...]:
        o, s, f = map(Column, "osf")
        ways = [(o, False, False), (o, True, False), (o, False, True), (o, True, True)]
        keys = [(), *((SortKey(*way),) for way in ways), (SortKey(s), SortKey(f, True, True))]
        chosen: tuple[SortKey, ...] = self.one_of(keys)
        return chosen


def check_against_duckdb(seed: int) -> None:
    draw = Draw(seed)
    by, order, table = draw.one_of([("p",), (), ("p", "x")]), draw.order(), draw.table()
    by_value = len(order) == 1
    cases = [draw.call(by_value=by_value) for _ in range(draw.one_of([1, 2, 5]))]
    functions = [(f"w{at}", case.call) for at, case in enumerate(cases)]
    found = windowed(table, functions, by=by, order=order, batch_rows=draw.one_of([1, 7, 500]))
    for block_bytes in (1 << 18, 700):  # a buffer of six small slots spills all along
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(window, "BLOCK_BYTES_MAX", block_bytes)
            patch.setattr(window, "SLOTS_MAX", SLOTS_MIN)
            again = windowed(table, functions, by=by, order=order, memory_bytes=LEAST)
        assert repr(found.to_pylist()) == repr(again.to_pylist())
    expected = duckdb_rows(table, cases, by, order)
    assert found.num_rows == table.num_rows
    for row in found.to_pylist():
        for at, case in enumerate(cases):
            value, wanted = row[f"w{at}"], expected[row["id"]][at]
            assert same(value, wanted), (case, row, wanted)


@pytest.mark.slow
@settings(max_examples=12)
@given(st.integers(0, 2**32))
def test_duckdb_says_the_same(seed: int) -> None:
    check_against_duckdb(seed)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_duckdb_says_the_same_of_many() -> None:
    for seed in range(2000):
        check_against_duckdb(seed)


def numbered(rows: int, **columns: Any) -> pa.Table:
    return pa.table({"id": pa.array(range(rows), pa.int64()), **columns})


@pytest.mark.nightly
@pytest.mark.parametrize("memory_bytes", [64 * MIB, 3 * MIB, LEAST])
def test_a_partition_need_not_fit_the_memory(memory_bytes: int) -> None:
    rows = 300_000
    mixed = [(number * 7919) % rows for number in range(rows)]
    table = numbered(
        rows,
        o=pa.array(mixed, pa.int64()),
        x=pa.array([number % 1000 for number in mixed], pa.int64()),
        t=pa.array([f"text {number}" for number in mixed], pa.string()),
    )
    x, whole = Column("x"), Frame("rows", None, None)
    functions = [
        ("total", WindowCall("sum", x, (), whole)),
        ("tile", WindowCall("ntile", None, (lit(4),))),
        ("so_far", WindowCall("sum", x, (), Frame("rows", None, 0))),
        ("past", WindowCall("sum", x, (), Frame("rows", -70_000, -1))),
        ("left", WindowCall("count", None, (), Frame("rows", 1, None))),
        ("near", WindowCall("min", x, (), Frame("rows", -2, 2))),
        ("last", WindowCall("last_value", Column("t"), (), whole)),
        ("far", WindowCall("lag", Column("o"), (lit(100_000),))),
        ("least", WindowCall("max", Column("t"), (), whole)),
    ]
    order = [SortKey(Column("o"))]

    found = windowed(table, functions, by=(), order=order, memory_bytes=memory_bytes)

    values = [number % 1000 for number in range(rows)]
    sums = list(accumulate(values))
    assert found["total"].unique().to_pylist() == [sums[-1]]
    assert found["tile"].to_pylist() == [1 + number * 4 // rows for number in range(rows)]
    assert found["so_far"].to_pylist() == sums
    assert found["past"].to_pylist()[1:] == [
        sums[at - 1] - (sums[at - 70_001] if at > 70_000 else 0) for at in range(1, rows)
    ]
    assert found["left"].to_pylist() == list(range(rows - 1, -1, -1))
    assert found["near"].to_pylist()[997:1004] == [995, 0, 0, 0, 0, 0, 1]
    assert found["last"].unique().to_pylist() == [f"text {rows - 1}"]
    assert found["far"].to_pylist() == [*[None] * 100_000, *range(200_000)]
    assert found["least"].unique().to_pylist() == ["text 99999"]


@pytest.mark.slow
def test_equals_in_the_order_need_not_fit_the_memory() -> None:
    table = numbered(
        100_003,
        o=pa.array([1, *[2] * 100_000, 3, None], pa.int64()),
        s=pa.array([str(number) for number in range(100_003)]),
    )
    order = [SortKey(Column("o"))]
    functions = [
        ("count", WindowCall("count")),
        ("last", WindowCall("last_value", Column("s"))),
        ("rank", WindowCall("rank")),
        ("dense", WindowCall("dense_rank")),
        ("near", WindowCall("count", None, (), Frame("range", -1, 0))),
    ]

    found = windowed(table, functions, by=(), order=order, memory_bytes=LEAST)

    def runs(name: str) -> list[tuple[Any, int]]:
        return [(value, len(list(same))) for value, same in groupby(found[name].to_pylist())]

    assert runs("count") == [(1, 1), (100_001, 100_000), (100_002, 1), (100_003, 1)]
    assert runs("last") == [("0", 1), ("100000", 100_000), ("100001", 1), ("100002", 1)]
    assert runs("rank") == [(1, 1), (2, 100_000), (100_002, 1), (100_003, 1)]
    assert runs("dense") == [(1, 1), (2, 100_000), (3, 1), (4, 1)]
    assert runs("near") == [(1, 1), (100_001, 100_001), (1, 1)]


@pytest.mark.nightly
def test_a_long_text_of_many_rows_makes_no_long_batch() -> None:
    long = ["x" * 20_000, *["y"] * 5000]
    table = numbered(5001, s=pa.array(long))
    rows = InputRows(Schema.from_arrow(table.schema), table.to_batches())
    call = WindowCall("first_value", Column("s"), (), Frame("rows", None, 0))
    node = Window(HERE, (), (SortKey(Column("id")),), (("first", call),))

    batches = run_operator(node, rows, memory_bytes=4 * MIB)

    assert max(batch.nbytes for batch in batches) < MIB
    assert pa.Table.from_batches(batches)["first"].to_pylist() == [long[0]] * 5001


def test_framed_float_sums_are_those_of_their_rows_alone() -> None:
    values = [1e300, 1.0, 2.0**-1074, -1e300, 3.5, math.inf, 0.1, 0.2, math.nan, -0.0, 7.25, 1e-9]
    table = numbered(12, f=pa.array(values))
    call = WindowCall("sum", Column("f"), (), Frame("rows", -2, 1))

    found = windowed(table, [("sum", call)], by=(), order=[SortKey(Column("id"))])

    wanted = [FloatSum.of(values[max(0, at - 2) : at + 2]).value() for at in range(12)]
    assert repr(found["sum"].to_pylist()) == repr(wanted)


def test_frames_by_value_reach_beyond_the_type_of_their_key() -> None:
    table = pa.table({"id": [0, 1, 2], "k": pa.array([0, 5, 255], pa.uint8())})
    call = WindowCall("count", None, (), Frame("range", -300, 10))
    found = windowed(table, [("n", call)], by=(), order=[SortKey(Column("k"))])
    assert found["n"].to_pylist() == [2, 2, 3]


def test_a_sum_beyond_its_type_is_an_error() -> None:
    table = numbered(2, x=pa.array([2**63 - 1, 1], pa.int64()))
    sums = [("sum", WindowCall("sum", Column("x")))]
    with pytest.raises(ValueOutOfRange, match="sum"):
        windowed(table, sums, by=())
    assert windowed(table, sums, by=("id",)).num_rows == 2
    whole = WindowCall("avg", Column("x"))
    assert windowed(table, [("avg", whole)], by=())["avg"].to_pylist() == [2.0**62] * 2


def test_candidates_for_a_minimum_that_do_not_fit_are_refused() -> None:
    table = numbered(60_000)
    call = WindowCall("min", Column("id"), (), Frame("rows", -50_000, 0))
    order = [SortKey(Column("id"))]
    with pytest.raises(CapTooSmall, match="min"):
        windowed(table, [("min", call)], by=(), order=order, memory_bytes=LEAST)
    call = WindowCall("max", Column("id"), (), Frame("rows", -50_000, 0))
    found = windowed(table, [("max", call)], by=(), order=order, memory_bytes=LEAST)
    assert found["max"].to_pylist() == list(range(60_000))


def test_a_row_that_no_slot_holds_is_refused() -> None:
    table = numbered(3, s=pa.array(["a", "b" * 200_000, "c"]))
    with pytest.raises(CapTooSmall):
        windowed(table, [("n", WindowCall("row_number"))], by=(), memory_bytes=LEAST)
    assert windowed(table, [("n", WindowCall("row_number"))], by=()).num_rows == 3


class OneBatch:
    """Passes on the first batch of its input, and then closes it."""

    def __init__(self, below: Operator) -> None:
        self._below = below
        self.schema = below.schema

    def batches(self) -> Generator[Any]:
        with closing(self._below.batches()) as batches:
            yield next(batches)


@pytest.mark.parametrize("memory_bytes", [LEAST, 64 * MIB])
def test_a_window_that_is_closed_early_releases_all_memory(
    memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = registry._MAKERS[Window]
    early = {**registry._MAKERS, Window: lambda *args: OneBatch(make(*args))}
    monkeypatch.setattr(registry, "_MAKERS", early)
    table = numbered(50_000, s=pa.array([str(at) for at in range(50_000)]))
    far = Frame("rows", -9000, 9000)
    functions = [
        ("far", WindowCall("max", Column("s"), (), far)),
        ("sum", WindowCall("sum", Column("id"), (), far)),
        ("total", WindowCall("count")),
    ]

    found = windowed(table, functions, by=(), memory_bytes=memory_bytes)

    assert 0 < found.num_rows < 50_000


@pytest.mark.nightly
@pytest.mark.parametrize("default", ["0", "12345", "-1"])
def test_offsets_of_a_decimal_may_be_any_number_that_it_holds(default: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("k,d\n1,2.50\n2,3.75\n")
    rows = scan(tmp_path / "a.csv", schema=Schema.of(k="Int64", d="Decimal(9,2)"))
    for fn, wanted in (("lag", [default, "2.50"]), ("lead", ["3.75", default])):
        found = rows.window((), "k", w=f"{fn}(d, 1, {default})").collect()
        assert found["w"].to_pylist() == [Decimal(each) for each in wanted]


def test_a_number_that_a_decimal_does_not_hold_is_no_default_of_it(tmp_path: Path) -> None:
    rows = scan(tmp_path / "a.csv", schema=Schema.of(k="Int64", d="Decimal(4,2)"))
    with pytest.raises(ValueOutOfRange, match=r"100 is not a Decimal\(4,2\) in `lag\(d, 1, 100\)`"):
        check(rows.window((), "k", w="lag(d, 1, 100)").plan)
