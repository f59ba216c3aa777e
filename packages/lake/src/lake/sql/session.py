"""A database for one query: the datasets it names as views, and every door closed behind them.

Each query has an instance of its own, so nothing that one query does can reach the next; opening
one costs about 20 ms. Order matters: views are made while files may still be opened (DuckDB looks
at a footer), then external access ends except for exactly these shards, then the configuration
is locked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lake.sql.tables import Table
from sennit_core.schema import Schema

__all__ = ["SqlLimits", "Table", "open_session"]

_MIB = 1 << 20


@dataclass(frozen=True)
class SqlLimits:
    """What a query may use.

    Args:
        memory_bytes: DuckDB's own limit; it overshoots by some tens of MiB.
        temp_folder: Where it spills.
        temp_bytes: How much.
        threads: How many threads work on it.
    """

    memory_bytes: int
    temp_folder: Path
    temp_bytes: int
    threads: int


@contextmanager
def open_session(
    tables: Sequence[Table], names: Sequence[str], limits: SqlLimits
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A locked connection that sees the tables.

    Args:
        tables: Datasets that the query reads or lists.
        names: What it calls them, as written; ids among them become views too.
        limits: Memory, temporary space and threads.
    """
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": str(limits.threads),
            "async_threads": "1",  # eight idle stacks otherwise, for files that are local anyway
            "memory_limit": f"{limits.memory_bytes // _MIB}MiB",
            "temp_directory": str(limits.temp_folder),
            "max_temp_directory_size": f"{limits.temp_bytes // _MIB}MiB",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            "preserve_insertion_order": "true",
        },
    )
    try:
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET streaming_buffer_size = '2MiB'")
        wanted = {name.casefold() for name in names}
        for table in tables:
            _create_view(connection, table.name, table)
            if table.id in wanted:
                _create_view(connection, table.id, table)
        shards = [path for table in tables for path in table.paths or ()]
        connection.execute(f"SET allowed_paths = [{', '.join(map(_text, shards))}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


def _create_view(connection: duckdb.DuckDBPyConnection, name: str, table: Table) -> None:
    if table.paths:
        shards = ", ".join(map(_text, table.paths))
        body = f"SELECT * FROM read_parquet([{shards}])"
    else:
        body = _nothing(connection, table.schema)
    connection.execute(f"CREATE VIEW {_name(name)} AS {body}")


def _nothing(connection: duckdb.DuckDBPyConnection, schema: Schema) -> str:
    """A query of no rows with the dataset's columns, for SHOW and DESCRIBE: it opens no file."""
    stub = f"columns of {len(schema.fields)}: {schema.fingerprint()}"
    connection.register(stub, schema.to_arrow().empty_table())
    described = connection.execute(f"DESCRIBE {_name(stub)}").fetchall()
    connection.unregister(stub)
    columns = ", ".join(f"NULL::{kind} AS {_name(column)}" for column, kind, *_ in described)
    return f"SELECT {columns} WHERE false"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
