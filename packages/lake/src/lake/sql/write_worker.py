"""Executor entry `lake.write`: compute the shards of a statement that changes a dataset.

The statement's clauses become queries, which DuckDB runs in a locked instance like any other; the
rows are written as shards into the request's folder. Nothing is committed here: the node does that
(`lake.writes`), so a crash leaves no visible state.

UPDATE and DELETE first find the rows that they change, by number of shard and row, then write those
shards anew that have any (copy on write), with their rows in the same order. MERGE runs on a
temporary table of these shards. So each snapshot consists of plain Parquet files without deletion
markers, which any reader understands.

Request: `sql` `params` `format` `folder` `tables` (see `Table.from_json`) `threads`.
Response: `action` (`append`, `create`, `rewrite`, `drop` or `none`) `table` `dataset` `base` `schema`
`shards` `rewritten` (for each changed shard, its object id and the shards that replace it) `count`
`inputs`; the result is the count, as one row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from emsqrt.io.formats import open_format
from lake.ingest.names import settle_names
from lake.ingest.plain import check_fields, plain_array, plain_schema
from lake.ingest.shards import Limits, Shard, ShardWriter
from lake.sql.batches import read_batches
from lake.sql.duckdb_worker import (
    bind,
    interrupted_on_cancel,
    limits_of,
    params_of,
    translated_errors,
)
from lake.sql.guard import check_statement
from lake.sql.session import (
    NUMBERED,
    ROW,
    SHARD,
    column_types,
    literal,
    open_write_session,
    quoted,
)
from lake.sql.tables import Table, used_tables
from lake.sql.write_statements import (
    Clause,
    CreateTable,
    Delete,
    DropTable,
    Insert,
    Merge,
    Update,
    parse_write,
)
from lake.verification import verify_shards
from sennit_core.errors import (
    Conflict,
    Denied,
    NotFound,
    SqlError,
    UnknownColumn,
    Unsupported,
    nearest,
)
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["run"]

_RESERVED = "__lake_"
_HITS = "__lake_hits"
_NEW = "__lake_new"
# Words of column definitions that ask for more than a name and a type.
_CONSTRAINTS = frozenset(
    ("default", "check", "primary", "unique", "references", "foreign", "constraint", "generated",
     "collate", "not", "using", "compression", "like")
)  # fmt: skip


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Run one statement up to its shards; the module's docstring describes request and response."""
    sql = request["sql"]
    if _RESERVED in sql.casefold():
        raise Denied(f"names with {_RESERVED}", needed="other names")
    write = parse_write(sql)
    if write is None:
        raise Unsupported("the statement is a query", hint="begin it with SELECT, WITH or FROM")
    answer = _ACTIONS[type(write)](write, _Statement(request, context))
    schema = pa.schema([("Count", pa.int64())])
    with open_format(request.get("format") or "arrow", schema, context.emit) as writer:
        writer.write(pa.record_batch([pa.array([answer["count"]], pa.int64())], schema))
    return {"action": "none", "shards": [], "rewritten": [], "inputs": [], **answer}


