"""SQLite: a table is a map of rows by primary key, a row a map of its columns."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path as FilePath
from typing import Any

from elkyn.migration.keys import escape_key, unescape_key
from sennit_core.errors import BadInput, Conflict, NotFound

__all__ = ["read_tables", "write_tables"]

_KEY = "_key"


def read_tables(file: FilePath) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield every row of every table with its table and key.

    The key is the primary key (joined by `,` when it has several columns), else the row's number.
    Columns that are NULL are left out; BLOBs become base64.

    Raises:
        NotFound: the file does not exist.
        BadInput: the file is not a SQLite database.
    """
    if not file.exists():
        raise NotFound("file", str(file))
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as base:
            base.text_factory = lambda data: data.decode("utf-8", "replace")
            names = base.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%'"
                " ESCAPE '\\' ORDER BY name"
            )
            for (table,) in names.fetchall():
                yield from _rows(base, table)
    except sqlite3.DatabaseError as error:
        raise BadInput(str(file), reason=str(error)) from None


def _rows(base: sqlite3.Connection, table: str) -> Iterator[tuple[tuple[str, str], Any]]:
    columns = base.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    names = [column[1] for column in columns]
    keyed = [
        name for _place, name in sorted((column[5], column[1]) for column in columns if column[5])
    ]
    own = keyed or ["rowid"]
    selected = ", ".join(map(_quoted, [*own, *names]))
    for row in base.execute(f"SELECT {selected} FROM {_quoted(table)}"):
        key = ",".join(str(_value(part)) for part in row[: len(own)])
        values = zip(names, row[len(own) :], strict=True)
        record = {escape_key(name): _value(value) for name, value in values if value is not None}
        yield (escape_key(table), escape_key(key)), record


def _value(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def write_tables(file: FilePath, tables: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Write maps of records as tables of a new file; returns how many rows there are.

    Each table has the column `_key` and one for every member of its records; a member that is a
    map or list is written as JSON. A child that is not a map is a row with the column `value`.

    Raises:
        Conflict: the file exists.
    """
    if file.exists():
        raise Conflict(message=f"{file} exists already", hint="choose a file that does not exist")
    count = 0
    with closing(sqlite3.connect(file)) as base, base:
        for name, records in tables:
            rows = {key: _record(value) for key, value in records.items()}
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            table, shown = _quoted(unescape_key(name)), [_KEY, *map(unescape_key, columns)]
            base.execute(f"CREATE TABLE {table} ({', '.join(map(_quoted, shown))})")
            marks = ", ".join("?" * len(shown))
            base.executemany(
                f"INSERT INTO {table} VALUES ({marks})",
                ([unescape_key(key), *map(row.get, columns)] for key, row in rows.items()),
            )
            count += len(rows)
    return count


def _record(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"value": _cell(value)}
    return {name: _cell(member) for name, member in value.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value
