"""Which plans run at remote workers, and what is sent of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elytra.backends.remote.plans import remote_plan, why_not_remote
from elytra.pipelines.pipeline import Pipeline
from elytra.splitter import DatasetSize, Rules, Split, split
from elytra.testing.pipeline_runs import SCHEMA, Schemas
from emsqrt.plan import Files, Join, Plan, Scan, check, scans_of, walk

SIZES = {"t": DatasetSize(3, 1 << 30), "u": DatasetSize(1, 1)}
NODE = Schemas()
large, small = (Pipeline.over(NODE, name) for name in "tu")


def task_of(pipeline: Pipeline) -> Plan:
    """Return the plan of a task, as a job makes it."""
    cut = split(pipeline.plan, SCHEMA, rules=Rules(lambda ref: SIZES[ref.dataset]))
    assert why_not_remote(cut) is None
    assert isinstance(cut, Split)

    def other(scan: Scan, _: object) -> Plan:
        return replace(scan, source=Files(("shard-1",), "parquet"))

    return cut.shard_plan(cut.parts[0], Files(("shard-0",), "parquet"), None, other)


def test_a_worker_gets_the_columns_that_a_join_needs() -> None:
    rows = large.join(small.filter("i > 3").rename({"f": "g"}), on="k", how="left")
    plan = remote_plan(task_of(rows.group_by("k").agg(n="count()", most="max(g)")))
    assert plan.scan.columns == ("k",)
    (side,) = plan.sides
    assert set(check(side).names) - {"i"} == {"k", "g"}, "the filter's column is read, or left out"
    assert [scan.source for scan in scans_of(side)] == [Files(("shard-1",), "parquet")]
    assert [scan.source for scan in scans_of(plan.plan)] == [
        Files(("shard-0",), "arrow"), Files(("side-0",), "arrow"),
    ]  # fmt: skip
    assert check(plan.plan) == plan.schema


def test_sides_are_numbered_from_the_lowest_join() -> None:
    groups = small.group_by("k").agg(most="max(i)")
    rows = large.join(groups, on="k").filter("most > 2").join(small.select("i"), on="i", how="anti")
    plan = remote_plan(task_of(rows.select("k", "most")))
    joins = [node for node in walk(plan.plan) if isinstance(node, Join)]
    assert [scan.source for join in joins for scan in scans_of(join.right)] == [
        Files(("side-0",), "arrow"), Files(("side-1",), "arrow"),
    ]  # fmt: skip
    assert [check(side).names for side in plan.sides] == [("k", "most"), ("i",)]


def test_rows_of_a_small_left_side_are_found_by_the_keys_that_match() -> None:
    plan = remote_plan(task_of(small.join(large, on="k", how="semi")))
    assert plan.scan.columns == ("k",)
    assert [len(check(side)) for side in plan.sides] == [1]


@pytest.mark.parametrize(
    ("pipeline", "reason"),
    [
        (large.join(small, on="k", how="full"), "each task has two results"),
        (large.join(small, on="k", how="right"), "each task has two results"),
        (small.join(large, on="k", how="right"), "no right join"),
        (large.join(small, how="cross"), "no cross join"),
        (small.join(large, on="k").group_by("k").count(), "its left one"),
        (large.join(small.join(small.select("i"), on="i"), on="k"), "has the operator Join"),
    ],
)
def test_other_joins_run_on_the_node_and_explain_says_why(pipeline: Pipeline, reason: str) -> None:
    cut = split(pipeline.plan, SCHEMA, rules=Rules(lambda ref: SIZES[ref.dataset]))
    found = why_not_remote(cut)
    assert found is not None
    assert reason in found