class _Statement:
    """A request: its datasets, and the queries that it consists of."""

    def __init__(self, request: dict[str, Any], context: EntryContext) -> None:
        self.context = context
        self._request = request
        self._params = params_of(request)
        self._tables = [Table.from_json(table) for table in request["tables"]]
        self._writers = itertools.count()

    def find(self, name: str) -> Table | None:
        """Return the dataset with this name or id."""
        folded = name.casefold()
        return next((t for t in self._tables if folded in (t.name.casefold(), t.id)), None)

    def target(self, name: str) -> Table:
        """Return the dataset to change."""
        (table,) = used_tables(self._tables, frozenset((name,)))
        return table

    @contextmanager
    def session(
        self, query: _Text, target: Table | None
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[Table]]]:
        """Check a query, then open a connection on which it can run.

        Args:
            query: Reads datasets, and the view `NUMBERED` if there is a target.
            target: The dataset whose rows are numbered in that view.
        """
        read: list[Table] = []
        with (
            query.placed_errors(self._request["sql"]),
            translated_errors(query.text, read, self.context),
        ):
            statement = check_statement(query.text, frozenset(t.name for t in self._tables))
            if statement.catalog:
                raise Unsupported("a statement that changes data cannot read the catalog")
            names = tuple(name for name in statement.tables if name != NUMBERED)
            read += used_tables(self._tables, frozenset(names))
            if target is not None and target not in read:
                read.append(target)
            # Before DuckDB opens a shard: a damaged one is reported as such.
            verify_shards((shard for table in read for shard in table.shards), self.context)
            limits = limits_of(self._request, self.context)
            with (
                open_write_session(read, names, limits, target) as connection,
                interrupted_on_cancel(connection, self.context),
            ):
                self.context.forgive_reserved()
                yield connection, read

    def bind(self, connection: duckdb.DuckDBPyConnection, text: str) -> duckdb.DuckDBPyRelation:
        """Bind a query with the request's parameters."""
        relation = bind(connection, text, self._params)
        assert relation is not None, "a query has a result"
        return relation

    def create_hits(
        self, connection: duckdb.DuckDBPyConnection, query: _Text, outer: str = "{}"
    ) -> None:
        """Keep the query's result in the temporary table `_HITS`, which spills to disk.

        Args:
            connection: A connection of `session`.
            query: The query.
            outer: A query of which it is a part, at `{}`.
        """
        self.bind(connection, query.text)  # for the position of an error in it
        text = outer.replace("{}", query.text)
        connection.execute(f"CREATE TEMP TABLE {_HITS} AS {text}", self._params)

    def execute(self, connection: duckdb.DuckDBPyConnection) -> int:
        """Run the statement as it is written; return the number of rows that it changed."""
        ((count,),) = connection.execute(self._request["sql"], self._params).fetchall()
        return int(count)

    def reads(self, query: _Text, target: Table) -> bool:
        """Return whether a query names the target itself, not only its numbered rows."""
        names = check_statement(query.text).tables
        return any(self.find(name) is target for name in names)

    def write(self, relation: duckdb.DuckDBPyRelation, schema: pa.Schema | None) -> list[Shard]:
        """Write a result as shards with this schema; None takes the result's columns."""
        writer = ShardWriter(Path(self._request["folder"]), Limits(), f"rows{next(self._writers)}")
        rows = 0
        try:
            with read_batches(relation) as (found, batches):
                target = schema or _storable(found)
                for batch in batches:
                    self.context.forgive_reserved()
                    self.context.check()
                    writer.write(_stored(batch, target), start=None, stop=None)
                    rows += batch.num_rows
                    self.context.progress(rows=rows)
                if not rows and schema is None:
                    # An empty dataset has its columns in a shard without rows.
                    writer.write(_stored(pa.RecordBatch.from_pylist([], found), target),
                                 start=None, stop=None)  # fmt: skip
            writer.cut()
        except BaseException:
            writer.discard()
            raise
        return writer.shards


def _insert(write: Insert, statement: _Statement) -> dict[str, Any]:
    target = statement.target(write.table)
    if write.query is None:
        query = _Text("SELECT 1")
    else:
        query = _Text("SELECT * FROM (", write.prelude, " ", write.query, ")")
    with statement.session(query, None) as (connection, read):
        types = column_types(connection, target.schema)
        if write.query is None:
            sources: dict[str, str] = {}
            text = query.text
        else:
            found = statement.bind(connection, query.text).columns
            places = _places(write, found, target.schema)
            sources = {column: quoted(column) for column in places}
            columns = sorted(places, key=places.__getitem__)
            text = f"SELECT * FROM ({query.text}) AS q({', '.join(map(quoted, columns))})"
        values = ", ".join(
            f"CAST({sources.get(name, 'NULL')} AS {kind}) AS {quoted(name)}"
            for name, kind in types.items()
        )
        relation = statement.bind(connection, f"SELECT {values} FROM ({text})")
        shards = statement.write(relation, target.schema.to_arrow())
    return {
        "action": "append" if shards else "none",
        **_of(target),
        "shards": _reports(shards),
        "count": _rows(shards),
        "inputs": _inputs(read),
    }


