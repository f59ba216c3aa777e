"""A statement that changes a dataset, in the executor that runs it: its queries, and their rows as shards."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from lake.catalog.layouts import Layout, parse_layout
from lake.encryption.keys import NO_KEY_HINT
from lake.encryption.sealed import Seal
from lake.errors import not_ingested
from lake.ingest.names import settle_names
from lake.ingest.partitioned import PartitionedWriter
from lake.ingest.plain import check_fields, plain_array, plain_schema
from lake.ingest.shards import Limits, Shard, ShardWriter
from lake.objects.disk_space import WriteBudget, WriteLimit
from lake.objects.verification import verify_shards
from lake.sql.batches import read_batches
from lake.sql.column_definitions import ColumnDefinition
from lake.sql.duckdb_worker import (
    bind,
    interrupted_on_cancel,
    kept_session,
    limits_of,
    translated_errors,
)
from lake.sql.guard import check_statement
from lake.sql.layout_clauses import LayoutClauses
from lake.sql.layout_order import in_layout_order
from lake.sql.parameters import params_of
from lake.sql.pruning import prune, prune_at_any_time, without_statistics
from lake.sql.query_text import QueryText
from lake.sql.session import SqlLimits, hide_shards, open_write_session
from lake.sql.statement_reader import Clause
from lake.sql.tables import Table, check_links, shards_to_verify
from lake.sql.tables_read import used_tables
from lake.sql.types import quoted
from lake.sql.views import names_of
from sennit_core.errors import Conflict, Denied, SqlError, Unsupported
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = [
    "HITS",
    "ROW",
    "SHARD",
    "ChangingStatement",
    "check_storable",
    "layout_for",
    "query_for_columns",
    "storable",
    "stored_batch",
]

HITS = "__lake_hits"
SHARD = "__lake_shard"
ROW = "__lake_row"
# Types whose values Arrow, and so a shard, does not hold as they are.
_NOT_STORED = re.compile(
    r"\b(BIT|BIGNUM|VARINT|VARIANT|TIME_NS|TIMETZ|TIME WITH TIME ZONE|INTERVAL)\b"
)
# Parquet has a type for it, which Arrow neither writes nor reads: pyarrow shows 12 bytes, polars fails.
_INTERVAL_HINT = (
    "INTERVAL has no form in Parquet that programs read alike: store its parts as integers "
    "(datepart('month', i), datepart('day', i), and microseconds), epoch(i), or CAST it to VARCHAR"
)


class ChangingStatement:
    """A request: its datasets, and the queries that it consists of."""

    def __init__(self, request: dict[str, Any], context: EntryContext) -> None:
        self.context = context
        self.sql: str = request["sql"]
        self.request = request
        self.params = params_of(request)
        self.tables = [Table.from_json(table) for table in request["tables"]]
        self._writers = itertools.count()
        self.changes: Table | None = None  # the dataset that the statement changes or replaces
        # What encrypts the dataset that the statement creates, and whether the statement says that it
        # is not to be encrypted.
        self._new_seal: Seal | None = None
        self._in_the_clear = False
        self._partitions: set[tuple[Any, ...]] = set()  # those that it has written rows of
        self._in_transaction = False
        self.connection: duckdb.DuckDBPyConnection | None = None
        """That of the session, in which rows are written."""
        limit = WriteLimit.from_json(request.get("space"))
        self.budget = WriteBudget(limit, Path(request["folder"]), "the statement")

    def find(self, name: str) -> Table | None:
        """Return the dataset with this name or id."""
        folded = name.casefold()
        return next((t for t in self.tables if folded in (t.name.casefold(), t.id)), None)

    def refuse_view(self, name: str) -> None:
        """Refuse a view where a dataset is needed."""
        found = self.find(name)
        if found is not None and found.view is not None:
            raise Unsupported(
                f"{found.name!r} is a view, which cannot be changed or dropped like a dataset",
                hint="change the datasets under it; DROP VIEW removes it",
            )

    def target(self, name: str) -> Table:
        """Return the dataset to change."""
        self.refuse_view(name)
        (table,) = used_tables(self.tables, frozenset((name,)))
        if table.link is not None:
            raise not_ingested(table.name)
        self.changes = table
        return table

    def _seal(self) -> Seal | None:
        """Return what encrypts new shards; None if the changed dataset is not encrypted."""
        if self._new_seal is not None:
            return self._new_seal
        if self.changes is None or not self.changes.encrypted:
            return None
        return Seal.from_json(self.request["seals"][self.changes.id])

    def choose_encryption(self, wanted: bool | None) -> Seal | None:
        """Note what CREATE TABLE says of encryption; return what encrypts a new dataset.

        Raises:
            Conflict: The dataset exists, and is encrypted or not, as it was created.
            Denied: The lake has no key.
        """
        if self.changes is not None:
            if wanted is not None and wanted != self.changes.encrypted:
                state = "is encrypted" if self.changes.encrypted else "is not encrypted"
                raise Conflict(
                    f"dataset {self.changes.name!r} exists and {state}, which cannot be changed",
                    hint="DROP TABLE it first, or create one of another name",
                )
            return None
        self._in_the_clear = wanted is False
        if self.request.get("encryptsNew") if wanted is None else wanted:
            seal = self.request["seals"].get("")
            if seal is None:
                raise Denied("encrypt a dataset", needed="the lake's key", hint=NO_KEY_HINT)
            self._new_seal = Seal.from_json(seal)
        return self._new_seal

    def allow_unencrypted_rows(self) -> None:
        """Let rows of encrypted datasets be read by a statement that writes none, or into memory."""
        self._in_the_clear = True

    def _check_secrecy(self, read: Sequence[Table]) -> None:
        """Refuse to write rows of an encrypted dataset to one that is not."""
        secret = next((table for table in read if table.encrypted), None)
        if secret is None or self._in_the_clear or self._seal() is not None:
            return
        raise Unsupported(
            f"a statement that writes rows of {secret.name!r}, which is encrypted, to a dataset "
            "that is not",
            hint="CREATE TABLE … WITH (encrypt = true) AS … keeps them encrypted; to have a copy in "
            "the clear, say so: CREATE TABLE … WITH (encrypt = false) AS …",
        )

    @contextmanager
    def session(
        self,
        query: QueryText,
        *,
        prunes: Callable[[Table], bool] = lambda _: True,
        hides: bool = True,
        keeps: bool = False,
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[Table]]]:
        """Check a query, then open a connection on which it can run.

        Args:
            query: Reads datasets.
            prunes: Which of them are read without the shards that the query's filters leave out.
            hides: Whether the names of these mean the rest of their shards.
            keeps: Whether the database may serve later statements: nothing but temporary tables is
                created in it.

        Returns:
            The connection, and what is read, with the shards that are left.
        """
        read: list[Table] = []
        with (
            query.placed_errors(self.sql),
            translated_errors(query.text, read, self.context),
        ):
            statement = check_statement(query.text, frozenset(t.name for t in self.tables))
            if statement.catalog:
                raise Unsupported("a statement that changes data cannot read the catalog")
            read += used_tables(self.tables, statement.tables)
            names = tuple(statement.tables | names_of(read))
            self._check_secrecy(read)
            read[:] = [t if prunes(t) else without_statistics(t) for t in read]
            if any(t.statistics for t in read):
                # The database is opened for the rest alone: a view costs a look at each of its files.
                early = prune_at_any_time(query.text, self.params, read)
                read[:] = read if early is None else early.tables
            # Before DuckDB opens a shard: a damaged one is reported as such. A view opens its first.
            verify_shards(shards_to_verify(read, first=True), self.context)
            limits = limits_of(self.request, self.context)
            with (
                self._open(read, names, limits, keeps=keeps) as connection,
                interrupted_on_cancel(connection, self.context),
            ):
                self.context.forgive_reserved()
                check_links(read)
                self.connection = connection
                if any(table.statistics for table in read):
                    self._prune(connection, query, read, names if hides else None)
                yield connection, read
                check_links(read)

    def _open(
        self, read: list[Table], names: tuple[str, ...], limits: SqlLimits, *, keeps: bool
    ) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Open an instance, or one that was kept if the statement does not change what it reads."""
        kept = None
        # Opening one is more than half of the CPU of a small INSERT. That of a dataset that changes would
        # not be used again; spill files of encrypted datasets are in a folder of the statement.
        if keeps and self.changes not in read and not self.request.get("plain"):
            kept = kept_session(read, names, limits, self.context, read_only=False)
        return kept or open_write_session(read, names, limits)

    def _prune(
        self,
        connection: duckdb.DuckDBPyConnection,
        query: QueryText,
        read: list[Table],
        names: tuple[str, ...] | None,
    ) -> None:
        """Leave out shards that the query needs no row of, and verify the others."""
        # The time of a transaction is that of `now()`: the query must run in the same one.
        connection.execute("BEGIN TRANSACTION")
        self._in_transaction = True
        pruned = prune(connection, query.text, self.params, read, mode="")
        needed = pruned.of([table for table in read if table.statistics])
        verify_shards(shards_to_verify(needed), self.context)
        read[:] = pruned.of(read)
        if names is not None:
            hide_shards(connection, pruned.tables, names)

    def bind(self, connection: duckdb.DuckDBPyConnection, text: str) -> duckdb.DuckDBPyRelation:
        """Bind a query with the request's parameters."""
        relation = bind(connection, text, self.params)
        assert relation is not None, "a query has a result"
        return relation

    def create_hits(
        self, connection: duckdb.DuckDBPyConnection, query: QueryText, outer: str
    ) -> None:
        """Keep the query's result in the temporary table `HITS`, which spills to disk.

        Args:
            connection: A connection of `session`.
            query: The query.
            outer: A query of which it is a part, at `{}`.
        """
        # The checked form has the columns that users know, and the places of errors.
        self.bind(connection, query.text)
        query.is_bound = True
        text = outer.replace("{}", query.numbered)
        # In order, so that the rows of one shard are found without looking at all.
        connection.execute(f"CREATE TEMP TABLE {HITS} AS {text} ORDER BY {SHARD}", self.params)
        if self._in_transaction:
            connection.execute("COMMIT")
            self._in_transaction = False

    def keep(self, connection: duckdb.DuckDBPyConnection, query: str, table: str) -> None:
        """Keep a query's result in a temporary table, which spills to disk."""
        connection.execute(f"CREATE TEMP TABLE {table} AS {query}", self.params)

    def execute(self, connection: duckdb.DuckDBPyConnection, sql: str) -> int:
        """Run a statement with the request's parameters; return the number of changed rows."""
        ((count,),) = connection.execute(sql, self.params).fetchall()
        return int(count)

    def columns_of(self, relation: duckdb.DuckDBPyRelation) -> Schema:
        """Return a result's columns as a dataset would have them, without reading a row."""
        check_storable(relation)
        with read_batches(relation.limit(0)) as (found, _):
            return Schema.from_arrow(storable(found))

    def write(
        self,
        relation: duckdb.DuckDBPyRelation,
        table: Table | None = None,
        layout: Layout | None = None,
        required: Collection[int] = (),
    ) -> list[Shard]:
        """Write a result as shards with the columns of a dataset, by its layout.

        Args:
            relation: The rows.
            table: The dataset; None takes the result's columns.
            layout: How to write them; None takes the dataset's.
            required: The numbers of the result's columns that are NOT NULL, if these are taken.
        """
        schema = None if table is None else table.schema.to_arrow()
        columns = None if table is None else table.columns
        layout = layout or (Layout() if table is None else table.layout)
        ids = columns or tuple(range(1, len(relation.columns) + 1))
        assert self.connection is not None, "within a session"
        relation = in_layout_order(self.connection, relation, layout, ids)
        rows = 0
        with self.shard_writer(columns) as writer, read_batches(relation) as (found, batches):
            target = schema or _with_required(storable(found), required)
            named = dict(zip(ids, target.names, strict=True))
            fields = tuple((field, named[field.column]) for field in layout.partitioning)
            rows_of = PartitionedWriter(writer, fields, self._partitions)
            for batch in batches:
                self.context.forgive_reserved()
                self.context.check()
                rows_of.write(stored_batch(batch, target))
                rows += batch.num_rows
                # Whole shards are written, with the rows that a policy hides.
                if table is None or table.policy is None:
                    self.context.progress(rows=rows)
            if not rows and schema is None:
                # An empty dataset has its columns in a shard without rows.
                writer.write(stored_batch(pa.RecordBatch.from_pylist([], found), target),
                             start=None, stop=None)  # fmt: skip
        return writer.shards

    @contextmanager
    def shard_writer(self, columns: Sequence[int] | None) -> Iterator[ShardWriter]:
        """Open a writer of shards of the changed dataset, which are finished at the end.

        Args:
            columns: The ids of the columns; None numbers them from 1.
        """
        folder, prefix = Path(self.request["folder"]), f"rows{next(self._writers)}"
        writer = ShardWriter(
            folder, Limits(), prefix, columns, budget=self.budget, seal=self._seal()
        )
        try:
            yield writer
            writer.cut()
        except BaseException:
            writer.discard()
            raise


