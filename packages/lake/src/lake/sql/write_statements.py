"""Take a statement that changes a dataset apart: its verb, its dataset, and its clauses as written.

DuckDB's parser decides whether the statement is valid SQL. Its tree is available for queries only,
so the clauses are found among the tokens of DuckDB's tokenizer, outside of brackets, where keywords
cannot be part of an expression (`IS DISTINCT FROM` is the one exception). The clauses become parts
of queries (`lake.sql.write_worker`), which `lake.sql.guard` checks like any other query. They keep
their text, so that DuckDB alone decides what an expression means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import duckdb

from lake.sql.alter_statements import Alter, parse_alter
from lake.sql.column_definitions import ColumnDefinition, read_definition
from lake.sql.conflict_clause import no_conflicts
from lake.sql.failures import syntax_error
from lake.sql.guard import statement_kinds
from lake.sql.layout_clauses import NO_CLAUSES, LayoutClauses, read_layout, without_directions
from lake.sql.merge_clauses import MergeAction, read_actions
from lake.sql.statement_reader import Clause, StatementReader
from lake.sql.table_options import TableOptions, read_options
from lake.statements.mentions import READING_VERBS
from sennit_core.errors import SqlError, Unsupported

__all__ = [
    "Alter",
    "Clause",
    "CreateTable",
    "CreateView",
    "Delete",
    "DropTable",
    "DropView",
    "Insert",
    "Merge",
    "Returning",
    "RowChange",
    "Update",
    "Write",
    "parse_write",
]

_SUPPORTED = (
    "INSERT, UPDATE, DELETE, MERGE, TRUNCATE, CREATE, ALTER and DROP TABLE, CREATE and DROP VIEW"
)


@dataclass(frozen=True, slots=True)
class Returning:
    """RETURNING; `columns` is what is after the word, `start` the word's place in the statement."""

    columns: Clause
    start: int


@dataclass(frozen=True, slots=True)
class Insert:
    """INSERT INTO.

    Args:
        table: The dataset.
        prelude: The WITH clause before the verb, "" if there is none.
        query: The rows; None for DEFAULT VALUES.
        columns: The columns that are listed; None for all.
        by_name: Whether the query's columns are assigned by name.
        place: The name as written.
    """

    table: str
    place: Clause
    prelude: Clause
    query: Clause | None
    columns: tuple[str, ...] | None
    by_name: bool
    returning: Returning | None = None


