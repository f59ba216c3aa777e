"""How many bytes a partial may have: by what a job chooses where it runs."""

from __future__ import annotations

import pytest

from elytra.pipelines.pipeline import Pipeline
from elytra.service.network_inputs import partial_bytes
from elytra.splitter import Split, split
from emsqrt.expr import col, count
from sennit_core.schema import DataType, Field, Schema

SCHEMA = Schema(
    (
        Field("id", DataType("Int64")),
        Field("city", DataType("Utf8")),
        Field("km", DataType("Float64")),
    )
)
ROWS = 1_000_000


def estimated(pipeline: Pipeline) -> int:
    cut = split(pipeline.plan, SCHEMA)
    assert isinstance(cut, Split)
    return partial_bytes(cut, cut.parts[0], ROWS)


@pytest.fixture
def trips() -> Pipeline:
    return Pipeline.over(object(), "trips")  # type: ignore[arg-type]


def test_what_needs_fewer_rows_moves_less(trips: Pipeline) -> None:
    everything = estimated(trips)
    filtered = estimated(trips.filter(col("km") > 3))
    grouped = estimated(trips.group_by("city").agg(n=count()))
    total = estimated(trips.agg(km=col("km").sum()))
    assert everything > filtered > grouped > total > 0
    assert estimated(trips.limit(10)) == everything * 10 // ROWS
    assert estimated(trips.select("id")) < everything
    assert estimated(trips.select("city").distinct()) < everything // 100
