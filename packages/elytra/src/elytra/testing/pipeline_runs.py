"""Run plans of pipelines in this process, whole or cut into shards, as jobs do."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pyarrow as pa

from elytra.pipelines.pipeline import Pipeline
from elytra.splitter import Split, split
from emsqrt.plan import Files, Plan, chain, check
from emsqrt.plan.check import output_schema
from emsqrt.testing import InputRows, run_operator
from sennit_core.records import DatasetInfo
from sennit_core.schema import DataType, Field, Schema

SCHEMA = Schema(
    (
        Field("k", DataType.parse("Utf8")),
        Field("i", DataType.parse("Int64")),
        Field("f", DataType.parse("Float64")),
    )
)
NOWHERE = Files(("nowhere",), "arrow")
Rows = list[tuple[Any, ...]]


class Schemas:
    """A runner that only knows a schema."""

    def dataset(self, id_or_name: str) -> DatasetInfo:
        """Return a dataset of that schema."""
        return DatasetInfo(id="d", name=id_or_name, owner="", schema=SCHEMA)

    def sql(self, query: str) -> Any:
        """Refuse: there is no node."""
        raise NotImplementedError

    def submit(self, plan: Plan, **options: Any) -> Any:
        """Refuse: there is no node."""
        raise NotImplementedError

    def run(self, plan: Plan, *, timeout_seconds: float | None = None, **options: Any) -> Any:
        """Refuse: there is no node."""
        raise NotImplementedError


def run(plan: Plan, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Pull batches through the operators of a plan, in this process."""
    scan, *steps = chain(plan)
    schema = check(scan)
    names = list(schema.names)
    stream = [batch.select(names) for batch in batches]
    for step in steps:
        stream = run_operator(step, InputRows(schema, stream), memory_bytes=16 << 20)
        schema = output_schema(step, schema)
    return pa.Table.from_batches(stream, schema.to_arrow())


def distributed(pipeline: Pipeline, table: Rows, places: list[int]) -> pa.Table:
    """Answer as a job would, with the rows cut into shards at these places."""
    halves = split(pipeline.plan, SCHEMA)
    assert isinstance(halves, Split)
    edges = [0, *sorted(min(place, len(table)) for place in places), len(table)]
    partials = [run(halves.shard_plan(NOWHERE), [batch_of(table[a:b])]) for a, b in pairwise(edges)]
    batches = [batch for partial in partials for batch in partial.to_batches()]
    if halves.merge_steps is None:
        return pa.Table.from_batches(batches, halves.schema.to_arrow())
    return run(halves.merge_plan(NOWHERE), batches)


def batch_of(table: Rows) -> pa.RecordBatch:
    """Return rows as a batch of `SCHEMA`."""
    columns = list(zip(*table, strict=True)) or [(), (), ()]
    return pa.record_batch(
        [
            pa.array(column, field.type)
            for column, field in zip(columns, SCHEMA.to_arrow(), strict=True)
        ],
        schema=SCHEMA.to_arrow(),
    )


def bits(table: pa.Table) -> list[list[Any]]:
    """Return the columns of a table, floats by their bits."""
    return [
        [value.hex() if isinstance(value, float) else value for value in column.to_pylist()]
        for column in table.columns
    ]