def layout_for(clauses: LayoutClauses, relation: duckdb.DuckDBPyRelation) -> Layout:
    """Return the layout that a statement asks for, for the columns of its result."""
    if not (clauses.partition_by or clauses.sort_by):
        return Layout()
    found = Schema.from_arrow(storable(relation.limit(0).to_arrow_table().schema))
    numbers = range(1, len(found) + 1)
    return parse_layout(found, numbers, partition_by=clauses.partition_by, sort_by=clauses.sort_by)


def check_storable(relation: duckdb.DuckDBPyRelation) -> None:
    """Refuse a column whose values a shard cannot hold as they are."""
    for name, kind in zip(relation.columns, relation.types, strict=True):
        if found := _NOT_STORED.search(str(kind)):
            hint = _INTERVAL_HINT if found[0] == "INTERVAL" else "CAST it to another type"
            raise Unsupported(f"column {name!r} has the type {found[0]}", hint=hint)


def query_for_columns(columns: Sequence[ColumnDefinition]) -> tuple[QueryText, list[int]]:
    """Return a query without rows that has these columns, and the numbers of those that are NOT NULL."""
    parts: list[str | Clause] = []
    for column in columns:
        try:
            check_statement(f"SELECT CAST(NULL AS {column.type.text})")
        except SqlError as error:
            raise Unsupported(
                f"the definition of column {column.name!r}: {column.type.text}",
                hint="a column has a name, a type, and may have NOT NULL and DEFAULT; MERGE and `key` "
                "of an upsert find rows by key",
            ) from error
        parts += [", " if parts else "SELECT ", "CAST(NULL AS ", column.type]
        parts += [f") AS {quoted(column.name)}"]
    required = [number for number, column in enumerate(columns) if column.required]
    return QueryText(*parts, " WHERE false"), required


