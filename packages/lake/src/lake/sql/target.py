"""Find what a statement changes, without running it."""

from __future__ import annotations

from typing import Any

from lake.sql.history import find_history
from lake.sql.statement_reader import StatementReader
from lake.sql.write_statements import Delete, Insert, Merge, Update, parse_write
from sennit_core.errors import Unsupported

__all__ = ["find_target"]


def find_target(sql: str) -> dict[str, Any]:
    """Return `verb`, `table`, `returning` and `history` of a statement; see `lake.statement_target`.

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
    }
