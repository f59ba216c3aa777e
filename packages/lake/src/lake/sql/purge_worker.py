"""Executor entry `lake.maintenance.purge`: write the shards that have rows to purge anew, without these rows.

The rows are found as a DELETE finds them, over the shards of many versions at once; a shard is then
copied row by row with its own columns, which may be others than the dataset's.

Request: `sql` (a DELETE with the predicate) `params` `folder` `tables` (the dataset, with the shards of
all versions) `shardColumns` (the ids of the columns of each shard) `threads`, and as
`lake.sql.write_worker` `space` `plain` `seals`.
Response: `rewritten`, for each changed shard its `index`, the number of its `rows` that go, and the
`shards` that replace it; `count`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lake.sql.changing_statement import HITS, ROW, SHARD, ChangingStatement
from lake.sql.guard import check_statement
from lake.sql.restricted_writes import keep_visible_rows
from lake.sql.write_response import reports_of
from lake.sql.write_statements import Delete, parse_write
from lake.sql.write_worker import hits_of
from sennit_core.errors import Unsupported, UsageError

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["run"]

_BATCH_ROWS = 65_536


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Find the rows, and write their shards without them."""
    statement = ChangingStatement(request, context)
    (table,) = statement.tables
    write = _parsed(statement.sql)
    target = statement.target(table.name)
    changed = []
    with statement.session(hits_of(write, target)) as (connection, _):
        distinct = f"SELECT DISTINCT * FROM ({{}}) AS h({SHARD}, {ROW})"
        keep_visible_rows(connection, target)
        statement.create_hits(connection, hits_of(write, target), distinct)
        found = connection.execute(f"SELECT DISTINCT {SHARD} FROM {HITS} ORDER BY ALL").fetchall()
        for (index,) in found:
            query = f"SELECT {ROW} FROM {HITS} WHERE {SHARD} = {index}"
            rows = connection.sql(query).to_arrow_table().column(0)
            with statement.shard_writer(request["shardColumns"][index]) as writer:
                for batch in _without((target.paths or ())[index], rows):
                    context.check()
                    writer.write(batch, start=None, stop=None)
            changed.append({"index": index, "rows": len(rows), "shards": reports_of(writer.shards)})
    return {"rewritten": changed, "count": sum(each["rows"] for each in changed)}


def _parsed(sql: str) -> Delete:
    write = parse_write(sql)
    if not isinstance(write, Delete) or not write.condition.text or write.returning is not None:
        raise UsageError("a purge needs a condition, as after WHERE")
    # The dataset of the purge has the rows of all versions, which a subquery would read as one.
    if check_statement(f"SELECT 1 WHERE {write.condition.text}", frozenset()).tables:
        raise Unsupported("a purge with a subquery", hint="list the values: WHERE id IN (1, 2, 3)")
    return write


def _without(path: str, rows: pa.ChunkedArray) -> Iterator[pa.RecordBatch]:
    gone = rows.combine_chunks().cast(pa.int64())
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            numbers = pa.array(range(start, start + batch.num_rows), pa.int64())
            start += batch.num_rows
            left = batch.filter(pc.invert(pc.is_in(numbers, gone)))
            if left.num_rows:
                yield left
