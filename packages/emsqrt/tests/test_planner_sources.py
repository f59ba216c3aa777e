from __future__ import annotations

from pathlib import Path

import pytest

from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import Scan
from emsqrt.planner import find_schema, prune_columns, scan_of
from sennit_core.schema import Schema

SCHEMA = Schema.of(a="Int64", b="Int64", c="Utf8", d="Float64")
ROWS = scan("in.csv", schema=SCHEMA)


@pytest.mark.parametrize(
    ("pipeline", "columns"),
    [
        (ROWS, None),
        (ROWS.filter("a > 1"), None),
        (ROWS.limit(3).sink("o.csv"), None),
        (ROWS.select("c"), ("c",)),
        (ROWS.filter("a > 1").select("c").limit(2).sink("o.csv"), ("a", "c")),
        (ROWS.with_column("x", "a + b").select("x"), ("a", "b")),
        (ROWS.with_column("a", "b").select("a", "d"), ("b", "d")),
        (ROWS.rename({"a": "c2", "c": "a"}).select("a"), ("c",)),
        (ROWS.group_by("c").agg(n="sum(d)"), ("c", "d")),
        (ROWS.group_by(k="a + b").agg("count(*)").filter("k > 1"), ("a", "b")),
        (ROWS.agg("count(*)"), ("a",)),
    ],
)
def test_a_scan_reads_only_used_columns(
    pipeline: Pipeline, columns: tuple[str, ...] | None
) -> None:
    assert scan_of(prune_columns(pipeline.plan, Path())).columns == columns


def test_pruning_keeps_the_order_and_the_choice_of_the_scan() -> None:
    chosen = Pipeline(Scan(scan_of(ROWS.plan).source, SCHEMA, ("d", "c", "a")))
    pruned = prune_columns(chosen.select("a", "d").plan, Path())
    assert scan_of(pruned).columns == ("d", "a")


def test_a_missing_schema_is_found_where_the_folder_says(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,x\n")
    found = find_schema(scan("in.csv").limit(1).plan, tmp_path)
    assert scan_of(found).schema == Schema.of(a="Int64", b="Utf8")
    plan = ROWS.limit(1).plan
    assert find_schema(plan, tmp_path) is plan
