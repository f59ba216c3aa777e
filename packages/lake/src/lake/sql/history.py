"""Find which earlier snapshots a statement reads: `t AT (VERSION => 3)`, `t AT (TIMESTAMP => …)`.

DuckDB parses the clause, but has no earlier states of a view. So each such table becomes the name of
another view, which the node fills with the shards of that snapshot (`lake.statements.history`). The value is an
expression without tables, which DuckDB computes before the statement runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import duckdb

from lake.sql.failures import query_error
from lake.sql.guard import compute, explained_query, table_nodes
from lake.sql.statement_reader import Clause, tokens_of
from lake.sql.types import quoted
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
    Write,
    parse_write,
)
from sennit_core.errors import SqlError, Unsupported

__all__ = ["find_history"]

_TAG = "#"
_KINDS = {
    # What is no number is the name of a tag.
    "VERSION": (
        "version",
        f"coalesce(TRY_CAST(({{0}}) AS BIGINT)::VARCHAR, '{_TAG}' || ({{0}}))",
        "a whole number or a tag",
    ),
    "TIMESTAMP": ("time", "epoch(CAST(({0}) AS TIMESTAMP))", "a time"),
}


def find_history(sql: str) -> list[dict[str, Any]]:
    """Return the tables with an AT clause, in the order of the text.

    Each is `{"table", "version" or "time", "start", "stop", "after"}`: the characters from `start` to
    `stop` are to be replaced by the view's name and the text `after`.

    Raises:
        SqlError: The statement does not parse, or the value of a clause is of no use.
        Denied: The value would read something.
    """
    found: list[dict[str, Any]] = []
    for before, clause, after in _queries(sql):
        query = before + clause.text + after
        data = query.encode("utf-8", "surrogatepass")
        for node in table_nodes(query):
            if node.get("at_clause"):
                # DuckDB counts bytes of UTF-8.
                start = node["query_location"]
                text = data[start : start + node["query_location_length"]].decode()
                place = len(data[:start].decode()) - len(before) + clause.offset
                found.append({"start": place, "stop": place + len(text), **_table(node, text)})
    if found and isinstance(parse_write(sql), CreateView):
        hint = "create a dataset of that version: CREATE TABLE … AS SELECT …"
        raise Unsupported("AT in a view is not supported", hint=hint)
    return sorted(found, key=lambda each: each["start"])


def _queries(sql: str) -> Iterator[tuple[str, Clause, str]]:
    """Yield the statement's parts that may name tables, with the text that makes each a query."""
    write = parse_write(sql)
    if write is None:
        text = explained_query(sql)
        yield "", Clause(text, len(sql) - len(text)), ""
        return
    for before, clause, after in _parts(write):
        if clause is not None and clause.text:
            yield before, clause, after


def _parts(write: Write) -> Iterator[tuple[str, Clause | None, str]]:
    match write:
        case Insert() | CreateTable() | CreateView():
            yield "", write.query, ""
        case Delete() | Update():
            yield "SELECT 1 FROM ", write.sources, ""
            yield "SELECT 1 WHERE ", write.condition, ""
        case Merge():
            yield "SELECT 1 FROM ", write.source, ""
    expressions: Iterable[Clause] = ()
    if isinstance(write, Merge):
        expressions = write.expressions
    elif isinstance(write, Update):
        expressions = (expression for _, expression in write.assignments)
    for expression in expressions:
        yield "SELECT ", expression, ""
    if not isinstance(write, Alter | CreateTable | CreateView | DropTable | DropView):
        yield "", write.prelude, " SELECT 1"


def _table(node: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the snapshot that `name [alias] AT (unit => value)` means, and how to write it."""
    tokens = tokens_of(text)
    outer = [index for index, token in enumerate(tokens) if not token.depth]
    at = next(index for index in reversed(outer) if tokens[index].word == "at")
    end = next(index for index in outer if index > at + 1)  # the bracket that closes it
    value = text[tokens[at + 4].start : tokens[end - 1].stop] if end > at + 4 else ""
    name_ends = 0
    while tokens[name_ends + 1].word.startswith("."):
        name_ends += 2
    alias = text[tokens[name_ends].stop : tokens[at].start].strip()
    return {
        "table": node["table_name"],
        **_point(node["at_clause"]["unit"], value),
        "after": f" {alias or 'AS ' + quoted(node['table_name'])}{text[tokens[end].stop :]}",
    }


def _point(unit: str, value: str) -> dict[str, int | float | str]:
    """Return the version, tag or time of a clause."""
    name, query, needed = _KINDS[unit.upper()]
    try:
        found = compute(query.format(value))
    except duckdb.Error as error:
        raise query_error(error, value, shards=(), columns=(), cap_bytes=0) from None
    if found is None:
        raise SqlError(
            f"AT ({unit} => {value}) needs {needed}",
            hint="write a constant, or an expression without tables, columns and parameters",
        )
    if isinstance(found, str):
        found = found[len(_TAG) :] if found.startswith(_TAG) else int(found)
    return {name: found}