def _places(write: Insert, found: Sequence[str], schema: Schema) -> dict[str, int]:
    """Return for each column that gets values the index of the query's column."""
    known = {name.casefold(): name for name in schema.names}
    wanted = found if write.by_name else write.columns or schema.names
    for name in wanted:
        if name.casefold() not in known:
            raise UnknownColumn(
                name=name, known=schema.names, suggestion=nearest(name, schema.names)
            )
    folded = [name.casefold() for name in wanted]
    if len(set(folded)) < len(folded):
        twice = next(name for name in folded if folded.count(name) > 1)
        raise SqlError(f"column {known[twice]!r} is assigned twice")
    if len(found) != len(wanted):
        raise SqlError(
            f"the rows have {len(found)} values for {len(wanted)} columns",
            hint=f"the columns are {', '.join(wanted)}",
        )
    return {known[name]: index for index, name in enumerate(folded)}


def _create(write: CreateTable, statement: _Statement) -> dict[str, Any]:
    existing = statement.find(write.table)
    if existing is not None and not write.replaces:
        if write.if_missing:
            return {**_of(existing), "count": 0}
        raise Conflict(
            f"a dataset named {existing.name!r} exists",
            hint="use CREATE OR REPLACE TABLE, or CREATE TABLE IF NOT EXISTS",
        )
    query = _Text("SELECT * FROM (", write.query or Clause("SELECT 1", 0), ")")
    with statement.session(query, None) as (connection, read):
        text = query.text
        if write.columns is not None:
            _check_definitions(write.columns.text)
            connection.execute(f"CREATE TEMP TABLE {_NEW} {write.columns.text}")
            text = f"SELECT * FROM {_NEW}"
        shards = statement.write(statement.bind(connection, text), None)
    schema = Schema.from_arrow(shards[0].schema)
    name = write.table if existing is None else existing.name
    return {
        "action": "create",
        "table": name,
        "replaces": write.replaces,
        "schema": schema.to_json(),
        "shards": _reports(shards),
        "count": _rows(shards),
        "inputs": _inputs(read),
    }


def _check_definitions(text: str) -> None:
    for offset, kind in duckdb.tokenize(text):
        if kind == duckdb.token_type.keyword:
            word = text.encode()[offset:].split(None, 1)[0].decode().strip("(),").lower()
            if word in _CONSTRAINTS:
                raise Unsupported(
                    f"{word.upper()} in a column definition is not supported",
                    hint="a column has a name and a type, and may be NULL",
                )


def _delete(write: Delete, statement: _Statement) -> dict[str, Any]:
    target = statement.target(write.table)
    if not write.condition.text and not write.sources.text:
        return _rewritten(target, [(index, []) for index in range(len(target.objects))],
                          target.rows, [])  # fmt: skip
    query = _hits(write, "", target)
    with statement.session(query, target) as (connection, read):
        statement.create_hits(connection, query)
        found = _hit_counts(connection)
        changed = []
        for index, count in found:
            shards: list[Shard] = []
            if count < target.shard_rows[index]:
                text = (
                    f"SELECT * EXCLUDE ({ROW}) FROM {_shard(target, index)} AS s ANTI JOIN "
                    f"(SELECT {ROW} FROM {_HITS} WHERE {SHARD} = {index}) AS h USING ({ROW}) "
                    f"ORDER BY s.{ROW}"
                )
                shards = statement.write(connection.sql(text), target.schema.to_arrow())
            changed.append((index, shards))
        return _rewritten(target, changed, sum(count for _, count in found), read)


