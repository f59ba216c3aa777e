"""Plans as pairs of text: a pipeline, and what runs where. ELYTRA_UPDATE_PLANS=1 rewrites them."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elytra.pipelines.pipeline import Pipeline
from elytra.splitter import DatasetSize, Rules, Split, Whole, split
from emsqrt.expr import SortKey, col, count
from emsqrt.plan import (
    Aggregate,
    DatasetRef,
    Files,
    FileTarget,
    Filter,
    Join,
    Limit,
    Scan,
    Sink,
    Sort,
)
from sennit_core.errors import UnknownColumn, UsageError
from sennit_core.schema import Schema

PLANS = Path(__file__).parent / "plans" / "split.txt"
CASES = [
    match.groups()
    for match in re.finditer(r"^# (.+)\n(.+)\n((?:>.*\n)*)", PLANS.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize(("about", "pipeline", "expected"), CASES, ids=[c[0] for c in CASES])
def test_a_plan_is_cut_where_it_should_be(
    flights: Pipeline, about: str, pipeline: str, expected: str
) -> None:
    found = eval(pipeline, {"flights": flights, "col": col, "count": count}).explain()

    if not os.environ.get("ELYTRA_UPDATE_PLANS"):
        assert found == re.sub("^> ?", "", expected, flags=re.MULTILINE).rstrip()
    else:
        shown = "".join(f"> {line}".rstrip() + "\n" for line in found.splitlines())
        text = PLANS.read_text().replace(f"{pipeline}\n{expected}", f"{pipeline}\n{shown}")
        PLANS.write_text(text)


def scan(schema: Schema) -> Scan:
    return Scan(DatasetRef("flights"), schema)


def test_an_unknown_column_is_named_before_anything_runs(flights: Pipeline) -> None:
    with pytest.raises(UnknownColumn, match="distnce") as caught:
        flights.filter(col("distnce") > 1).explain()
    assert caught.value.suggestion == "distance"


def test_a_sink_is_refused(drawer: Any) -> None:
    schema = drawer.dataset("d").schema
    plan = Sink(scan(schema), FileTarget("/tmp/x.csv", "csv"))

    with pytest.raises(UsageError, match="must not have a sink"):
        split(plan, schema)


def test_a_hand_made_phase_is_refused(drawer: Any) -> None:
    schema = drawer.dataset("d").schema
    plan = Aggregate(scan(schema), (), (("n", count()),), phase="final")

    with pytest.raises(UsageError, match="phase"):
        split(plan, schema)


def test_both_halves_read_the_files_of_their_tasks(drawer: Any) -> None:
    schema = drawer.dataset("d").schema
    halves = split(Filter(scan(schema), col("distance") > 1), schema)

    assert isinstance(halves, Split)
    shard = halves.shard_plan(halves.parts[0], Files(("a.parquet",), "parquet"))

    assert isinstance(shard, Filter)
    assert isinstance(shard.input, Scan)
    assert isinstance(shard.input.source, Files)
    assert shard.input.source.paths == ("a.parquet",)
    assert halves.merge_steps is None


@pytest.mark.parametrize(
    ("left", "right", "because"),
    [
        (DatasetSize(3, 1 << 20), DatasetSize(2, 16 << 20), None),
        (DatasetSize(3, 17 << 20), DatasetSize(2, (16 << 20) + 1), "has 16.0 MiB, too many"),
        (DatasetSize(100, 1 << 20), DatasetSize(1, 1 << 20), "too many for each of 100 tasks"),
        (DatasetSize(100, 1 << 30), DatasetSize(1, 1 << 20), None),
        (DatasetSize(1001, 1 << 30), DatasetSize(10, 10), "has 10 shards, too many"),
        (DatasetSize(3, 1 << 20), None, "size of one is not known"),
    ],
)
def test_a_right_side_is_read_by_every_task_if_it_is_small(
    drawer: Any, left: DatasetSize, right: DatasetSize | None, because: str | None
) -> None:
    schema = drawer.dataset("d").schema
    plan = Join(scan(schema), Scan(DatasetRef("other"), schema), (("carrier", "carrier"),), "semi")
    sizes = {"flights": left, "other": right}

    cut = split(plan, schema, rules=Rules(lambda ref: sizes[ref.dataset]))

    if because is None:
        assert isinstance(cut, Split)
        assert [ref.dataset for ref in cut.parts[0].others] == ["other"]
    else:
        assert isinstance(cut, Whole)
        assert because in cut.because


def test_a_backend_that_shuffles_gets_sorts_and_large_joins_whole(drawer: Any) -> None:
    schema = drawer.dataset("d").schema
    rules = Rules(lambda _: DatasetSize(1, 1), shuffles=True)
    join = Join(scan(schema), scan(schema), (("carrier", "carrier"),), "semi")
    first = Limit(scan(schema), 3)
    assert isinstance(split(join, schema, rules=rules), Split)
    assert isinstance(split(replace(join, left=first), schema, rules=rules), Whole)
    assert isinstance(
        split(Sort(first.input, (SortKey(col("carrier")),)), schema, rules=rules), Whole
    )


def test_a_hand_made_merge_is_refused(drawer: Any) -> None:
    schema = drawer.dataset("d").schema
    with pytest.raises(UsageError, match="set by the node"):
        split(Sort(scan(schema), (SortKey(col("carrier")),), merge=True), schema)
