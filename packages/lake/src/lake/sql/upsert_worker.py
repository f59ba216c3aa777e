"""Executor entry `lake.upsert`: merge encoded rows into a dataset by key (copy on write).

A row whose key the dataset has replaces the rows with it, in their places; the others are appended in
their order. Only shards with a replaced row are written anew.

Request: `tables` (the dataset) `source` (paths of the new rows' shards) `schema` `columns` (theirs,
which are the dataset's) `key` (names of columns) `name` (of the file, for errors) `folder` `threads`,
and as `lake.sql.write_worker` `space` `plain` `seals`.
Response: as of `lake.sql.write_worker`, with `serial`: the commit must follow from the state that was
read, because two writers that both find a key missing would both append it.

Without a dataset in `tables`, the keys are checked, and there is no response. With `added` (paths of
shards), `tables` has the shards that came after an earlier merge of the same rows into the dataset, and
`added` the shards that it would append: their rows without those that replace rows now, are in the
response's `shards`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb

from emsqrt.io.formats import open_format
from lake.objects.verification import verify_shards
from lake.sql.changing_statement import HITS, ROW, SHARD, ChangingStatement
from lake.sql.duckdb_worker import interrupted_on_cancel, limits_of, translated_errors
from lake.sql.restricted_writes import in_order
from lake.sql.session import numbered_shards, open_write_session, shards_of
from lake.sql.tables import Table
from lake.sql.tables_read import used_tables
from lake.sql.types import quoted
from lake.sql.write_response import reports_of, rewritten
from lake.sql.write_worker import check_columns
from sennit_core.errors import BadInput
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["run"]

_NEW = "__lake_new"
_NUMBER = "__lake_number"  # of a row of the source, from 1
_SHOWN_CHARACTERS = 60


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Merge the rows; the module's docstring describes request and response."""
    import pyarrow as pa

    statement = ChangingStatement({"sql": "", "params": None, **request}, context)
    source = _rows_of(request, "source")
    if not statement.tables:
        with _session(request, statement, (source,)) as connection:
            _load(connection, source)
            _check_keys(connection, request, source)
        return {}
    (target,) = statement.tables
    statement.changes = target
    check_columns(target)
    added = None if request.get("added") is None else _rows_of(request, "added")
    tables = (target, source) if added is None or not added.paths else (target, source, added)
    with _session(request, statement, tables) as connection:
        statement.connection = connection
        _load(connection, source)
        ((count,),) = connection.execute(f"SELECT count(*) FROM {_NEW}").fetchall()
        _check_keys(connection, request, target)
        _find_hits(connection, target, request["key"])
        answer = _rewrite(connection, statement, target, count)
        if added is None or (added.paths and answer["rewritten"]):
            missing = connection.sql(_missing(request, target, added))
            answer["shards"] = reports_of(statement.write(missing, target))
            if not answer["rewritten"] and answer["shards"]:
                answer["action"] = "append"
    schema = pa.schema([("Count", pa.int64())])
    with open_format("arrow", schema, context.emit) as writer:
        writer.write(pa.record_batch([pa.array([count], pa.int64())], schema))
    return {**answer, "serial": True}


def _rows_of(request: dict[str, Any], member: str) -> Table:
    """Return the new rows, or a part of them."""
    return Table(
        f"__lake_{member}",
        "",
        Schema.from_json(request["schema"]),
        tuple(request[member]),
        columns=tuple(request["columns"]),
    )


