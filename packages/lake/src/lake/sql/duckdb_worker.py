"""Run a query over datasets with DuckDB and stream its result.

Request: `sql` `params` `arrowParams` (see `lake.sql.parameters`) `format` `maxRows` `tables` (see
`Table.from_json`) `threads` `describe` (return the columns without rows, before there are values
for the placeholders), `plain` (the `folder` and the `bytes` for temporary files, if encrypted
datasets are read).
Response: `rows` `bytes` `truncated` `columns` `inputs` (ids of the snapshots read) `engine`
`repeatable` (whether the result may be kept for a repetition of the request).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.io.formats import ArrowWriter, open_format, type_name
from emsqrt.io.joining import Message
from lake.encryption.sealed import forbid_core_dumps
from lake.objects.verification import verify_shards
from lake.sql.batches import read_batches, read_messages
from lake.sql.failures import as_duckdb_error, query_error
from lake.sql.guard import Statement, analyzes, check_statement
from lake.sql.instance_cache import InstanceCache, instance_key
from lake.sql.known_forms import KnownForms, Repeatable
from lake.sql.linked_files import link_error
from lake.sql.linked_rows import LINKED_BYTES, LinkedRows, find_linked
from lake.sql.parameters import params_of, unknown_params
from lake.sql.pruning import Pruned, prune, prune_at_any_time, without_statistics
from lake.sql.session import SqlLimits, hide_shards, open_session
from lake.sql.tables import (
    Table,
    check_explained,
    check_links,
    described_tables,
    explained_tables,
    rights_key,
    shards_to_verify,
)
from lake.sql.tables_read import listed_tables, repeatable, used_tables
from lake.sql.views import names_of
from sennit_core.errors import CapTooSmall, SqlError

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = [
    "Note",
    "bind",
    "interrupted_on_cancel",
    "kept_session",
    "limits_of",
    "release",
    "run",
    "stream_result",
    "translated_errors",
    "warm",
]

_MIB = 1 << 20
_OVERSHOOT_BYTES = 48 * _MIB  # memory that DuckDB 2.0 uses beyond its memory_limit, measured
_LEAST_BYTES = 24 * _MIB
# Of what is left, for DuckDB's memory_limit: a sort that spills reserves a tenth more than it counts, and
# an allocation beyond the cap fails it.
_COUNTED_SHARE = 0.85
_THREAD_BYTES = 96 * _MIB
_TEMP_RESERVE_BYTES = 256 * _MIB
# How often a running query is interrupted until it ends; see `interrupted_on_cancel`.
_INTERRUPT_SECONDS = 0.05
_LINKED_SHARE = 4
"""Rows of a linked file may use the free memory over this; the rest is for the query."""
_KEPT_INSTANCES = 8
_KEPT_SHARE = 4
"""Instances together keep at most the cap over this: a process may be given a run of another cap while
it holds up to 5/8 of that (`emsqrt.executor.placement`)."""

_EXPLAINED = ["explain_key", "explain_value"]
_instances = InstanceCache(_KEPT_INSTANCES)
_forms = KnownForms()


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Check the statement, connect to a locked instance, stream the result."""
    tables = [Table.from_json(table) for table in request["tables"]]
    sql = request["sql"]
    used: list[Table] = []
    with translated_errors(sql, used, context):
        statement = check_statement(sql, frozenset(table.name for table in tables))
        used += used_tables(tables, statement.tables)
        if statement.explains:
            check_explained(used, analyzes=analyzes(sql))
            used[:] = explained_tables(used)
            tables = explained_tables(tables)
        if statement.describes:
            used[:] = described_tables(used)
        may_prune = not (statement.catalog or statement.describes or request.get("describe"))
        if not may_prune:
            used[:] = map(without_statistics, used)
        early = None
        if any(table.shards_in_all is not None for table in used):
            # A database with the shards of a few lists of many would not be of use to other queries.
            early = prune_at_any_time(sql, params_of(request), used)
            used[:] = used if early is None else early.tables
        # Before DuckDB opens a shard: a damaged one is reported as such, not as an error of the
        # query. A view opens its first.
        verify_shards(shards_to_verify(used, first=may_prune), context)
        check_links(used)
        query = _Query(request, context, statement, tables, used, may_prune, early)
        rows = _linked_rows(query)
        if rows is None:
            return _answer(query, None)
        with contextlib.closing(rows):
            try:
                return _answer(query, rows)
            except (duckdb.Error, pa.ArrowException, OSError):
                context.check()
                if rows.error is None:
                    raise
                if context.has_emitted:  # it cannot run again
                    raise rows.error from None
        return _answer(query, None)