@dataclass(frozen=True, slots=True)
class CreateTable:
    """CREATE TABLE with columns, or AS a query.

    Args:
        table: The new dataset.
        query: The rows; None if there are columns.
        columns: The columns; None if there is a query.
        replaces: OR REPLACE.
        if_missing: IF NOT EXISTS.
        options: WITH (…).
        layout: PARTITIONED BY and SORTED BY.
    """

    table: str
    query: Clause | None
    columns: tuple[ColumnDefinition, ...] | None
    replaces: bool
    if_missing: bool
    options: TableOptions
    layout: LayoutClauses = NO_CLAUSES


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE FROM, or TRUNCATE; `sources` are the tables of USING, "" for none."""

    table: str
    alias: str
    prelude: Clause
    sources: Clause
    condition: Clause
    returning: Returning | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """UPDATE; `sources` are the tables of FROM, "" for none."""

    table: str
    alias: str
    prelude: Clause
    assignments: tuple[tuple[str, Clause], ...]
    sources: Clause
    condition: Clause
    returning: Returning | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """MERGE INTO.

    Args:
        table: The dataset.
        alias: Its name in the clauses.
        prelude: The WITH clause before the verb, "" if there is none.
        source: What is merged into it.
        join: ON or USING, and the condition.
        expressions: Those of the WHEN clauses.
        of_unmatched: Whether a clause is for rows of the dataset that nothing matches.
        assigned: The columns that are set or inserted; None if a clause means all of them.
        inserts: Whether a clause adds rows.
    """

    table: str
    alias: str
    prelude: Clause
    source: Clause
    join: Clause
    expressions: tuple[Clause, ...]
    of_unmatched: bool
    assigned: tuple[str, ...] | None
    inserts: bool
    returning: Returning | None = None


@dataclass(frozen=True, slots=True)
class DropTable:
    """DROP TABLE."""

    table: str
    if_exists: bool


@dataclass(frozen=True, slots=True)
class CreateView:
    """CREATE VIEW; `columns` are names for the first columns of the query."""

    table: str
    query: Clause
    columns: tuple[str, ...]
    replaces: bool
    if_missing: bool


@dataclass(frozen=True, slots=True)
class DropView:
    """DROP VIEW."""

    table: str
    if_exists: bool


RowChange: TypeAlias = Insert | Update | Delete | Merge
Write: TypeAlias = (
    Alter | Insert | CreateTable | CreateView | Delete | Update | Merge | DropTable | DropView
)


def parse_write(sql: str) -> Write | None:
    """Return the statement's parts; None if it is a query, or no such statement at all.

    Raises:
        SqlError: It does not parse, or is several statements.
        Unsupported: A clause or a kind of statement that changes data is not supported.
    """
    reader = StatementReader(sql)
    verb = reader.find_verb()
    if verb is None:
        return None
    try:
        count = len(statement_kinds(without_directions(sql)))
    except duckdb.ParserException as error:
        raise syntax_error(error, sql) from None
    if count != 1:
        raise SqlError(f"{count} statements; send one", line=1, column=1, offset=0)
    prelude = reader.cut(0, verb)
    reader.position = verb
    word = reader.take()
    parse = _PARSERS.get(word)
    if parse is None:
        raise Unsupported(f"{word.upper()} is not supported", hint=f"use {_SUPPORTED}")
    return parse(reader, prelude)


def _insert(reader: StatementReader, prelude: Clause) -> Insert:
    reader.refuse("or", "INSERT OR", "there are no keys, so rows cannot conflict")
    reader.expect("into")
    place = reader.cut(reader.position, reader.position + 1)
    table = reader.name()
    if reader.accept("as"):
        reader.name()
    columns = None
    if reader.word == "(" and reader.next_word not in (*READING_VERBS, "with", "("):
        columns = reader.names_in_brackets()
    by_name = False
    if reader.accept("by"):
        by_name = reader.take() == "name"
    stop = reader.find(("returning",))
    conflict = reader.find_pair("on", "conflict", ("do", "(", "on"))
    if conflict < len(reader.tokens):
        raise no_conflicts(reader, table, columns, conflict)
    returning = _returning(reader, stop)
    # DEFAULT VALUES has no query.
    query = None if reader.word == "default" else reader.cut(reader.position, stop)
    return Insert(table, place, prelude, query, columns, by_name, returning)


def _update(reader: StatementReader, prelude: Clause) -> Update:
    table = reader.name()
    alias = reader.alias(before=("set",)) or table
    reader.expect("set")
    end = reader.find(("returning",))
    condition = reader.find(("where",), end)
    sources = reader.find_from(condition)
    assignments = tuple(
        reader.assignment(start, stop) for start, stop in reader.divide(reader.position, sources)
    )
    return Update(
        table,
        alias,
        prelude,
        assignments,
        reader.cut(sources + 1, condition),
        reader.cut(condition + 1, end),
        _returning(reader, end),
    )


def _delete(reader: StatementReader, prelude: Clause) -> Delete:
    reader.expect("from")
    table = reader.name()
    alias = reader.alias(before=("using", "where", "returning")) or table
    if reader.word not in ("using", "where", "returning", ""):
        raise Unsupported(f"DELETE FROM {table} … {reader.word}", hint="use USING and WHERE")
    end = reader.find(("returning",))
    condition = reader.find(("where",), end)
    # Before the condition: a join in the list of tables may have a USING of its own.
    sources = reader.find(("using",), condition)
    return Delete(
        table,
        alias,
        prelude,
        reader.cut(sources + 1, condition),
        reader.cut(condition + 1, end),
        _returning(reader, end),
    )


def _merge(reader: StatementReader, prelude: Clause) -> Merge:
    reader.expect("into")
    table = reader.name()
    alias = reader.alias(before=("using",)) or table
    reader.expect("using")
    end = reader.find(("returning",))
    when = reader.find(("when",), end)
    # The last one: the source may be a join with a condition of its own.
    join = max(reader.find_all(("on", "using"), when), default=when)
    source = reader.cut(reader.position, join)
    actions = read_actions(reader, end)
    return Merge(
        table,
        alias,
        prelude,
        source,
        reader.cut(join, when),
        tuple(each for action in actions for each in action.expressions),
        any(action.of_unmatched for action in actions),
        _assigned(actions),
        any(action.inserts for action in actions),
        _returning(reader, end),
    )


def _assigned(actions: list[MergeAction]) -> tuple[str, ...] | None:
    names: list[str] = []
    for action in actions:
        if action.assigned is None:
            return None
        names += action.assigned
    return tuple(names)


def _truncate(reader: StatementReader, prelude: Clause) -> Delete:
    reader.accept("table")
    table = reader.name()
    return Delete(table, table, prelude, reader.nothing(), reader.nothing())


def _create(reader: StatementReader, _prelude: Clause) -> CreateTable | CreateView:
    replaces = reader.accept("or")
    if replaces:
        reader.expect("replace")
    if reader.word not in ("table", "view"):
        kind = reader.word.upper()
        raise Unsupported(f"CREATE {kind} is not supported", hint=f"use {_SUPPORTED}")
    is_view = reader.take() == "view"
    if_missing = reader.accept("if")
    if if_missing:
        reader.expect("not")
        reader.expect("exists")
    table = reader.name()
    if is_view:
        names = reader.names_in_brackets() if reader.word == "(" else ()
        reader.expect("as")
        query = reader.cut(reader.position, len(reader.tokens))
        return CreateView(table, query, names, replaces, if_missing)
    layout = read_layout(reader)
    options = read_options(reader)
    if reader.accept("as"):
        query = reader.cut(reader.position, len(reader.tokens))
        return CreateTable(table, query, None, replaces, if_missing, options, layout)
    first, stop = reader.position, reader.find((")",))
    is_list = reader.word == "("
    reader.position = min(stop + 1, len(reader.tokens))
    if is_list:
        layout = read_layout(reader)
    if is_list and options == TableOptions():
        options = read_options(reader)
    if not is_list or reader.position < len(reader.tokens):
        raise Unsupported(
            "this form of CREATE TABLE is not supported",
            hint="write CREATE TABLE name AS query, or CREATE TABLE name (column type, …)",
        )
    columns = tuple(
        read_definition(reader, start, end) for start, end in reader.divide_brackets(first)
    )
    return CreateTable(table, None, columns, replaces, if_missing, options, layout)


def _drop(reader: StatementReader, _prelude: Clause) -> DropTable | DropView:
    if reader.word not in ("table", "view"):
        hint = "use DROP TABLE or DROP VIEW"
        raise Unsupported(f"DROP {reader.word.upper()} is not supported", hint=hint)
    word = reader.take()
    if_exists = reader.accept("if")
    if if_exists:
        reader.expect("exists")
    table = reader.name()
    if reader.position < len(reader.tokens):
        hint = "CASCADE and RESTRICT have no use here"
        raise Unsupported(f"DROP {word.upper()} takes one name", hint=hint)
    return DropView(table, if_exists) if word == "view" else DropTable(table, if_exists)


_PARSERS: dict[str, Callable[[StatementReader, Clause], Write]] = {
    "insert": _insert,
    "update": _update,
    "delete": _delete,
    "truncate": _truncate,
    "merge": _merge,
    "create": _create,
    "drop": _drop,
    "alter": parse_alter,
}


def _returning(reader: StatementReader, end: int) -> Returning | None:
    """Return the clause that begins at a token, which is the last of its statement."""
    if end == len(reader.tokens):
        return None
    return Returning(reader.cut(end + 1, len(reader.tokens)), reader.tokens[end].start)
