"""Arrange the shards of an ingest by the layout of their dataset.

An ingest reads its file once, in order, and writes shards in that order. If the dataset has a layout,
these are read again here, sorted by DuckDB under the same cap, and written as the dataset's shards.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.disk_space import WriteBudget
from lake.ingest.partitioned import PartitionedWriter
from lake.ingest.plain import plain_array
from lake.ingest.shards import Limits, Shard, ShardWriter
from lake.layouts import Layout
from lake.sql.batches import read_batches
from lake.sql.duckdb_worker import interrupted_on_cancel, limits_of, translated_errors
from lake.sql.layout_order import in_layout_order
from lake.sql.session import open_write_session
from lake.sql.tables import Table
from lake.sql.types import quoted
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["arrange"]

_ROWS = "rows"


def arrange(  # noqa: PLR0913 - of one caller
    shards: Sequence[Shard],
    schema: pa.Schema,
    layout: Layout,
    columns: Sequence[int],
    *,
    folder: Path,
    budget: WriteBudget,
    context: EntryContext,
) -> list[Shard]:
    """Write the rows of shards as other shards, by a layout; remove those that were there.

    Args:
        shards: Files of the ingest, all with these columns.
        schema: Their columns.
        layout: The dataset's.
        columns: The id of each column.
        folder: For the new files.
        budget: The room for them.
        context: The process.

    Raises:
        UsageError: The rows are in too many partitions.
    """
    paths = tuple(str(shard.path) for shard in shards)
    table = Table(_ROWS, "", Schema.from_arrow(schema), paths, columns=tuple(columns))
    names = dict(zip(columns, schema.names, strict=True))
    fields = tuple((field, names[field.column]) for field in layout.partitioning)
    writer = ShardWriter(folder, Limits(), "arranged", columns, budget=budget)
    limits = limits_of({}, context)
    with (
        translated_errors("", [table], context),
        open_write_session([table], (_ROWS,), limits) as connection,
        interrupted_on_cancel(connection, context),
    ):
        rows_of = PartitionedWriter(writer, fields, set())
        relation = connection.sql(f"FROM {quoted(_ROWS)}")
        relation = in_layout_order(connection, relation, layout, columns)
        try:
            with read_batches(relation) as (_, batches):
                for batch in batches:
                    context.forgive_reserved()
                    context.check()
                    rows_of.write(_as_stored(batch, schema))
            if not writer.shards:
                writer.write(pa.RecordBatch.from_pylist([], schema), start=None, stop=None)
            writer.cut()
        finally:
            writer.discard()
    for shard in shards:
        shard.path.unlink()
    _number(writer.shards)
    return writer.shards


def _as_stored(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows with the types that the shards had before DuckDB read them."""
    columns: list[Any] = [
        plain_array(column, field.type) for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _number(shards: Sequence[Shard]) -> None:
    ends = itertools.accumulate(shard.rows for shard in shards)
    for shard, end in zip(shards, ends, strict=True):
        shard.first_row = end - shard.rows