class Note(NamedTuple):
    """A row that an EXPLAIN ends with."""

    key: str
    value: str


@dataclass(frozen=True)
class _Query:
    """A request that was checked.

    Args:
        request: The request.
        context: The process.
        statement: What its statement is.
        tables: All datasets that it may read.
        used: Those that it reads.
        may_prune: Whether shards may be left out.
        early: What was left out before a connection was opened; None if nothing was tried.
    """

    request: dict[str, Any]
    context: EntryContext
    statement: Statement
    tables: list[Table]
    used: list[Table]
    may_prune: bool
    early: Pruned | None


def _linked_rows(query: _Query) -> LinkedRows | None:
    """Return the rows of the linked file that a query reads, if the ingest's parser may read them."""
    table = find_linked(query.used)
    plain = query.may_prune and not query.statement.explains
    budget = query.context.budget
    if table is None or not plain or budget.free_bytes < _LINKED_SHARE * LINKED_BYTES:
        return None
    threads = limits_of(query.request, query.context).threads
    return LinkedRows(table, query.context, budget.acquire(LINKED_BYTES, "linked file"), threads)


def _answer(query: _Query, rows: LinkedRows | None) -> dict[str, Any]:
    """Run a query on a connection of its own and stream the result.

    Args:
        query: The query.
        rows: Those of its linked file; None for DuckDB's own reader.
    """
    request, context, statement = query.request, query.context, query.statement
    used, sql = query.used, request["sql"]
    limits = limits_of(request, context)
    with (
        _connect(query.tables, used, statement, limits, context) as connection,
        interrupted_on_cancel(connection, context),
        contextlib.ExitStack() as stack,
    ):
        labels = _labels(used) if statement.explains else {}
        pruned = query.early or Pruned()
        params = params_of(request) if query.may_prune else None
        if query.may_prune and query.early is None:
            pruned = prune(connection, sql, params, used, explains=statement.explains)
            needed = pruned.of([table for table in used if table.statistics])
            verify_shards(shards_to_verify(needed), context)
            hide_shards(connection, pruned.tables, tuple(statement.tables | names_of(used)))
        if rows is not None:
            names = rows.names_in(statement.tables)
            stack.enter_context(rows.registered(connection, names, sql, params))
        note = None
        if statement.explains and pruned.scans:
            note = Note("shards", "\n".join(map(str, pruned.scans)))
        answer = _stream(connection, request, statement, context, labels, limits, used, note)
        inputs = [table.snapshot for table in used if table.snapshot is not None]
        return answer | {
            "inputs": inputs,
            "engine": "duckdb",
            "repeatable": statement.repeatable and repeatable(used),
        }


