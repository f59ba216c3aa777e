"""Run plans of pipelines in this process, whole or cut into shards, as jobs do."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pyarrow as pa

from elytra.pipelines.pipeline import Pipeline
from elytra.shard_parts import bind_scans
from elytra.splitter import DatasetSize, Rules, Split, split
from emsqrt.plan import DatasetRef, Files, Plan, Scan, node_schema
from emsqrt.plan.tree import fold
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


def run(plan: Plan, tables: Mapping[str, Iterable[pa.RecordBatch]]) -> pa.Table:
    """Pull batches through the operators of a plan, in this process.

    Args:
        plan: A typed plan, whose scans read datasets, or one file each, of these names.
        tables: The batches of each.
    """

    def visit(node: Plan, inputs: tuple[InputRows, ...]) -> InputRows:
        schema = node_schema(node, tuple(each.schema for each in inputs))
        if isinstance(node, Scan):
            rows = [each.select(list(schema.names)) for each in tables[_name(node)]]
            return InputRows(schema, rows)
        return InputRows(schema, run_operator(node, *inputs, memory_bytes=16 << 20))

    result = fold(plan, visit)
    return pa.Table.from_batches(result.batches(), result.schema.to_arrow())


def _name(scan: Scan) -> str:
    return scan.source.dataset if isinstance(scan.source, DatasetRef) else scan.source.paths[0]


def distributed(
    pipeline: Pipeline,
    table: Rows,
    places: list[int],
    others: Mapping[str, Rows] | None = None,
    rules: Rules | None = None,
) -> pa.Table:
    """Answer as a job would, with the rows of each dataset cut into shards.

    Args:
        pipeline: Over the datasets.
        table: The rows of `t`.
        places: Where they are cut; the others are cut at the same places.
        others: The rows of other datasets.
        rules: Of the split; None if all datasets are small.
    """
    cut = split(pipeline.plan, SCHEMA, rules=rules or Rules(lambda _: DatasetSize(1, 1)))
    assert isinstance(cut, Split)
    tables = {"t": table, **(others or {})}
    whole = {name: [batch_of(rows)] for name, rows in tables.items()}
    shards = {part.source: _shards(tables[part.source.dataset], places) for part in cut.parts}
    partials, first_row = [], 0
    for part, shard in cut.tasks(shards):
        plan = cut.shard_plan(part, Files(("shard",), "arrow"), first_row=first_row)
        partials.append(run(plan, {**whole, "shard": [shard]}))
        first_row += shard.num_rows
    batches = [batch for partial in partials for batch in partial.to_batches()]
    if cut.merge_steps is None:
        return pa.Table.from_batches(batches, cut.schema.to_arrow())
    merge = cut.merge_plan(Files(("partials",), "arrow"))
    return run(merge, {**whole, "partials": batches})


def _shards(table: Rows, places: list[int]) -> list[pa.RecordBatch]:
    edges = [0, *sorted(min(place, len(table)) for place in places), len(table)]
    return [batch_of(table[start:stop]) for start, stop in pairwise(edges)]


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


def table_of(table: Rows) -> pa.Table:
    """Return rows as a table of `SCHEMA`."""
    return pa.Table.from_batches([batch_of(table)])


def random_rows(dice: random.Random) -> Rows:
    """Return up to 40 rows with NULLs, equal keys, zeros of both signs and numbers of any size."""
    floats = (0.0, -0.0, 0.1, -2.5, 1e10, 3.0)
    return [
        (
            dice.choice(("a", "b", "ä", "", None)),
            dice.choice((None, dice.randint(-60, 60), 0)),
            dice.choice((None, dice.choice(floats), dice.uniform(-100, 100))),
        )
        for _ in range(dice.randint(0, 40))
    ]


def over_files(plan: Plan) -> Plan:
    """Return a plan with a file of the same name in place of each dataset."""
    return bind_scans(plan, lambda scan, ref: replace(scan, source=Files((ref.dataset,), "arrow")))


def bits(table: pa.Table) -> list[list[Any]]:
    """Return the columns of a table, floats by their bits."""
    return [
        [value.hex() if isinstance(value, float) else value for value in column.to_pylist()]
        for column in table.columns
    ]
