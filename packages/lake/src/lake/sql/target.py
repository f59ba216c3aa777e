"""Find what a statement changes, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lake.sql.guard import check_statement
from lake.sql.history import find_history
from lake.sql.list_worker import query_of
from lake.sql.statement_reader import StatementReader
from lake.sql.tables import Table
from lake.sql.write_statements import Delete, Insert, Merge, Update, Write, parse_write
from lake.sql.write_worker import matches_of
from sennit_core.errors import Unsupported
from sennit_core.schema import Schema

__all__ = ["find_target"]


def find_target(sql: str, known: Sequence[str]) -> dict[str, Any]:
    """Return the members of `lake.statements.target.Target`.

    Args:
        sql: The statement.
        known: Names of datasets, which may look like names of files.

    Raises:
        SqlError: It does not parse, or is several statements.
        Unsupported: It changes nothing.
    """
    write = parse_write(sql)
    if write is None:
        raise Unsupported("the statement is a query", hint="begin it with SELECT, WITH or FROM")
    reader = StatementReader(sql)
    reader.position = reader.find_verb() or 0
    returning = isinstance(write, Insert | Update | Delete | Merge) and write.returning is not None
    return {
        "verb": reader.take(),
        "table": write.table,
        "returning": returning,
        "history": bool(find_history(sql)),
        "reads": _reads(write, known),
    }


def _reads(write: Write, known: Sequence[str]) -> list[str]:
    """Return the names that a statement reads, of what it changes too if its query does."""
    target = Table(write.table, "", Schema(()), ())
    merged = matches_of(write, target).text if isinstance(write, Merge) else None
    text = merged or query_of(write, [target])[0]
    found = check_statement(text, frozenset((*known, write.table))).tables
    folded = {name.casefold(): name for name in sorted(found)}
    return list(folded.values())
