"""ON CONFLICT of INSERT, which is refused with the MERGE that does the same.

A dataset has no unique columns, and DuckDB refuses ON CONFLICT for such a table too, as DuckLake does. The
meaning of an upsert would be a second meaning: in PostgreSQL it promises that no other writer
adds the key meanwhile, and a MERGE here may not be run again for that.
"""

from __future__ import annotations

import re

from lake.sql.statement_reader import StatementReader
from lake.sql.types import quoted
from sennit_core.errors import Unsupported

__all__ = ["no_conflicts"]

_SHOWN_MAX = 100
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def no_conflicts(
    reader: StatementReader, table: str, columns: tuple[str, ...] | None, conflict: int
) -> Unsupported:
    """Return the error for ON CONFLICT.

    Args:
        reader: The statement, read up to the rows of INSERT.
        table: The dataset.
        columns: The columns that are listed.
        conflict: The index of the word ON.
    """
    query = reader.cut(reader.position, conflict).text
    listed = "a, b, …" if columns is None else ", ".join(map(_name, columns))
    source = f"({query if len(query) <= _SHOWN_MAX else 'SELECT …'}) AS excluded({listed})"
    reader.position = conflict + 2
    keys = reader.names_in_brackets() if reader.word == "(" else ("key",)
    join = " AND ".join(f"{_name(table)}.{_name(key)} = excluded.{_name(key)}" for key in keys)
    return Unsupported(
        "ON CONFLICT, as datasets have no unique columns by which rows could conflict",
        hint=f"MERGE INTO {_name(table)} USING {source} ON {join}{_update(reader)} "
        f"WHEN NOT MATCHED THEN INSERT ({listed}) VALUES ({_values(columns)}); "
        "or Lake.upsert, which also refuses keys that are there twice",
    )


def _update(reader: StatementReader) -> str:
    start = reader.find(("set",))
    end = reader.find(("returning",))
    if start >= end:
        return ""
    stop = reader.find(("where",), end)
    condition = reader.cut(stop + 1, end).text
    text = f" WHEN MATCHED {f'AND {condition} ' if condition else ''}THEN UPDATE "
    return text + reader.cut(start, stop).text


def _values(columns: tuple[str, ...] | None) -> str:
    if columns is None:
        return "excluded.a, excluded.b, …"
    return ", ".join(f"excluded.{_name(column)}" for column in columns)


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else quoted(name)
