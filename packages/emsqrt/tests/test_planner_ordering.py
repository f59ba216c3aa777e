"""Which operators depend on row order, by what rows are sorted, and which sorts are redundant."""

from __future__ import annotations

from pathlib import Path

import pytest

from emsqrt.expr import col, first
from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import explain, walk
from emsqrt.plan.explain import line_of
from emsqrt.planner import drop_sorts, order_seen, orders_of
from sennit_core.schema import Schema

A = scan("a.csv", schema=Schema.of(a="Int64", b="Int64", c="Utf8"))
B = scan("b.csv", schema=Schema.of(a="Int64", b="Int64", d="Int32"))
JOIN = "join inner on a"

SEEN: list[tuple[Pipeline, list[str]]] = [
    (A.join(B, "a"), ["scan csv a.csv", "scan csv b.csv"]),
    (A.join(B, "a").group_by("c").agg(n="count(*)", s="sum(d)", m="quantile(d, 0.5)"), []),
    (
        A.join(B, "a").group_by("c").agg(n="count(*)", f=first(col("d"))),
        [JOIN, "scan csv a.csv", "scan csv b.csv"],
    ),
    (A.join(B, "a").filter("d > 1").select("c", x="d * 2").distinct(), []),
    (A.join(B, "a").distinct("c"), [JOIN, "scan csv a.csv", "scan csv b.csv"]),
    (A.join(B.join(A, "a"), "a", "semi"), ["scan csv a.csv"]),
    (A.union(A.join(B, "a", "semi")).rename({"a": "x"}).agg(n="max(x)"), []),
    (A.join(B, "a").limit(3).agg(n="count(*)"), [JOIN, "scan csv a.csv", "scan csv b.csv"]),
    (A.join(B, "a").sort("c").distinct(), [JOIN, "scan csv a.csv", "scan csv b.csv"]),
    (A.window("a", "b", n="row_number()").agg(n="max(n)"), ["scan csv a.csv"]),
    (
        A.join(B, "a").sample(fraction=0.5).agg(n="count(*)"),
        [JOIN, "scan csv a.csv", "scan csv b.csv"],
    ),
    (A.join(B.join(A, "a"), "a", "left").agg(n="count(*)"), []),
]


@pytest.mark.parametrize(("pipeline", "expected"), SEEN)
def test_an_order_is_seen_where_the_result_depends_on_it(
    pipeline: Pipeline, expected: list[str]
) -> None:
    seen = order_seen(pipeline.plan)
    nodes = list(walk(pipeline.plan))[:-1]
    assert seen[-1]
    assert sorted(line_of(n) for n, look in zip(nodes, seen, strict=False) if look) == sorted(
        expected
    )


ORDERS: list[tuple[Pipeline, tuple[str, ...]]] = [
    (A, ()),
    (A.sort("b", "a"), ("b", "a")),
    (A.sort("b", "a:desc", "c"), ("b",)),
    (A.sort(col("a") + 1, "b"), ()),
    (A.sort("b").top_k(5, "a"), ("a", "b")),
    (A.sort("a", "b").filter("c == 'x'").limit(9).rename({"a": "x"}), ("x", "b")),
    (A.sort("a", "b").select("b", y="a"), ("y", "b")),
    (A.sort("a", "b", "c").select("a", "c"), ("a",)),
    (A.sort("a", "b").with_columns(b="b + 1"), ("a",)),
    (A.sort("a").sample(fraction=0.5), ("a",)),
    (A.group_by("c", x="a + b").agg(n="count(*)"), ("c", "x")),
    (A.distinct(), ("a", "b", "c")),
    (A.distinct("c", "a"), ("c", "a")),
    (A.window("c", "b:desc", n="row_number()"), ("c",)),
    (A.sort("b").join(B.sort("d"), "a", "left"), ("b",)),
    (A.sort("a").join(B, "a", "full"), ()),
    (A.sort("a").union(A.sort("a")), ()),
]


@pytest.mark.parametrize(("pipeline", "expected"), ORDERS)
def test_rows_are_sorted_by(pipeline: Pipeline, expected: tuple[str, ...]) -> None:
    assert orders_of(pipeline.plan)[-1] == expected


DROPPED: list[tuple[Pipeline, list[str]]] = [
    (A.sort("a").group_by("c").agg(n="sum(a)"), ["aggregate sum(a) as n by c", "scan csv a.csv"]),
    (
        A.sort("a").group_by("c").agg(n=first(col("a"))),
        ["aggregate first(a) as n by c", "sort by a", "scan csv a.csv"],
    ),
    (
        A.group_by("c", "a").agg(n="count(*)").sort("c"),
        ["aggregate count(*) as n by c, a", "scan csv a.csv"],
    ),
    (
        A.group_by("c").agg(n="count(*)").top_k(3, "c", offset=1),
        ["limit 3 offset 1", "aggregate count(*) as n by c", "scan csv a.csv"],
    ),
    (
        A.group_by("c").agg(n="count(*)").sort("c:desc"),
        ["sort by c desc", "aggregate count(*) as n by c", "scan csv a.csv"],
    ),
    (
        A.group_by("c", "a").agg(n="count(*)").sort("a"),
        ["sort by a", "aggregate count(*) as n by c, a", "scan csv a.csv"],
    ),
    (
        A.join(B.sort("d"), "a", "anti").sort("b"),
        ["sort by b", "join anti on a", "scan csv a.csv", "scan csv b.csv"],
    ),
    (A.sort("a").limit(3).distinct(), ["distinct", "limit 3", "sort by a", "scan csv a.csv"]),
]


@pytest.mark.parametrize(("pipeline", "expected"), DROPPED)
def test_a_sort_that_is_not_observable_is_removed(pipeline: Pipeline, expected: list[str]) -> None:
    plan = drop_sorts(pipeline.plan, Path())
    assert [line.strip() for line in explain(plan).splitlines()] == expected
