"""Executor entry `lake.write`: compute the shards of a statement that changes a dataset.

The statement's clauses become queries, which DuckDB runs in a locked instance like any other; the
rows are written as shards into the request's folder. Nothing is committed here: the node does that
(`lake.writes.writes`), so a crash leaves no visible state.

UPDATE and DELETE first find the rows that they change, by number of shard and row, then write those
shards anew that have any (copy on write), with their rows in the same order. MERGE runs on a
temporary table of these shards. So each snapshot consists of plain Parquet files without deletion
markers, which any reader understands.

Request: `sql` `params` `arrowParams` `format` `returnedBytes` (the most of RETURNING, or null) `folder` `tables` (see `Table.from_json`) `threads` `space` (see
`lake.objects.disk_space.WriteLimit`) `plain` (see `lake.sql.duckdb_worker`) `encryptsNew` (whether
CREATE TABLE encrypts by default) `seals` (see `lake.encryption.sealed.Seal`,
by the ids of the encrypted datasets, and "" for a new one).
Response: `returned` (of RETURNING: the `file` of the result, see `lake.sql.returning`) `action` (`append`,
`create`, `rewrite`, `alter`, `drop`, `none`, or `again` if a list of shards is missing that the statement
needs) `table` `dataset` `base` `schema` `columns`
`shards` `rewritten` (for each changed shard, its object id and the shards that replace it) `count`
`inputs`; the result is the count, as one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from emsqrt.io.formats import open_format
from lake.ingest.shards import Shard
from lake.sql.alter_worker import change_of
from lake.sql.changing_statement import (
    HITS,
    ROW,
    SHARD,
    ChangingStatement,
    check_storable,
    layout_for,
    query_for_columns,
)
from lake.sql.defaults import check_defaults, no_encrypted_default, set_defaults
from lake.sql.duckdb_worker import translated_errors
from lake.sql.guard import check_statement
from lake.sql.insert_worker import insert
from lake.sql.pruning import ShardsMissing
from lake.sql.query_text import Numbered, Part, QueryText, rows_query, with_before
from lake.sql.restricted_merge import (
    check_restricted_merge,
    hides_columns,
    keep_for_merge,
    merged_rows,
)
from lake.sql.restricted_writes import (
    SEEN,
    check_assigned,
    check_kind,
    check_new_rows,
    hidden_rows,
    in_order,
    keep_visible_rows,
    numbers_of_seen,
    visible_condition,
    writable_schema,
)
from lake.sql.returning import open_returned
from lake.sql.session import columns_of, numbered_shards, rows_of_schema
from lake.sql.tables import Table, check_target
from lake.sql.tables_read import used_tables
from lake.sql.types import column_types, quoted
from lake.sql.update_values import check_values
from lake.sql.view_worker import create_view, drop_view
from lake.sql.write_response import (
    check_names,
    inputs_of,
    of_target,
    reports_of,
    rewritten,
    row_count,
)
from lake.sql.write_statements import (
    Alter,
    CreateTable,
    CreateView,
    Delete,
    DropTable,
    DropView,
    Insert,
    Merge,
    Update,
    parse_write,
)
from sennit_core.errors import (
    Conflict,
    NotFound,
    Unsupported,
)
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["check_columns", "hits_of", "matches_of", "reads_target", "run"]


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Run one statement up to its shards; the module's docstring describes request and response."""
    sql = request["sql"]
    with translated_errors(sql, [], context):
        write = parse_write(sql)
    if write is None:
        raise Unsupported("the statement is a query", hint="begin it with SELECT, WITH or FROM")
    statement = ChangingStatement(request, context)
    if not isinstance(write, CreateView | DropView):  # these look at the view's owner
        check_target(statement.tables, write.table)
    check_kind(write, statement.tables)
    try:
        answer = _ACTIONS[type(write)](write, statement)
    except ShardsMissing:
        answer = {"action": "again", "count": 0}
    if "returned" in answer:
        return {"action": "none", "shards": [], "rewritten": [], "inputs": [], **answer}
    schema = pa.schema([("Count", pa.int64())])
    with open_format(request.get("format") or "arrow", schema, context.emit) as writer:
        writer.write(pa.record_batch([pa.array([answer["count"]], pa.int64())], schema))
    return {"action": "none", "shards": [], "rewritten": [], "inputs": [], **answer}