def _with_required(schema: pa.Schema, required: Collection[int]) -> pa.Schema:
    for number in required:
        field = schema.field(number)
        if pa.types.is_nested(field.type):
            raise Unsupported(
                f"NOT NULL of column {field.name!r}",
                hint="it is for columns without lists and structs",
            )
        schema = schema.set(number, field.with_nullable(nullable=False))
    return schema


def storable(found: pa.Schema) -> pa.Schema:
    """Return the columns of a query's result as a dataset has them."""
    names, _ = settle_names(list(found.names), strict=False, what="the query's result")
    schema = plain_schema(found, names)
    for field in schema:
        check_fields(field.name, field.type)
    Schema.from_arrow(schema)  # refuses types that no dataset has
    return schema


def stored_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows of a query's result as a dataset with these columns has them."""
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        try:
            if not field.nullable and column.null_count:
                raise SqlError(
                    f"column {field.name!r} is NOT NULL, and a row has no value in it",
                    hint=f"ALTER TABLE … ALTER COLUMN {field.name} DROP NOT NULL allows it",
                )
            if pa.types.is_decimal(column.type) or pa.types.is_time(column.type):
                # DuckDB's range is larger: 39 digits, and the time 24:00.
                column.validate(full=True)
            columns.append(plain_array(column, field.type))
        except pa.ArrowException as error:
            raise SqlError(f"column {field.name!r} cannot hold a value: {error}") from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)
