"""The values of a statement's placeholders, as parameters of DuckDB.

A request has them as `params` (a list for `?` and `$1`, an object for `$name`), or as
`arrowParams`: an Arrow IPC stream of a client, and the number of its row that holds them. The stream
is read here, under an executor's memory cap, and not in the node's process.
"""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

from lake.sql.guard import placeholders
from sennit_core.arrow_ipc import open_arrow
from sennit_core.errors import SqlError, UsageError

__all__ = ["params_of", "unknown_params"]

Params = list[Any] | dict[str, Any] | None


def params_of(request: dict[str, Any]) -> Params:
    """Return the values of a statement's placeholders."""
    if request.get("arrowParams") is not None:
        stream, row = request["arrowParams"]
        return _row(stream, row, _names(request["sql"]))
    params = request.get("params")
    if params is None or isinstance(params, list | dict):
        return params or None
    raise SqlError("params is a list for ? and $1, or an object for $name")


def unknown_params(sql: str) -> Params:
    """Return NULL for each placeholder, to bind a statement before there are values."""
    names = _names(sql)
    return dict.fromkeys(names) if _are_named(names) else [None] * len(names) or None


def _names(sql: str) -> frozenset[str]:
    try:
        return placeholders(sql)
    except duckdb.Error:  # the statement's own check reports it, with the position
        return frozenset()


def _are_named(names: frozenset[str]) -> bool:
    return bool(names) and not all(name.isdecimal() for name in names)


def _row(stream: bytes, row: int, names: frozenset[str]) -> Params:
    """Return one row; its columns are the placeholders in order, or by name if they have names."""
    with pa.BufferReader(stream) as source, open_arrow(source, "the parameters") as reader:
        for batch in reader:
            if row < batch.num_rows:
                values = {
                    name.removeprefix("$"): column[row].as_py()
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                if _are_named(names):
                    return values
                return [column[row].as_py() for column in batch.columns] or None
            row -= batch.num_rows
    raise UsageError("the parameters have fewer rows than was announced")
