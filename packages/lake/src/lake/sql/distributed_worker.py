"""Steps of a distributed query that the coordinator runs: its plan, and its last queries.

`distribute` plans (`lake.peers.sql`). Request: `sql`, `tables` and `options`; response: `plan`.

`merge` creates the table of each step and runs the last query. Request: `tables` as of other
queries, `steps` (`result`, `sql`, `files` of Arrow IPC streams; null for a query of the coordinator),
`finalSql`, `explained` (`plan`, `runs` and `isJson` if the last query is an EXPLAIN), and the members
that say how a result is sent.

The data of a step comes from other nodes, so it is checked before DuckDB reads it; a fault in that costs
this executor alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from lake.peers.sql import Column, explain_json, explain_text
from lake.peers.sql import Table as PlannedTable
from lake.peers.sql.engine import EmptyTables
from lake.peers.sql.planner import PlanOptions, plan_distributed
from lake.peers.sql.wire import plan_from_data, plan_to_data, runs_from_data, tables_from_data
from lake.sql.aggregate_names import aggregate_names
from lake.sql.arrived_rows import insert_arrived
from lake.sql.duckdb_worker import (
    Note,
    bind,
    limits_of,
    stream_result,
    translated_errors,
)
from lake.sql.failures import query_error
from lake.sql.fragment_worker import open_for_rows
from lake.sql.guard import check_statement, open_parser, query_nodes, table_nodes, tree_of
from lake.sql.query_parts import part_of_query
from lake.sql.tables import Table
from lake.sql.types import quoted
from lake.sql.volatility import is_volatile
from sennit_core.errors import Unsupported

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["Engine", "merge_query", "plan_query"]

_OPEN_MAX = 4
"""Databases that a planner keeps open: of the tables of a query, and of these with fewer columns."""


def plan_query(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Plan a query over shards of several nodes; reads no data.

    Raises:
        SqlError: The query is not valid.
        Denied: It uses what no query may.
        Unsupported: It names a dataset in another way than a plan does.
    """
    context.check()
    sql, tables, options = request["sql"], tables_from_data(request["tables"]), request["options"]
    _check(sql, tables)
    # In a locked database: binding opens the files that a statement names, and a constant may be a
    # time, which means another one in another time zone.
    with closing(open_parser()) as database, closing(Engine(database)) as engine:
        with engine.empty(tables) as empty:
            try:
                empty.columns(sql)
            except duckdb.Error as error:
                columns = [column.name for table in tables for column in table.columns]
                raise query_error(
                    error, sql, shards=(), columns=columns, cap_bytes=context.cap_bytes
                ) from None
        plan = plan_distributed(
            sql,
            tables,
            engine,
            PlanOptions(
                nodes=options["nodes"],
                uses_states=options["usesStates"],
                sends_bytes_max=options["sendsBytesMax"],
                uses_whole=options["usesWhole"],
                strategy=options.get("strategy", "cheapest"),
            ),
        )
    return {"plan": plan_to_data(plan)}


def _check(sql: str, tables: Sequence[PlannedTable]) -> None:
    """Check a statement: the last query may be the user's text, and no executor sees it before that."""
    statement = check_statement(sql, frozenset(table.name for table in tables))
    names = {table.name.casefold() for table in tables}
    is_named = all(name.casefold() in names for name in statement.tables)
    paths = [(node.get("qualified_name") or {}).get("path") or () for node in table_nodes(sql)]
    # With a schema, a name is that of the view without shards, and not of the table of rows.
    if not is_named or any(len(path) > 1 for path in paths):
        raise Unsupported("a dataset by its id, or with a schema, is not distributed")