@contextmanager
def _session(
    request: dict[str, Any], statement: ChangingStatement, tables: tuple[Table, ...]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a session over the dataset, if there is one, and the new rows."""
    context = statement.context
    for target in statement.tables:
        used_tables([target], frozenset((target.name,)))  # refuses a damaged one
        # The others have just been written into a private folder, without a file of hashes.
        verify_shards(target.shards, context)
    with (
        translated_errors("", statement.tables, context),
        open_write_session(tables, (), limits_of(request, context)) as connection,
        interrupted_on_cancel(connection, context),
    ):
        context.forgive_reserved()
        yield connection


def _load(connection: duckdb.DuckDBPyConnection, source: Table) -> None:
    """Keep the new rows in a temporary table, which spills to disk.

    Its columns are `value0`, `value1` and so on: no name of the dataset can be one of ours.
    """
    columns = ", ".join(
        f"{quoted(name)} AS value{index}" for index, name in enumerate(source.schema.names)
    )
    connection.execute(
        f"CREATE TEMP TABLE {_NEW} AS SELECT row_number() OVER () AS {_NUMBER}, {columns} "
        f"FROM {shards_of(source)}"
    )


def _values(key: list[str], target: Table) -> list[str]:
    return [f"value{target.schema.names.index(name)}" for name in key]


def _check_keys(
    connection: duckdb.DuckDBPyConnection, request: dict[str, Any], target: Table
) -> None:
    """Refuse rows without a key, which nothing could ever match, and keys that are there twice."""
    key = request["key"]
    found_in = _values(key, target)
    missing = " OR ".join(f"{value} IS NULL" for value in found_in)
    found = connection.execute(
        f"SELECT min({_NUMBER}), count(*) FROM {_NEW} WHERE {missing}"
    ).fetchone()
    assert found is not None, "an aggregate has one row"
    if found[1]:
        raise BadInput(
            request["name"],
            reason=f"{found[1]:,} rows have no value in the key ({', '.join(key)}), first row {found[0]:,}",
            hint="fill it in, leave these rows out, or append them",
        )
    columns = ", ".join(found_in)
    twice = connection.execute(
        f"SELECT {columns}, min({_NUMBER}), max({_NUMBER}) FROM {_NEW} GROUP BY {columns} "
        f"HAVING count(*) > 1 ORDER BY min({_NUMBER}) LIMIT 1"
    ).fetchone()
    if twice is not None:
        *values, first, second = twice
        shown = ", ".join(
            f"{name} = {_shortened(value)}" for name, value in zip(key, values, strict=True)
        )
        # The error of a job is stored, and that of an encrypted dataset must not have values.
        shown = ", ".join(key) if "plain" in request else shown
        raise BadInput(
            request["name"],
            reason=f"rows {first:,} and {second:,} have the same key, {shown}",
            hint="keep one row of each key, or name more columns of the key",
        )


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _find_hits(connection: duckdb.DuckDBPyConnection, target: Table, key: list[str]) -> None:
    """Keep which row of the source replaces which row of the dataset, in the table `HITS`."""
    if not target.paths:
        connection.execute(
            f"CREATE TEMP TABLE {HITS} ({SHARD} BIGINT, {ROW} BIGINT, {_NUMBER} BIGINT)"
        )
        return
    shard, row = target.number_columns
    equal = " AND ".join(
        f"t.{quoted(name)} = n.{value}"
        for name, value in zip(key, _values(key, target), strict=True)
    )
    connection.execute(
        f"CREATE TEMP TABLE {HITS} AS SELECT t.{shard} AS {SHARD}, t.{row} AS {ROW}, "
        f"n.{_NUMBER} FROM {numbered_shards(target)} AS t JOIN {_NEW} AS n ON {equal} ORDER BY {SHARD}"
    )


def _missing(request: dict[str, Any], target: Table, added: Table | None) -> str:
    """Return the query for the new rows that replace none, in their order."""
    names = target.schema.names
    if added is None:
        new = ", ".join(f"value{index} AS {quoted(name)}" for index, name in enumerate(names))
        return f"SELECT {new} FROM {_NEW} ANTI JOIN {HITS} USING ({_NUMBER}) ORDER BY {_NUMBER}"
    # They replace none of the rows of an earlier merge; some may replace rows that came since.
    key = request["key"]
    equal = " AND ".join(
        f"a.{quoted(name)} = n.{value}"
        for name, value in zip(key, _values(key, target), strict=True)
    )
    return (
        f"SELECT {', '.join(f'a.{quoted(name)}' for name in names)} FROM {numbered_shards(added)} AS a "
        f"ANTI JOIN (SELECT n.* FROM {_NEW} AS n SEMI JOIN {HITS} USING ({_NUMBER})) AS n "
        f"ON {equal} ORDER BY {in_order('a', added)}"
    )


def _rewrite(
    connection: duckdb.DuckDBPyConnection,
    statement: ChangingStatement,
    target: Table,
    count: int,
) -> dict[str, Any]:
    """Write the shards that have hits anew; return the response, without rows to append."""
    columns = {f"value{index}": quoted(name) for index, name in enumerate(target.schema.names)}
    merged = ", ".join(
        f"CASE WHEN h.{ROW} IS NULL THEN s.{name} ELSE h.{value} END AS {name}"
        for value, name in columns.items()
    )
    touched = connection.execute(f"SELECT DISTINCT {SHARD} FROM {HITS} ORDER BY ALL").fetchall()
    changed = []
    row = target.number_columns[1]
    for (index,) in touched:
        rows = connection.sql(
            f"SELECT {merged} FROM {numbered_shards(target, [index])} AS s LEFT JOIN "
            f"(SELECT {ROW}, n.* FROM {HITS} JOIN {_NEW} AS n USING ({_NUMBER}) "
            f"WHERE {SHARD} = {index}) AS h ON h.{ROW} = s.{row} ORDER BY s.{row}"
        )
        changed.append((int(index), statement.write(rows, target)))
    return rewritten(target, changed, count, [target]) | {"shards": []}
