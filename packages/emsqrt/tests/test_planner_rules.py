"""Rules as pairs of text: the plan as it was written, and as it is carried out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emsqrt.expr import col
from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import explain, plan_hash
from emsqrt.planner import Rule, fold_constants, fuse, optimize, prune_columns, push_down_filters
from sennit_core.schema import Schema

A = scan("a.csv", schema=Schema.of(a="Int64", b="Int64", c="Utf8", d="Float64"))
B = scan("b.parquet", schema=Schema.of(a="Int64", b="Int64", e="Utf8"))
LISTS = scan("l.parquet", schema=Schema.of(a="Int64", l="List(Int64)"))


def text(rule: Rule, pipeline: Pipeline) -> list[str]:
    return [line.strip() for line in explain(rule(pipeline.plan, Path())).splitlines()]


FILTERS: list[tuple[Pipeline, list[str]]] = [
    (
        A.rename({"a": "x"}).select("x", "c").filter("x > 1"),
        ["project x, c", "rename a as x", "filter a > 1", "scan csv a.csv"],
    ),
    (
        A.with_column("x", "d / 2").filter("x > 1 and c == 'y'"),
        ["filter x > 1", "with_column d / 2 as x", "filter c == 'y'", "scan csv a.csv"],
    ),
    (
        A.join(B, on="a").filter("d > 1 and e == 'y' and a < 9 and b < b_right"),
        [
            "filter b < b_right",
            "join inner on a",
            "filter d > 1 and a < 9",
            "scan csv a.csv",
            "filter e == 'y' and a < 9",
            "scan parquet b.parquet blocks where e == 'y' and a < 9",
        ],
    ),
    (
        A.join(B, on="a", how="left").filter("d > 1 and coalesce(e, 'y') == 'y'"),
        [
            "filter coalesce(e, 'y') == 'y'",
            "join left on a",
            "filter d > 1",
            "scan csv a.csv",
            "scan parquet b.parquet",
        ],
    ),
    (
        A.join(B, on="a", how="left").filter("d > 1 and e == 'y'"),
        [
            "join inner on a",
            "filter d > 1",
            "scan csv a.csv",
            "filter e == 'y'",
            "scan parquet b.parquet blocks where e == 'y'",
        ],
    ),
    (
        A.join(B, on="a", how="full").filter("not (e is null)"),
        [
            "join right on a",
            "scan csv a.csv",
            "filter e is not null",
            "scan parquet b.parquet blocks where e is not null",
        ],
    ),
    (
        A.join(B, on="a", how="full").filter("d > 1"),
        ["join left on a", "filter d > 1", "scan csv a.csv", "scan parquet b.parquet"],
    ),
    (
        A.join(B, on="a", how="full").filter("b + 1 < b_right or (c > 'x' and e in ('y', 'z'))"),
        [
            "filter b + 1 < b_right or c > 'x' and e in ('y', 'z')",
            "join inner on a",
            "scan csv a.csv",
            "scan parquet b.parquet",
        ],
    ),
    (
        A.join(B, on="a", how="full").filter("a > 1"),
        ["filter a > 1", "join full on a", "scan csv a.csv", "scan parquet b.parquet"],
    ),
    (
        A.join(B, on="a", how="right").filter("a > 1 and b_right > 2 and d > 1"),
        [
            "join inner on a",
            "filter a > 1 and d > 1",
            "scan csv a.csv",
            "filter a > 1 and b > 2",
            "scan parquet b.parquet blocks where a > 1 and b > 2",
        ],
    ),
    (
        A.join(B, on="a").filter("cast(c as Int64) > 1"),
        [
            "filter cast(c as Int64) > 1",
            "join inner on a",
            "scan csv a.csv",
            "scan parquet b.parquet",
        ],
    ),
    (
        A.select("a", "b").union(B.select("b", "a")).filter("a > 1"),
        [
            "union",
            "project a, b",
            "filter a > 1",
            "scan csv a.csv",
            "project b, a",
            "filter b > 1",
            "scan parquet b.parquet blocks where b > 1",
        ],
    ),
    (
        A.group_by("c").agg(n="count(*)").filter("c == 'x' and n > 1"),
        ["filter n > 1", "aggregate count(*) as n by c", "filter c == 'x'", "scan csv a.csv"],
    ),
    (
        A.sort("a").filter("b > 1").distinct("a").filter("a > 1 and b > 2"),
        ["filter b > 2", "distinct by a", "sort by a", "filter b > 1 and a > 1", "scan csv a.csv"],
    ),
    (
        LISTS.explode("l", "item").filter("item > 1 and a > 2"),
        [
            "filter item > 1",
            "explode l as item",
            "filter a > 2",
            "scan parquet l.parquet blocks where a > 2",
        ],
    ),
    (A.limit(3).filter("a > 1"), ["filter a > 1", "limit 3", "scan csv a.csv"]),
    (
        A.filter("a > 1").filter("cast(c as Int64) > 1 and b > 2"),
        ["filter cast(c as Int64) > 1 and b > 2", "filter a > 1", "scan csv a.csv"],
    ),
    (
        A.window("a", "b", n="row_number()").filter("n == 1"),
        ["filter n == 1", "window row_number() as n by a in order of b", "scan csv a.csv"],
    ),
]


@pytest.mark.parametrize(("pipeline", "expected"), FILTERS)
def test_filters_sink_as_far_as_they_mean_the_same(pipeline: Pipeline, expected: list[str]) -> None:
    assert text(push_down_filters, pipeline) == expected


PRUNED: list[tuple[Pipeline, list[str]]] = [
    (
        A.join(B, on="a").select("d", "e"),
        [
            "project d, e",
            "join inner on a",
            "scan csv a.csv [a, d]",
            "scan parquet b.parquet [a, e]",
        ],
    ),
    (
        A.join(B, on="a").select("b_right"),
        [
            "project b_right",
            "join inner on a",
            "scan csv a.csv [a, b]",
            "scan parquet b.parquet [a, b]",
        ],
    ),
    (
        A.join(B, on="a", how="semi").select("c"),
        ["project c", "join semi on a", "scan csv a.csv [a, c]", "scan parquet b.parquet [a]"],
    ),
    (
        A.filter("d > 1").select("a", "b", "c").union(B).select("a"),
        [
            "project a",
            "union",
            "project a",
            "filter d > 1",
            "scan csv a.csv [a, d]",
            "scan parquet b.parquet [a]",
        ],
    ),
    (
        A.union(A.filter("b > 1")).select("a"),
        [
            "project a",
            "union",
            "scan csv a.csv [a]",
            "project a",
            "filter b > 1",
            "scan csv a.csv [a, b]",
        ],
    ),
    (
        A.window("a", "b:desc", s="sum(d)").select("s", "c"),
        [
            "project s, c",
            "window sum(d) as s by a in order of b desc",
            "scan csv a.csv [a, b, c, d]",
        ],
    ),
    (A.sort("b").select("a"), ["project a", "sort by b", "scan csv a.csv [a, b]"]),
    (A.distinct().select("a"), ["project a", "distinct", "scan csv a.csv"]),
    (
        A.with_columns(x="d / 2", y="a + b").select("a"),
        ["project a", "with_column a + b as y", "scan csv a.csv [a, b]"],
    ),
    (
        A.filter("a > 1").rename({"a": "x", "b": "a"}).select("a"),
        ["project a", "rename a as x, b as a", "filter a > 1", "scan csv a.csv [a, b]"],
    ),
]


@pytest.mark.parametrize(("pipeline", "expected"), PRUNED)
def test_scans_read_the_columns_of_the_tree(pipeline: Pipeline, expected: list[str]) -> None:
    assert text(prune_columns, pipeline) == expected


FUSED: list[tuple[Pipeline, list[str]]] = [
    (A.sort("a").limit(3, 1), ["top_k 3 offset 1 by a", "scan csv a.csv"]),
    (A.top_k(9, "a", offset=2).limit(5, 6), ["top_k 3 offset 8 by a", "scan csv a.csv"]),
    (A.limit(9, 2).limit(5, 6), ["limit 3 offset 8", "scan csv a.csv"]),
    (A.sort("a").sort("b"), ["sort by b, a", "scan csv a.csv"]),
    (A.filter("a > 1").filter("b > 1"), ["filter a > 1 and b > 1", "scan csv a.csv"]),
    (
        A.filter("a > 1").filter("cast(c as Int64) > 1"),
        ["filter cast(c as Int64) > 1", "filter a > 1", "scan csv a.csv"],
    ),
    (
        A.select(x=col("a") + 1, y="b").select(z=col("x") * 2),
        ["project (a + 1) * 2 as z", "scan csv a.csv"],
    ),
    (
        A.select(x=col("a") + 1).select(z=col("x") * col("x")),
        ["project x * x as z", "project a + 1 as x", "scan csv a.csv"],
    ),
]


@pytest.mark.parametrize(("pipeline", "expected"), FUSED)
def test_neighbours_become_one(pipeline: Pipeline, expected: list[str]) -> None:
    assert text(fuse, pipeline) == expected


def test_filters_that_keep_all_or_nothing_go() -> None:
    assert text(fold_constants, A.filter("true")) == ["scan csv a.csv"]
    assert text(fold_constants, A.filter("1 > 2")) == ["limit 0", "scan csv a.csv"]
    assert text(fold_constants, A.filter("a > 1 + 2"))[0] == "filter a > 3"


def test_planning_loads_nothing_of_others() -> None:
    code = "import sys, emsqrt.te, emsqrt.pipeline; print(*(m.split('.')[0] for m in sys.modules))"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pyarrow", "pandas", "duckdb"} & set(loaded)


def test_optimizing_leaves_the_submitted_plan_as_it_was() -> None:
    plan = B.filter("b > 1").select("a").plan
    before = plan_hash(plan)
    assert explain(optimize(plan)).endswith("scan parquet b.parquet [a, b] blocks where b > 1")
    assert plan_hash(plan) == before
