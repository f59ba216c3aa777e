"""Groups before a join have the rows of groups after it, and are not made where they could differ."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytra import col, count
from elytra.backends.ray.early_groups import early_groups
from emsqrt.expr import Expr, count_distinct, first, median, parse_expr, var
from emsqrt.in_process import run_here
from emsqrt.plan import (
    Aggregate,
    Files,
    FileTarget,
    Filter,
    Join,
    Plan,
    Scan,
    Sink,
    Union,
    check,
)
from sennit_core.schema import Schema

LEFT = Schema.of(k="Int64", x="Int32", f="Float64", label="Utf8")
RIGHT = Schema.of(k="Int64", label="Utf8", kind="Utf8")
SPLIT = 7
AGGS = (
    ("n", count()),
    ("known", count("x")),
    ("sum", col("f").sum()),
    ("mean", col("x").mean()),
    ("spread", var("f")),
    ("least", col("label").min()),
    ("most", col("f").max()),
)

keys = st.none() | st.integers(-3, 3)
words = st.none() | st.sampled_from(["a", "b", "", "å"])
left_rows = st.lists(
    st.tuples(keys, st.none() | st.integers(-(2**31), 2**31 - 1), st.none() | st.floats(), words),
    max_size=20,
)
right_rows = st.lists(st.tuples(keys, words, words), max_size=8)


def scan(name: str, schema: Schema) -> Scan:
    return Scan(Files((name,), "parquet"), schema)


def group_by(
    *keys: str, how: Any = "inner", aggs: Any = AGGS, right: Plan | None = None
) -> Aggregate:
    join = Join(scan("left", LEFT), right or scan("right", RIGHT), (("k", "k"),), how)
    return Aggregate(join, tuple((name, parse_expr(name)) for name in keys), tuple(aggs))


def write(folder: Path, name: str, schema: Schema, rows: Any) -> str:
    columns = [[row[at] for row in rows] for at in range(len(schema))]
    pq.write_table(pa.table(columns, schema=schema.to_arrow()), folder / name)
    return str(folder / name)


def rows_of(plan: Plan, folder: Path) -> list[str]:
    path = folder / "result.parquet"
    run_here(Sink(plan, FileTarget(str(path), "parquet")), 64 << 20, folder / "spill")
    return [repr(row) for row in pq.read_table(path).to_pylist()]


def compare(by: tuple[str, ...], left: list[Any], right: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as found:
        folder = Path(found)
        parts = [
            scan(write(folder, f"left-{at}", LEFT, rows), LEFT)
            for at, rows in enumerate((left[:SPLIT], left[SPLIT:]))
        ]
        other = scan(write(folder, "right", RIGHT, right), RIGHT)
        plan = group_by(*by, right=other)
        early = early_groups(plan)
        assert early is not None

        states = Union(tuple(early.over(part, other) for part in parts))
        merged = replace(plan, input=states, phase="final")
        joined = replace(plan, input=Join(Union(tuple(parts)), other, (("k", "k"),)))
        assert check(merged) == check(joined)
        assert rows_of(merged, folder) == rows_of(joined, folder)


def test_the_rows_are_those_of_groups_after_the_join() -> None:
    left = [(n % 5 or None, n * 7, (n - 9) / 7, "abc"[n % 3]) for n in range(20)]
    right = [(1, "a", "x"), (1, "b", None), (2, "b", "x"), (None, "a", "y"), (9, "c", "y")]
    compare(("label_right", "k"), left, right)
    compare((), left, right)


@pytest.mark.nightly
@given(st.sampled_from([("kind",), ("label_right", "k"), ()]), left_rows, right_rows)
def test_random_rows_are_those_of_groups_after_the_join(
    by: tuple[str, ...], left: list[Any], right: list[Any]
) -> None:
    compare(by, left, right)


@pytest.mark.parametrize(
    "aggs",
    [
        {"a": first("x")},  # its states depend on the order of the join's rows
        {"a": median("x")},
        {"a": count_distinct("x")},
        {"a": col("kind").max()},  # of the other side
        {"a": (col("x") * col("x")).sum()},  # may fail for a row that has no match
    ],
)
def test_groups_that_could_differ_are_made_after_the_join(aggs: dict[str, Expr]) -> None:
    assert early_groups(group_by("kind", aggs=aggs.items())) is None


def test_plans_of_another_form_are_not_changed() -> None:
    assert early_groups(group_by("kind")) is not None
    assert early_groups(group_by("kind", how="left")) is None
    assert early_groups(group_by("x")) is None, "a key of the rows that are grouped early"
    filtered = Filter(scan("right", RIGHT), parse_expr("kind = 'a'"))
    assert early_groups(group_by("kind", right=filtered)) is None
    floats = Schema.of(k="Float64", kind="Utf8")
    join = Join(scan("left", floats), scan("right", floats), (("k", "k"),))
    assert early_groups(Aggregate(join, (("kind_right", col("kind_right")),), AGGS[:1])) is None
    taken = Schema.of(**{"k": "Int64", "kind": "Utf8", "n$count": "Int64"})
    assert early_groups(group_by("kind", right=scan("right", taken))) is None