def _create(write: CreateTable, statement: ChangingStatement) -> dict[str, Any]:
    existing = statement.changes = statement.find(write.table)
    if existing is not None and existing.view is not None:
        raise Conflict(f"a view named {existing.name!r} exists", hint="use another name")
    if existing is not None and not write.replaces:
        if write.if_missing:
            return {**of_target(existing), "count": 0}
        raise Conflict(
            f"a dataset named {existing.name!r} exists",
            hint="use CREATE OR REPLACE TABLE, or CREATE TABLE IF NOT EXISTS",
        )
    seal = statement.choose_encryption(write.options.encrypt)
    if write.columns is not None:
        query, required = query_for_columns(write.columns)
    else:
        required = []
        query = rows_query(write)
    defaults = check_defaults(write.columns or (), statement)
    if defaults and (seal is not None or (existing is not None and existing.encrypted)):
        raise no_encrypted_default(write.table)
    with statement.session(query) as (connection, read):
        relation = statement.bind(connection, query.text)
        query.is_bound = True
        check_storable(relation)
        layout = layout_for(write.layout, relation)
        shards = statement.write(relation, layout=layout, required=required)
    schema = Schema.from_arrow(shards[0].schema)
    name = write.table if existing is None else existing.name
    return {
        "action": "create",
        "table": name,
        "dataset": None if existing is None else existing.id,
        "encryptedAs": None if seal is None else seal.dataset,
        "base": None if existing is None else existing.snapshot,
        "schema": schema.to_json(),
        "layout": layout.to_json(),
        "defaults": defaults,
        "shards": reports_of(shards),
        "count": row_count(shards),
        "inputs": inputs_of(read),
    }


def _delete(write: Delete, statement: ChangingStatement) -> dict[str, Any]:
    target = statement.target(write.table)
    is_all = not (write.condition.text or write.sources.text or write.returning)
    if is_all and target.policy is None:
        every: list[tuple[int, list[Shard]]] = (
            [(index, []) for index in range(len(target.objects))] if target.rows else []
        )
        return rewritten(target, every, target.rows, [])
    check_columns(target)
    query = hits_of(write, target)
    with (
        open_returned(statement, write, target) as returned,
        statement.session(query) as (connection, read),
    ):
        target = _narrowed(target, read)
        query.runs_as(hits_of(write, target))
        distinct = f"SELECT DISTINCT * FROM ({{}}) AS h({SHARD}, {ROW})"
        keep_visible_rows(connection, target)
        statement.create_hits(connection, query, distinct)
        found = _hit_counts(connection)
        row = target.number_columns[1]
        changed = []
        for index, count in found:
            shards: list[Shard] = []
            if count < target.shard_rows[index]:
                text = (
                    f"SELECT {columns_of(target, 's')} FROM {_shard(target, index)} AS s ANTI JOIN "
                    f"(SELECT {ROW} FROM {HITS} WHERE {SHARD} = {index}) AS h "
                    f"ON h.{ROW} = s.{row} ORDER BY s.{row}"
                )
                shards = statement.write(connection.sql(text), target)
            changed.append((index, shards))
            if returned is not None:
                returned.add(
                    connection,
                    f"SELECT {columns_of(target, 's')} FROM {_shard(target, index)} AS s SEMI JOIN "
                    f"(SELECT {ROW} FROM {HITS} WHERE {SHARD} = {index}) AS h "
                    f"ON h.{ROW} = s.{row} ORDER BY s.{row}",
                )
        answer = rewritten(target, changed, sum(count for _, count in found), read)
        return answer if returned is None else answer | returned.finish(connection)


def _update(write: Update, statement: ChangingStatement) -> dict[str, Any]:
    target = statement.target(write.table)
    check_columns(target)
    names = [column for column, _ in write.assignments]
    check_assigned(target, names)
    check_names(names, writable_schema(target))
    known = {name.casefold(): name for name in target.schema.names}
    assigned = {known[column.casefold()]: value for column, value in write.assignments}
    check_values((each for each in assigned.values() if not each.is_default), statement.sql)
    query = hits_of(write, target)
    with (
        open_returned(statement, write, target) as returned,
        statement.session(query) as (connection, read),
    ):
        target = _narrowed(target, read)
        query.runs_as(hits_of(write, target))
        types = column_types(target.schema)
        # Of several matches for a row, as UPDATE … FROM may have, any one counts.
        casts = ", ".join(
            f"CAST(value{index} AS {types[name]}) AS value{index}"
            for index, name in enumerate(assigned)
        )
        distinct = f"DISTINCT ON ({SHARD}, {ROW}) {SHARD}, {ROW}"
        listed = ", ".join([SHARD, ROW, *(f"value{index}" for index in range(len(assigned)))])
        keep_visible_rows(connection, target)
        statement.create_hits(
            connection, query, f"SELECT {distinct}, {casts} FROM ({{}}) AS h({listed})"
        )
        found = _hit_counts(connection)
        row = target.number_columns[1]
        places = {name: index for index, name in enumerate(assigned)}
        columns = ", ".join(
            f"CASE WHEN h.{ROW} IS NULL THEN s.{quoted(name)} "
            f"ELSE h.value{places[name]} END AS {quoted(name)}"
            if name in places
            else f"s.{quoted(name)}"
            for name in target.schema.names
        )
        changed = []
        for index, _ in found:
            join = f"JOIN (SELECT * FROM {HITS} WHERE {SHARD} = {index}) AS h ON h.{ROW} = s.{row}"
            rows = f"SELECT {columns} FROM {_shard(target, index)} AS s"
            check_new_rows(connection, f"({rows} {join})", target)
            text = f"{rows} LEFT {join} ORDER BY s.{row}"
            shards = statement.write(connection.sql(text), target)
            changed.append((index, shards))
            if returned is not None:
                returned.add(connection, f"{rows} {join} ORDER BY s.{row}")
        answer = rewritten(target, changed, sum(count for _, count in found), read)
        return answer if returned is None else answer | returned.finish(connection)