def _update(write: Update, statement: _Statement) -> dict[str, Any]:
    target = statement.target(write.table)
    known = {name.casefold(): name for name in target.schema.names}
    assigned: dict[str, Clause] = {}
    for column, expression in write.assignments:
        name = known.get(column.casefold())
        if name is None:
            names = target.schema.names
            raise UnknownColumn(name=column, known=names, suggestion=nearest(column, names))
        if name in assigned:
            raise SqlError(f"column {name!r} is assigned twice")
        assigned[name] = expression
    values: list[str | Clause] = []
    for index, expression in enumerate(assigned.values()):
        values += [", (", expression, f") AS __lake_value{index}"]
    query = _hits(write, values, target)
    with statement.session(query, target) as (connection, read):
        types = column_types(connection, target.schema)
        # Of several matches for a row, as UPDATE … FROM may have, any one counts.
        casts = ", ".join(
            f"CAST(__lake_value{index} AS {types[name]}) AS __lake_value{index}"
            for index, name in enumerate(assigned)
        )
        statement.create_hits(
            connection,
            query,
            f"SELECT DISTINCT ON ({SHARD}, {ROW}) {SHARD}, {ROW}, {casts} FROM ({{}})",
        )
        found = _hit_counts(connection)
        places = {name: index for index, name in enumerate(assigned)}
        columns = ", ".join(
            f"CASE WHEN h.{ROW} IS NULL THEN s.{quoted(name)} "
            f"ELSE h.__lake_value{places[name]} END AS {quoted(name)}"
            if name in places
            else f"s.{quoted(name)}"
            for name in target.schema.names
        )
        changed = []
        for index, _ in found:
            text = (
                f"SELECT {columns} FROM {_shard(target, index)} AS s LEFT JOIN "
                f"(SELECT * FROM {_HITS} WHERE {SHARD} = {index}) AS h USING ({ROW}) "
                f"ORDER BY s.{ROW}"
            )
            shards = statement.write(connection.sql(text), target.schema.to_arrow())
            changed.append((index, shards))
        return _rewritten(target, changed, sum(count for _, count in found), read)


def _merge(write: Merge, statement: _Statement) -> dict[str, Any]:
    """Run MERGE as it is written, on a temporary table of the shards with rows that it matches.

    A row of the source that matches any row of the dataset matches one in these shards, so the rest
    of the dataset changes nothing; except if the statement reads it in a subquery, or has a clause
    for rows that nothing matches.
    """
    target = statement.target(write.table)
    alias = quoted(write.alias)
    parts: list[str | Clause] = [write.prelude, " "] if write.prelude.text else []
    parts += [f"SELECT DISTINCT {alias}.{SHARD} FROM {NUMBERED} AS {alias} JOIN ", write.source]
    parts += [" ", write.join, " WHERE true"]
    # Checked and bound with the rest, in the order of their parameters, and never computed.
    for expression in write.expressions:
        parts += [" OR (", expression, ") IS NULL"]
    query = _Text(*parts)
    with statement.session(query, target) as (connection, read):
        statement.create_hits(connection, query)
        if write.of_unmatched or statement.reads(query, target):
            touched = list(range(len(target.objects)))
        else:
            found = f"SELECT {SHARD} FROM {_HITS} ORDER BY ALL"
            touched = [int(index) for (index,) in connection.execute(found).fetchall()]
        # In the place of the view of this name. NULL: nothing is in an empty list.
        numbers = ", ".join(map(str, touched)) or "NULL"
        connection.execute(
            f"CREATE TEMP TABLE {quoted(write.table)} AS "
            f"SELECT * EXCLUDE ({SHARD}, {ROW}) FROM {NUMBERED} "
            f"WHERE {SHARD} IN ({numbers}) ORDER BY {SHARD}, {ROW}"
        )
        count = statement.execute(connection)
        if not count:
            return {**_of(target), "count": 0}
        rows = connection.sql(f"FROM {quoted(write.table)}")
        shards = statement.write(rows, target.schema.to_arrow())
    if not touched:
        return {**_of(target), "action": "append", "shards": _reports(shards), "count": count,
                "inputs": _inputs(read)}  # fmt: skip
    changed = [(touched[0], shards), *((index, []) for index in touched[1:])]
    return _rewritten(target, changed, count, read)


def _drop(write: DropTable, statement: _Statement) -> dict[str, Any]:
    found = statement.find(write.table)
    if found is None:
        if write.if_exists:
            return {"table": write.table, "count": 0}
        raise NotFound(kind="dataset", name=write.table, suggestion=None)
    return {"action": "drop", **_of(found), "count": 0}


_ACTIONS: dict[type, Callable[..., dict[str, Any]]] = {
    Insert: _insert,
    CreateTable: _create,
    Delete: _delete,
    Update: _update,
    Merge: _merge,
    DropTable: _drop,
}