@contextlib.contextmanager
def translated_errors(sql: str, used: list[Table], context: EntryContext) -> Iterator[None]:
    """Convert errors of DuckDB, Arrow and memory; report the reason of a stop instead.

    Args:
        sql: The text that DuckDB runs.
        used: The datasets that it reads, as far as they are known.
        context: The process.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError, MemoryError) as error:
        # An interrupted query raises an error of DuckDB; the reason for the interrupt is reported
        # instead.
        context.check()
        found = as_duckdb_error(error)
        if found is None:
            raise
        check_links(used)  # a change of the file explains the error better
        for table in used:
            if table.link is not None and (
                problem := link_error(str(found), table.name, table.link, table.schema)
            ):
                raise problem from None
        columns = tuple(itertools.chain.from_iterable(table.names for table in used))
        shards = [shard for table in used for shard in table.shards]
        raise query_error(
            found, sql, shards=shards, columns=columns, cap_bytes=context.cap_bytes
        ) from None


def warm() -> None:
    """Run a statement as queries do, so that the code which they need is loaded."""
    check_statement("SELECT 1", frozenset())
    with duckdb.connect(config={"threads": "1", "async_threads": "1"}) as connection:
        relation = bind(connection, "SELECT 1", None)
        assert relation is not None
        with read_batches(relation) as (_, batches):
            list(batches)


def release() -> None:
    """Close the cached instances."""
    _instances.clear()


def _connect(
    tables: list[Table],
    used: list[Table],
    statement: Statement,
    limits: SqlLimits,
    context: EntryContext,
) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    names = tuple(statement.tables | names_of(used))
    opened = context.forgive_reserved  # its threads reserve memory, which they do not use
    if statement.catalog:  # it lists all datasets; such an instance is not worth caching
        read = {table.id: table for table in used}
        listed = [
            each if each.view is not None else read.get(each.id) or described_tables([each])[0]
            for each in listed_tables(tables)
        ]
        return open_session(listed, names, limits, opened, skips_broken_views=True)
    if statement.describes:
        return open_session(used, names, limits, opened)
    kept = kept_session(used, names, limits, context)
    return open_session(used, names, limits, opened) if kept is None else kept


def kept_session(
    used: list[Table],
    names: tuple[str, ...],
    limits: SqlLimits,
    context: EntryContext,
    *,
    read_only: bool = True,
) -> AbstractContextManager[duckdb.DuckDBPyConnection] | None:
    """Return a connection to an instance that is kept for later statements over the same datasets.

    Returns:
        The connection, to be opened; None if the instance must not be kept.
    """
    if any(table.verify_always or table.encrypted for table in used):
        # A kept instance would answer from blocks that it read before this verification, or from
        # decrypted copies that may be removed.
        return None

    def left() -> int | None:
        return None if context.stopped is not None else context.grown_bytes()

    key = instance_key(used, names, limits.threads, rights_key(used))
    held_bytes_max = context.cap_bytes // _KEPT_SHARE
    opened = context.forgive_reserved
    return _instances.connect(
        key, used, names, limits, left, held_bytes_max, opened, read_only=read_only
    )


@contextlib.contextmanager
def interrupted_on_cancel(
    connection: duckdb.DuckDBPyConnection, context: EntryContext
) -> Iterator[None]:
    """Interrupt the connection repeatedly when the run should stop, until it has stopped.

    DuckDB ignores an interrupt that arrives before a statement starts, or between its binding and
    its execution.
    """
    is_over = threading.Event()

    def interrupt() -> None:
        while not is_over.is_set():
            with contextlib.suppress(duckdb.ConnectionException):
                connection.interrupt()
            is_over.wait(_INTERRUPT_SECONDS)

    # A thread of its own: `on_cancel` callbacks must return. Daemon, so that it cannot keep the
    # process alive.
    context.on_cancel(lambda: threading.Thread(target=interrupt, daemon=True).start())
    try:
        # Stopped already: nothing is running yet that an interrupt could end.
        context.check()
        yield
    finally:
        is_over.set()


def stream_result(
    connection: duckdb.DuckDBPyConnection,
    request: dict[str, Any],
    context: EntryContext,
    limits: SqlLimits,
    note: Note | None = None,
) -> dict[str, Any]:
    """Run the statement of a request and send its result; return the members of the answer about it."""
    statement = Statement(frozenset(), catalog=False, explains=False, volatile=True)
    return _stream(connection, request, statement, context, {}, limits, [], note)


def _stream(  # noqa: PLR0913 - of one caller
    connection: duckdb.DuckDBPyConnection,
    request: dict[str, Any],
    statement: Statement,
    context: EntryContext,
    labels: dict[str, str],
    limits: SqlLimits,
    used: list[Table],
    note: Note | None,
) -> dict[str, Any]:
    sql, describes = request["sql"], request.get("describe", False)
    params = unknown_params(sql) if describes else params_of(request)

    def relation() -> duckdb.DuckDBPyRelation:
        found = bind(connection, sql, params)
        if found is None:
            raise SqlError("the statement returns no result")
        return found.limit(0) if describes else found  # planned, and not run

    form = () if describes or params else statement.form
    query = Repeatable(_forms, connection, sql, form, relation)
    stream_format, max_rows = request.get("format") or "arrow", request.get("maxRows")
    if stream_format != "arrow" or labels or note is not None:
        result = read_batches(query, limits.memory_bytes)
    else:
        result = read_messages(query, limits.memory_bytes, max_rows)
    with result as (schema, pieces):
        writer = open_format(stream_format, schema, context.emit, max_rows=max_rows)
        with writer:
            for piece in pieces:
                # DuckDB's allocator keeps the address space of freed memory. That is not requested
                # memory, and DuckDB's own limit bounds its requests.
                context.forgive_reserved()
                context.check()
                # After the first batch: most results have no second one, and a frame costs each
                # process 0.1 ms.
                if writer.rows:
                    context.progress(rows=writer.rows)
                if isinstance(piece, Message):
                    assert isinstance(writer, ArrowWriter), "other formats read batches"
                    writer.write_message(piece)
                else:
                    writer.write(_relabelled(piece, labels) if labels else piece)
                if writer.done:
                    break
            if note is not None and schema.names == _EXPLAINED:
                columns = [
                    pa.array([text], field.type) for text, field in zip(note, schema, strict=True)
                ]
                writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            # Before the last bytes of the result: a file that was written meanwhile has rows of two
            # states.
            check_links(used)
        return {
            "rows": writer.rows,
            "bytes": writer.bytes,
            "truncated": writer.truncated,
            "columns": [_column(field) for field in schema],
        }


def _labels(tables: list[Table]) -> dict[str, str]:
    """Return labels to replace shard paths in EXPLAIN, of equal width to preserve its boxes."""
    return {
        path: f"{table.name}/{table.number(index)}".ljust(len(path))
        for table in tables
        for index, path in enumerate(table.paths or ())
    } | {
        table.link.file.path: table.name.ljust(len(table.link.file.path))
        for table in tables
        if table.link is not None
    }


def _relabelled(batch: pa.RecordBatch, labels: dict[str, str]) -> pa.RecordBatch:
    columns = []
    for column in batch.columns:
        text = column
        for path, label in labels.items():
            text = pc.replace_substring(text, path, label)
        columns.append(text)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def bind(
    connection: duckdb.DuckDBPyConnection, sql: str, params: list[Any] | dict[str, Any] | None
) -> duckdb.DuckDBPyRelation | None:
    """Bind a statement; its errors have their position. None if it has no result."""
    try:
        return connection.sql(sql, params=params)
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        bare = error
    # Only `execute` reports the position; it does not run a statement that fails to bind.
    connection.execute(sql, params)
    raise bare


def _column(field: pa.Field) -> dict[str, str]:
    return {"name": field.name, "type": type_name(field)}


def limits_of(request: dict[str, Any], context: EntryContext) -> SqlLimits:
    """Return what a query may use of the process's memory and disk."""
    free = context.budget.free_bytes - _OVERSHOOT_BYTES
    if free < _LEAST_BYTES:
        missing = _LEAST_BYTES - free
        raise CapTooSmall(
            cap_bytes=context.cap_bytes,
            needed_bytes=context.cap_bytes + missing,
            because="DuckDB needs memory in addition to what the process already uses",
        )
    plain = request.get("plain")
    if plain is None:
        # A folder of the process, not of the run: the instance may serve later queries.
        spill = context.process_folder
        # Some of the disk stays free for uploads and other writers.
        disk = max(0, shutil.disk_usage(spill.parent).free - _TEMP_RESERVE_BYTES)
    else:
        # A statement that reads encrypted datasets spills to memory, within their budget.
        forbid_core_dumps()
        spill, disk = Path(plain["folder"]) / "spill", int(plain["bytes"])
    return SqlLimits(
        memory_bytes=int(free * _COUNTED_SHARE),
        temp_folder=spill,
        temp_bytes=disk,
        threads=int(request.get("threads") or _threads(free)),
    )


def _threads(free_bytes: int) -> int:
    """Return how many threads a query runs on: each needs memory of its own to sort."""
    return max(1, min(4, _cores(), free_bytes // _THREAD_BYTES))


@cache
def _cores() -> int:
    return os.cpu_count() or 1  # it reads a file each time
