"""Arrange the shards of an ingest by the layout of their dataset.

An ingest reads its file once, in order, and writes shards in that order. If the dataset has a layout,
these are read again here, sorted by DuckDB under the same cap, and written as the dataset's shards. Those
of an encrypted dataset are decrypted into memory for that, where DuckDB also has its temporary files.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.catalog.layouts import Layout
from lake.encryption.sealed import Seal, unseal_file
from lake.ingest.partitioned import PartitionedWriter
from lake.ingest.plain import plain_array
from lake.ingest.shards import Shard, ShardWriter
from lake.sql.batches import read_batches
from lake.sql.duckdb_worker import interrupted_on_cancel, limits_of, translated_errors
from lake.sql.layout_order import in_layout_order
from lake.sql.session import open_write_session
from lake.sql.tables import Table
from lake.sql.types import quoted
from sennit_core.errors import StorageFull
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["arrange"]

_ROWS = "rows"


def arrange(  # noqa: PLR0913 - of one caller
    shards: Sequence[Shard],
    schema: pa.Schema,
    layout: Layout,
    columns: Sequence[int],
    writer: ShardWriter,
    *,
    seal: Seal | None,
    context: EntryContext,
) -> list[Shard]:
    """Write the rows of shards as other shards, by a layout; remove those that were there.

    Args:
        shards: Files of the ingest, all with these columns.
        schema: Their columns.
        layout: The dataset's.
        columns: The id of each column.
        writer: Writes them.
        seal: What the shards are encrypted with; None if they are not.
        context: The process.

    Raises:
        UsageError: The rows are in too many partitions.
        StorageFull: The memory for decrypted data does not hold them.
    """
    paths, memory = _readable(shards, seal, context)
    table = Table(_ROWS, "", Schema.from_arrow(schema), paths, columns=tuple(columns))
    names = dict(zip(columns, schema.names, strict=True))
    fields = tuple((field, names[field.column]) for field in layout.partitioning)
    limits = limits_of(memory, context)
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
    for path in {*map(Path, paths), *(shard.path for shard in shards)}:
        path.unlink()
    _number(writer.shards)
    return writer.shards


def _readable(
    shards: Sequence[Shard], seal: Seal | None, context: EntryContext
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return files that DuckDB can read, and where its own temporary files are (`limits_of`)."""
    if seal is None:
        return tuple(str(shard.path) for shard in shards), {}
    needed = sum(shard.digest.size for shard in shards)
    if needed > seal.memory_bytes:
        raise StorageFull(
            "the memory for decrypted data",
            needed,
            message=f"sorting the rows by the layout needs {format_bytes(needed)} of memory for "
            f"decrypted shards; security.plain_bytes leaves {format_bytes(seal.memory_bytes)}",
            hint="raise security.plain_bytes, or load the file in parts",
        )
    paths = [seal.folder / f"sorted-{number:05d}.parquet" for number in range(len(shards))]
    for shard, path in zip(shards, paths, strict=True):
        unseal_file(shard.path, path, seal.key, seal.dataset, context.check)
    memory = {"folder": str(seal.folder), "bytes": seal.memory_bytes - needed}
    return tuple(map(str, paths)), {"plain": memory}


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