def _hits(write: Delete | Update, values: Iterable[str | Clause], target: Table) -> _Text:
    """Return the query for the numbers of the rows to change, and their new values."""
    alias = quoted(write.alias)
    # Without a space before it: DuckDB removes that, and counts the places of errors from there.
    parts: list[str | Clause] = [write.prelude, " "] if write.prelude.text else []
    parts.append(f"SELECT {alias}.{SHARD}, {alias}.{ROW}")
    parts += [*values, f" FROM {NUMBERED} AS {alias}"]
    if write.sources.text:
        parts += [", ", write.sources]
    if write.condition.text:
        parts += [" WHERE ", write.condition]
    return _Text(*parts)


def _hit_counts(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    """Return the numbers of the shards to change, with how many of their rows."""
    query = f"SELECT {SHARD}, count(DISTINCT {ROW}) FROM {_HITS} GROUP BY ALL ORDER BY ALL"
    return [(int(index), int(count)) for index, count in connection.execute(query).fetchall()]


def _shard(target: Table, index: int) -> str:
    """Return one shard with its rows numbered, as an item of FROM."""
    assert target.paths is not None, "a shard was hit"
    return f"(SELECT *, file_row_number AS {ROW} FROM read_parquet({literal(target.paths[index])}))"


def _rewritten(
    target: Table, changed: Iterable[tuple[int, list[Shard]]], count: int, read: list[Table]
) -> dict[str, Any]:
    rewritten = [
        {"index": index, "object": target.objects[index], "shards": _reports(shards)}
        for index, shards in changed
    ]
    action = "rewrite" if rewritten else "none"
    inputs = _inputs(read)
    return {
        "action": action,
        **_of(target),
        "rewritten": rewritten,
        "count": count,
        "inputs": inputs,
    }


def _of(target: Table) -> dict[str, Any]:
    return {
        "table": target.name,
        "dataset": target.id,
        "base": target.snapshot,
        "schema": target.schema.to_json(),
    }


def _inputs(tables: Iterable[Table]) -> list[str]:
    return [table.snapshot for table in tables if table.snapshot is not None]


def _reports(shards: Iterable[Shard]) -> list[dict[str, Any]]:
    return [shard.to_json() for shard in shards]


def _rows(shards: Iterable[Shard]) -> int:
    return sum(shard.rows for shard in shards)


def _storable(found: pa.Schema) -> pa.Schema:
    """Return the columns of a query's result as a dataset has them."""
    names, _ = settle_names(list(found.names), strict=False, what="the query's result")
    schema = plain_schema(found, names)
    for field in schema:
        check_fields(field.name, field.type)
    Schema.from_arrow(schema)  # refuses types that no dataset has
    return schema


def _stored(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        plain_array(column, field.type) for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _Text:
    """The text of a query that is put together from clauses of the statement.

    Args:
        parts: Text, and clauses of the statement.
    """

    def __init__(self, *parts: str | Clause) -> None:
        self.text = ""
        self._clauses: list[tuple[int, Clause]] = []
        for part in parts:
            if isinstance(part, Clause):
                self._clauses.append((len(self.text), part))
                self.text += part.text
            else:
                self.text += part

    @contextmanager
    def placed_errors(self, sql: str) -> Iterator[None]:
        """Give errors in the query their position in the statement, if it is in one of its clauses."""
        try:
            yield
        except UnknownColumn as error:  # its message has the position in the query
            raise UnknownColumn(
                name=error.name, known=error.known, suggestion=error.suggestion
            ) from error
        except SqlError as error:
            if error.offset is None:
                raise
            for start, clause in self._clauses:
                if start <= error.offset <= start + len(clause.text):
                    offset = clause.offset + error.offset - start
                    line = sql.count("\n", 0, offset) + 1
                    column = offset - (sql.rfind("\n", 0, offset) + 1) + 1
                    raise SqlError(
                        error.message, line=line, column=column, offset=offset, hint=error.hint
                    ) from error
            raise SqlError(error.message, hint=error.hint) from error