def _merge(write: Merge, statement: ChangingStatement) -> dict[str, Any]:
    """Run MERGE as it is written, on a temporary table of the shards with rows that it matches.

    A row of the source that matches any row of the dataset matches one in these shards, so the rest
    of the dataset changes nothing; except if the statement reads it in a subquery, or has a clause
    for rows that nothing matches.
    """
    target = statement.target(write.table)
    check_columns(target)
    check_restricted_merge(write, target)
    query = matches_of(write, target)
    reads_all = reads_target(write, target, statement.tables)

    # Rows of the source that match nothing may be inserted, so the condition leaves out none of them.
    # The name of the dataset becomes that of a table below.
    def prunes(table: Table) -> bool:
        return table.id == target.id and not reads_all

    with (
        open_returned(statement, write, target) as returned,
        statement.session(query, prunes=prunes, hides=False) as (connection, read),
    ):
        target = _narrowed(target, read)
        query.runs_as(matches_of(write, target))
        matched = _matched_shards(connection, query, target, statement)
        touched = list(range(len(target.objects))) if reads_all else matched
        rows = f"SELECT * FROM ({rows_of_schema(target.schema)})"
        if touched:
            rows = (
                f"SELECT {columns_of(target, 's')} FROM {numbered_shards(target, touched)} AS s "
                f"WHERE {visible_condition(target)} ORDER BY {in_order('s', target)}"
            )
        # In the place of the view of this name.
        table = quoted(write.table)
        if hides_columns(target):
            keep_for_merge(connection, target, rows, table)
        else:
            connection.execute(f"CREATE TEMP TABLE {table} AS {rows}")
        set_defaults(connection, table, target)
        if returned is None:
            report = {}
            count = statement.execute(connection, statement.sql)
        else:
            returned.merge(connection, statement.sql)
            report, count = returned.finish(connection), returned.rows
        if not count:
            return {**of_target(target), "count": 0} | report
        if hides_columns(target):
            table = merged_rows(connection, target, table)
        check_new_rows(connection, table, target)
        merged = f"FROM {table}"
        if target.policy is not None and touched:
            kept = hidden_rows(target, numbered_shards(target, touched))
            merged = f"FROM ({kept}) UNION ALL {merged}"
        shards = statement.write(connection.sql(merged), target)
    changed = [(index, shards if place == 0 else []) for place, index in enumerate(touched)]
    answer = rewritten(target, changed, count, read) | report
    return answer if changed else {**answer, "action": "append", "shards": reports_of(shards)}


def _matched_shards(
    connection: duckdb.DuckDBPyConnection,
    query: QueryText,
    target: Table,
    statement: ChangingStatement,
) -> list[int]:
    """Return the indexes of the shards with rows that MERGE matches."""
    keep_visible_rows(connection, target)
    statement.create_hits(
        connection, query, f"SELECT DISTINCT {SHARD} FROM ({{}}) AS h({SHARD}, {ROW})"
    )
    found = connection.execute(f"SELECT {SHARD} FROM {HITS} ORDER BY ALL").fetchall()
    return [int(index) for (index,) in found]


def matches_of(write: Merge, target: Table) -> QueryText:
    """Return the query for the numbers of the rows that MERGE matches."""
    return _matches(write, _rows_of(target), target)


