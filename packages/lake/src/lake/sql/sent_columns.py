"""Columns of rows that are sent along with a part of a query: their receiver declares a table of them.

Names and types come from another node and go into a statement, so only types of this list are declared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lake.sql.types import quoted

__all__ = ["declared", "is_sendable"]

_COLUMNS_MAX = 200
_NAME_MAX = 128
_TYPES = (
    *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT"),
    *("UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "VARCHAR", "BLOB", "DATE", "TIME", "UUID"),
    *("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"),
)
_TYPE = re.compile(rf"(?:{'|'.join(_TYPES)}|DECIMAL\([0-9]{{1,2}},[0-9]{{1,2}}\))")


def is_sendable(columns: Sequence[tuple[str, str]]) -> bool:
    """Return whether a table can be sent along.

    Args:
        columns: The names and types of its columns.
    """
    names = {name.casefold() for name, _ in columns}
    if not 0 < len(columns) <= _COLUMNS_MAX or len(names) < len(columns):
        return False
    return all(0 < len(name) <= _NAME_MAX and _TYPE.fullmatch(kind) for name, kind in columns)


def declared(columns: Sequence[tuple[str, str]]) -> str:
    """Return columns as they are written in CREATE TABLE."""
    assert is_sendable(columns), "checked when the request came"
    return ", ".join(f"{quoted(name)} {kind}" for name, kind in columns)
