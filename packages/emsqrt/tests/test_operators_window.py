from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt.expr import Column, lit
from emsqrt.external.window_tape import SLOTS_MIN
from emsqrt.operators import window
from emsqrt.plan import DatasetRef, Frame, Scan, SortKey, Window, WindowCall
from emsqrt.plan.window import WINDOW_FUNCTIONS, FrameUnit
from emsqrt.testing import GivenRows, run_operator
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
    rows = GivenRows(Schema.from_arrow(table.schema), table.to_batches(max_chunksize=batch_rows))
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


def asked(
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
    for block_bytes in (1 << 18, 700):  # the tape is spilled all along when it has six small slots
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(window, "BLOCK_BYTES_MAX", block_bytes)
            patch.setattr(window, "SLOTS_MAX", SLOTS_MIN)
            again = windowed(table, functions, by=by, order=order, memory_bytes=LEAST)
        assert repr(found.to_pylist()) == repr(again.to_pylist())
    expected = asked(table, cases, by, order)
    assert found.num_rows == table.num_rows
    for row in found.to_pylist():
        for at, case in enumerate(cases):
            value, wanted = row[f"w{at}"], expected[row["id"]][at]
            assert same(value, wanted), (case, row, wanted)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_duckdb_says_the_same(seed: int) -> None:
    check_against_duckdb(seed)