def reads_target(write: Merge, target: Table, tables: list[Table]) -> bool:
    """Return whether MERGE needs rows of the dataset besides those that it matches."""
    query = _matches(write, "(SELECT 1)", target)
    names = check_statement(query.text, frozenset(table.name for table in tables)).tables
    return write.of_unmatched or target in used_tables(tables, names)


def _matches(write: Merge, rows: str | Numbered, target: Table) -> QueryText:
    """Return the query for the rows of a dataset that MERGE matches."""
    alias = quoted(write.alias)
    parts: list[Part] = [*with_before(write.prelude), "SELECT ", _numbers(alias, target), " FROM "]
    parts += [rows, f" AS {alias} JOIN ", write.source, " ", write.join, " WHERE true"]
    # Checked and bound with the rest, in the order of their parameters, and never computed.
    for expression in write.expressions:
        parts += [" OR (", expression, ") IS NULL"]
    return QueryText(*parts)


def _alter(write: Alter, statement: ChangingStatement) -> dict[str, Any]:
    target = statement.find(write.table)
    if target is None and write.if_exists:
        return {"table": write.table, "count": 0}
    target = statement.target(write.table)
    change = change_of(write.alteration, target, statement)
    return {"action": "alter", **of_target(target), "change": change, "count": 0}


def _drop(write: DropTable, statement: ChangingStatement) -> dict[str, Any]:
    statement.refuse_view(write.table)
    found = statement.find(write.table)
    if found is None:
        if write.if_exists:
            return {"table": write.table, "count": 0}
        raise NotFound(kind="dataset", name=write.table, suggestion=None)
    return {"action": "drop", **of_target(found), "ifExists": write.if_exists, "count": 0}


_ACTIONS: dict[type, Callable[..., dict[str, Any]]] = {
    Insert: insert,
    CreateTable: _create,
    Delete: _delete,
    Update: _update,
    Merge: _merge,
    DropTable: _drop,
    CreateView: create_view,
    DropView: drop_view,
    Alter: _alter,
}


def hits_of(write: Delete | Update, target: Table) -> QueryText:
    """Return the query for the numbers of the rows to change, and their new values."""
    check_columns(target)
    alias = quoted(write.alias)
    parts: list[Part] = [*with_before(write.prelude), "SELECT ", _numbers(alias, target)]
    if isinstance(write, Update):
        defaults = {name.casefold(): default for name, default in target.defaults.items()}
        # A column that is assigned twice is an error, whatever its values are.
        for name, value in {name.casefold(): value for name, value in write.assignments}.items():
            default = f"{defaults.get(name, 'NULL')}\n" if value.is_default else None
            parts += [", (", value if default is None else default, ")"]
    parts += [" FROM ", _rows_of(target), f" AS {alias}"]
    if write.sources.text:
        parts += [", ", write.sources]
    if write.condition.text:
        parts += [" WHERE ", write.condition]
    return QueryText(*parts)


def _narrowed(target: Table, read: Iterable[Table]) -> Table:
    """Return the dataset with the shards that its statement looks at."""
    return next(table for table in read if table.id == target.id)


def check_columns(target: Table) -> None:
    """Refuse to change rows of a dataset whose columns hide the numbers of kept rows.

    Raises:
        Unsupported: It has such a column.
    """
    if target.is_kept and any(name.casefold() == "rowid" for name in target.names):
        raise Unsupported(
            f"changing rows of {target.name!r}, which has a column 'rowid'"
            + (", under a policy" if target.policy is not None else " and one like file_index"),
            hint="use ALTER TABLE … RENAME COLUMN rowid first",
        )


def _numbers(alias: str, target: Table) -> Numbered:
    """Return the numbers of a row's shard and of the row in it, as columns.

    Without aliases, which other expressions of the same SELECT could use.
    """
    if target.is_kept:
        return Numbered("0, 0", numbers_of_seen(alias, target))
    index, row = target.number_columns
    return Numbered("0, 0", f"{alias}.{index}, {alias}.{row}")


def _rows_of(target: Table) -> Numbered:
    """Return the rows of a dataset, as an item of FROM."""
    if target.is_kept:
        return Numbered(quoted(target.name), SEEN)
    return Numbered(quoted(target.name), numbered_shards(target))


def _hit_counts(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    """Return the numbers of the shards to change, with how many of their rows."""
    query = f"SELECT {SHARD}, count(DISTINCT {ROW}) FROM {HITS} GROUP BY ALL ORDER BY ALL"
    return [(int(index), int(count)) for index, count in connection.execute(query).fetchall()]


def _shard(target: Table, index: int) -> str:
    """Return the rows of one shard, as an item of FROM."""
    return numbered_shards(target, [index])
