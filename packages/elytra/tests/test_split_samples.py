"""Samples of a number of rows: each shard has its rows of the lowest hashes, and the merge those of all."""

import random
from typing import Any

import pytest

from elytra.pipelines.pipeline import Pipeline
from elytra.splitter import Split, Whole, split
from elytra.testing.pipeline_runs import (
    SCHEMA,
    Schemas,
    batch_of,
    bits,
    distributed,
    random_rows,
    run,
)
from emsqrt.plan import Sample, Scan, check
from emsqrt.plan.nodes import DatasetRef
from sennit_core.errors import UsageError
from sennit_core.schema import DataType, Field, Schema


def rows() -> Pipeline:
    return Pipeline.over(Schemas(), "t")


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_a_sample_by_shards_is_that_of_all_rows(count: int) -> None:
    pipeline = rows().with_column("twice", "i * 2").sample(count=count, seed=3)
    whole = split(pipeline.plan, SCHEMA, whole=True)
    assert isinstance(whole, Whole)
    for seed in range(2):
        dice = random.Random(seed)
        table = random_rows(dice)
        places = [dice.randint(0, 40) for _ in range(dice.randint(0, 4))]
        found = distributed(pipeline, table, places)
        assert bits(found) == bits(run(whole.plan, {"t": [batch_of(table)]})), (seed, places)
        assert found.num_rows == min(count, len(table))


def test_a_union_is_sampled_by_the_numbers_of_all_its_rows() -> None:
    below = rows()
    pipeline = below.union(below).sample(count=9).group_by("k").agg(n="count()")
    whole = split(pipeline.plan, SCHEMA, whole=True)
    assert isinstance(whole, Whole)
    table = random_rows(random.Random(5))

    found = distributed(pipeline, table, [3, 11])

    assert bits(found) == bits(run(whole.plan, {"t": [batch_of(table)]}))


def test_a_sample_above_a_filter_is_one_task() -> None:
    cut = split(rows().filter("i > 1").sample(count=3).plan, SCHEMA)
    assert isinstance(cut, Whole)
    assert "numbers of the rows" in cut.because


def test_a_column_called_as_the_number_of_a_row_leaves_the_sample_in_one_task() -> None:
    cut = split(rows().rename({"i": "$row"}).sample(count=3).plan, SCHEMA)
    assert isinstance(cut, Whole)
    assert "$row" in cut.because
    assert isinstance(split(rows().sample(count=3).plan, SCHEMA), Split)


def test_a_hand_made_phase_is_refused() -> None:
    scan = Scan(DatasetRef("t"), SCHEMA)
    with pytest.raises(UsageError, match="set by the node"):
        split(Sample(scan, count=3, phase="partial"), SCHEMA)


@pytest.mark.parametrize(
    ("sample", "columns", "because"),
    [
        ({"fraction": 0.5, "phase": "partial"}, "Int64", "has no phase"),
        ({"count": 3, "phase": "final"}, "Int64", "not that of a partial sample"),
        ({"count": 3, "phase": "partial"}, "UInt64", "two columns"),
    ],
)
def test_a_phase_is_checked(sample: dict[str, Any], columns: str, because: str) -> None:
    schema = Schema((Field("$row", DataType.parse(columns)),))
    with pytest.raises(UsageError, match=because):
        check(Sample(Scan(DatasetRef("t"), schema), **sample))
