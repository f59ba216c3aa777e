"""A query over datasets by DuckDB, its answer as a stream.

Request: `sql` `params` `format` `maxRows` `tables` (see `Table.from_json`) `names` (of all
datasets, for suggestions) `threads`. Answer: `rows` `bytes` `truncated` `columns` `inputs` (ids of
the snapshots read) `engine`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.io.formats import open_format, type_name
from lake.sql.batches import read_batches
from lake.sql.failures import as_duckdb_error, query_error
from lake.sql.guard import check_statement
from lake.sql.session import SqlLimits, open_session
from lake.sql.tables import Table, used_tables
from sennit_core.errors import CapTooSmall, SqlError

if TYPE_CHECKING:
    from emsqrt.executor import Context

__all__ = ["run"]

_MIB = 1 << 20
_OVERSHOOT_BYTES = 48 * _MIB  # what DuckDB 2.0 takes beyond its memory_limit, measured
_LEAST_BYTES = 24 * _MIB
_TEMP_RESERVE_BYTES = 256 * _MIB


def run(request: dict[str, Any], context: Context) -> dict[str, Any]:
    """Check the statement, open a locked session, stream the answer."""
    tables = [Table.from_json(table) for table in request["tables"]]
    names = tuple(request.get("names") or ())
    sql = request["sql"]
    used: list[Table] = []
    try:
        statement = check_statement(sql, frozenset(table.name for table in tables))
        used = used_tables(tables, statement.tables, names)
        listed = tables if statement.catalog else used
        limits = _limits(request, context)
        with open_session(listed, tuple(statement.tables), limits) as connection:
            context.on_cancel(lambda: _interrupt(connection))
            context.forgive_reserved()
            labels = _labels(used) if statement.explains else {}
            answer = _stream(connection, request, context, labels)
            inputs = [table.snapshot for table in used]
            return answer | {"inputs": inputs, "engine": "duckdb"}
    except (duckdb.Error, pa.ArrowException, OSError, MemoryError) as error:
        context.check()
        found = as_duckdb_error(error)
        if found is None:
            raise
        columns = tuple(itertools.chain.from_iterable(table.schema.names for table in used))
        raise query_error(
            found, sql, tables=names, columns=columns, cap_bytes=context.cap_bytes
        ) from None


def _interrupt(connection: duckdb.DuckDBPyConnection) -> None:
    with contextlib.suppress(duckdb.ConnectionException):  # it may have answered and closed by now
        connection.interrupt()


def _stream(
    connection: duckdb.DuckDBPyConnection,
    request: dict[str, Any],
    context: Context,
    labels: dict[str, str],
) -> dict[str, Any]:
    relation = _bind(connection, request["sql"], _params(request))
    if relation is None:
        raise SqlError("the statement has no answer")
    with read_batches(relation) as (schema, batches):
        writer = open_format(
            request.get("format") or "arrow",
            schema,
            context.emit,
            max_rows=request.get("maxRows"),
        )
        with writer:
            for batch in batches:
                # DuckDB's allocator keeps the address space of what it frees. That is not memory
                # asked for, and DuckDB's own limit bounds what it asks for.
                context.forgive_reserved()
                context.check()
                writer.write(_relabelled(batch, labels) if labels else batch)
                context.progress(rows=writer.rows)
                if writer.done:
                    break
        return {
            "rows": writer.rows,
            "bytes": writer.bytes,
            "truncated": writer.truncated,
            "columns": [_column(field) for field in schema],
        }


def _labels(tables: list[Table]) -> dict[str, str]:
    """What an explanation shows instead of each shard's path: as wide, so that boxes stay boxes."""
    return {
        path: f"{table.name}/{index}".ljust(len(path))
        for table in tables
        for index, path in enumerate(table.paths or ())
    }


def _relabelled(batch: pa.RecordBatch, labels: dict[str, str]) -> pa.RecordBatch:
    columns = []
    for column in batch.columns:
        text = column
        for path, label in labels.items():
            text = pc.replace_substring(text, path, label)
        columns.append(text)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _bind(
    connection: duckdb.DuckDBPyConnection, sql: str, params: list[Any] | dict[str, Any] | None
) -> duckdb.DuckDBPyRelation | None:
    try:
        return connection.sql(sql, params=params)
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        bare = error
    # Only `execute` tells the place; what does not bind is not run by it either.
    connection.execute(sql, params)
    raise bare


def _column(field: pa.Field) -> dict[str, str]:
    return {"name": field.name, "type": type_name(field)}


def _params(request: dict[str, Any]) -> list[Any] | dict[str, Any] | None:
    params = request.get("params")
    if params is None or isinstance(params, list | dict):
        return params or None
    raise SqlError("params is a list for ? and $1, or an object for $name")


def _limits(request: dict[str, Any], context: Context) -> SqlLimits:
    free = context.budget.free_bytes - _OVERSHOOT_BYTES
    if free < _LEAST_BYTES:
        missing = _LEAST_BYTES - free
        raise CapTooSmall(
            cap_bytes=context.cap_bytes,
            needed_bytes=context.cap_bytes + missing,
            because="DuckDB needs room beside what the process holds already",
        )
    spill = context.spill_dir
    disk = max(0, shutil.disk_usage(spill).free - _TEMP_RESERVE_BYTES)
    return SqlLimits(
        memory_bytes=free,
        temp_folder=spill,
        temp_bytes=disk,
        threads=int(request.get("threads") or min(4, os.cpu_count() or 1)),
    )
