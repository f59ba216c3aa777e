"""Plans full of sorted joins, run by the chosen strategies, return a row interpreter's rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz_runs import run_files
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import explain
from emsqrt.plan.check import check
from emsqrt.planner.testing import Rows, rows_of
from sennit_core.errors import UsageError
from sennit_core.schema import Schema

SCHEMA = Schema.of(a="Int64", b="Int64", c="Utf8")
LEFT, RIGHT = (scan(f"{name}.parquet", schema=SCHEMA) for name in ("left", "right"))

NUMBERS = st.one_of(st.none(), st.integers(0, 3))
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from([None, "", "x"])), max_size=12)
SIDES = st.sampled_from(
    [
        LEFT,
        RIGHT.sort("a", "b"),
        LEFT.sort("b", "a", "c"),
        RIGHT.group_by("a", "b").agg(n="count(*)"),
        LEFT.distinct("a", "b"),
        RIGHT.sort("a").limit(7),
        LEFT.sort("a", "b").rename({"a": "b", "b": "a"}),
        RIGHT.sort("b", "a").filter("a > 0").select("b", "a"),
    ]
)
Change = Callable[[Pipeline], Pipeline]
JOINS: st.SearchStrategy[Change] = st.builds(
    lambda other, on, how: lambda rows: rows.join(other, on, how),
    SIDES,
    st.sampled_from(["a", "b", ["a", "b"], ["b", "a"], {"a": "b"}]),
    st.sampled_from(["inner", "left", "semi", "anti", "right", "full"]),
)
ENDS: st.SearchStrategy[Change] = st.sampled_from(
    [
        lambda rows: rows,
        lambda rows: rows.sort("a"),
        lambda rows: rows.group_by("a").agg(n="count(*)", s="sum(b)"),
        lambda rows: rows.distinct(),
        lambda rows: rows.sort("b").limit(5),
    ]
)


def check_rows(side: Pipeline, joins: list[Change], end: Change, left: Rows, right: Rows) -> None:
    try:
        for join in joins:
            side = join(side)
        plan = end(side).plan
        schema = check(plan)
    except UsageError:
        return  # two columns of one name
    expected = rows_of(plan, {"left.parquet": left, "right.parquet": right})
    with TemporaryDirectory() as folder:
        for name, rows in (("left", left), ("right", right)):
            columns = list(zip(*rows, strict=True)) or [(), (), ()]
            table = pa.table(columns, schema=SCHEMA.to_arrow())
            pq.write_table(table, Path(folder) / f"{name}.parquet")
        found = run_files(plan, 64 << 20, Path(folder), "arrow", schema).rows
    assert list(map(tuple, found)) == expected, explain(plan)


PLAN = (SIDES, st.lists(JOINS, min_size=1, max_size=3), ENDS, ROWS, ROWS)


@pytest.mark.slow
@settings(max_examples=15)
@given(*PLAN)
def test_strategies_change_no_row(
    side: Pipeline, joins: list[Change], end: Change, left: Rows, right: Rows
) -> None:
    check_rows(side, joins, end, left, right)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@settings(max_examples=1500)
@given(*PLAN)
def test_strategies_change_no_row_of_many_plans(
    side: Pipeline, joins: list[Change], end: Change, left: Rows, right: Rows
) -> None:
    check_rows(side, joins, end, left, right)