def merge_query(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Create the tables of the steps, and stream the result of the last query."""
    tables = [Table.from_json(table) for table in request["tables"]]
    sql = request["finalSql"]
    with translated_errors(sql, tables, context):
        limits = limits_of(request, context)
        with open_for_rows(tables, limits, context) as connection:
            for step in request["steps"]:
                _create(connection, step, context)
            note = _note(connection, request["explained"]) if request.get("explained") else None
            answer = stream_result(connection, {**request, "sql": sql}, context, limits, note)
    inputs = [table.snapshot for table in tables if table.snapshot is not None]
    return answer | {"inputs": inputs, "engine": "duckdb", "repeatable": False}


def _note(connection: duckdb.DuckDBPyConnection, explained: dict[str, Any]) -> Note:
    """Return the row of EXPLAIN that says where the steps run, or have run."""
    runs = runs_from_data(explained["runs"])
    for result, run in runs.items():
        if run.bytes is not None:
            [(rows,)] = connection.execute(f"SELECT count(*) FROM {quoted(result)}").fetchall()
            runs[result] = replace(run, rows=rows)
    plan = plan_from_data(explained["plan"])
    if explained["isJson"]:
        return Note("distributed", json.dumps(explain_json(plan, runs)))
    return Note("distributed", explain_text(plan, runs))


def _create(
    connection: duckdb.DuckDBPyConnection, step: dict[str, Any], context: EntryContext
) -> None:
    name, files = quoted(step["result"]), step["files"]
    # The query over empty tables has the right types, also where Arrow sends another one.
    limit = "" if files is None else " LIMIT 0"
    connection.execute(f"CREATE TEMP TABLE {name} AS FROM ({step['sql']}){limit}")
    for file in map(Path, files or ()):
        insert_arrived(connection, step["result"], [file], part_of_query(file.stem), context)


class Engine:
    """DuckDB's answers for the planner.

    Args:
        database: A database without tables.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database
        self._open: dict[tuple[tuple[str, tuple[Column, ...]], ...], _Empty] = {}
        self.aggregates = aggregate_names()

    def is_volatile(self, sql: str) -> bool:
        """See `lake.peers.sql.engine.Engine`, also for the other methods."""
        return is_volatile(query_nodes(sql))

    def tree(self, sql: str) -> Any:
        """Return the syntax tree of a statement."""
        return tree_of(sql)

    def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Run a query that reads no table."""
        found: list[tuple[Any, ...]] = self._database.execute(sql).fetchall()
        return found

    @contextmanager
    def empty(self, tables: Sequence[PlannedTable]) -> Iterator[EmptyTables]:
        """Open a database with these tables, empty; one that was open before has nothing else."""
        key = tuple((table.name, table.columns) for table in tables)
        found = self._open.pop(key, None) or _Empty(self._database, tables)
        try:
            yield found
            found.clear()
        except BaseException:
            found.close()
            raise
        self._open[key] = found
        if len(self._open) > _OPEN_MAX:
            self._open.pop(next(iter(self._open))).close()

    def close(self) -> None:
        """Close the databases that were opened."""
        while self._open:
            self._open.popitem()[1].close()


class _Empty:
    """A connection with the tables of a query.

    Args:
        database: Its database.
        tables: The tables.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, tables: Sequence[PlannedTable]) -> None:
        self._connection = database.cursor()
        self._defined: list[str] = []
        # Of statements that were bound while nothing else was defined: the user's, more than once.
        self._bound: dict[str, tuple[Column, ...]] = {}
        for table in tables:
            columns = ", ".join(
                f"NULL::{each.type} AS {quoted(each.name)}" for each in table.columns
            )
            # A view, as a dataset is: a table has a `rowid`, too.
            name = quoted(table.name)
            self._connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {columns} WHERE false")

    def define(self, name: str, sql: str) -> None:
        self._connection.execute(f"CREATE TEMP TABLE {quoted(name)} AS {sql}")
        self._defined.append(name)

    def columns(self, sql: str) -> tuple[Column, ...]:
        if not self._defined and sql in self._bound:
            return self._bound[sql]
        found = bind(self._connection, sql, None)
        assert found is not None, "a query has a result"
        columns = tuple(Column(n, str(t)) for n, t in zip(found.columns, found.types, strict=True))
        if not self._defined:
            self._bound[sql] = columns
        return columns

    def clear(self) -> None:
        """Drop what was defined."""
        while self._defined:
            self._connection.execute(f"DROP TABLE {quoted(self._defined.pop())}")

    def close(self) -> None:
        self._connection.close()
