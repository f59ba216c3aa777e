"""A locked DuckDB instance: the datasets a query names as views, and no access to anything else.

Order matters: views are made while files may still be opened (DuckDB reads a footer), then external
access ends except for exactly these shards, then the configuration is locked. Opening an instance
costs 15 ms of CPU, so `lake.sql.instance_cache` keeps it for later queries over the same datasets.
Each query has a connection of its own: temporary objects, variables, prepared statements, random
seeds, transactions and interrupts belong to a connection in DuckDB and end with it. What belongs to
the instance (catalog, settings, secrets) cannot be changed by a query: `lake.sql.guard` admits
reading statements only, and behind it the configuration is locked and the transaction is read-only.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lake.sql.tables import Table
from sennit_core.schema import Schema

__all__ = ["Instance", "SqlLimits", "Table", "open_session"]

_MIB = 1 << 20
_STREAM_MEMORY_MIN = 256 * _MIB
"""DuckDB buffers 10 MiB of a result that is read slowly; instances with less memory buffer 2."""


@dataclass(frozen=True)
class SqlLimits:
    """What a query may use.

    Args:
        memory_bytes: DuckDB's own limit; it overshoots by some tens of MiB.
        temp_folder: Where it spills; DuckDB makes the folder when it spills first.
        temp_bytes: How much.
        threads: How many threads work on it.
    """

    memory_bytes: int
    temp_folder: Path
    temp_bytes: int
    threads: int


class Instance:
    """An in-memory database with one view for each table, its configuration locked.

    Args:
        tables: Datasets that its queries read or list.
        names: What they call them, as written; ids among them become views too.
        limits: Memory, temporary space and threads.
    """

    def __init__(self, tables: Sequence[Table], names: Sequence[str], limits: SqlLimits) -> None:
        self.limits = limits
        self._database = _connect(limits)
        try:
            wanted = {name.casefold() for name in names}
            for table in tables:
                _create_view(self._database, table.name, table)
                if table.id in wanted:
                    _create_view(self._database, table.id, table)
            _lock(self._database, [path for table in tables for path in table.paths or ()])
        except BaseException:
            self._database.close()
            raise

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection for one query; whatever the query left in it ends with it."""
        connection = self._database.cursor()
        try:
            if self.limits.memory_bytes < _STREAM_MEMORY_MIN:
                connection.execute("SET streaming_buffer_size = '2MiB'")
            connection.execute("BEGIN TRANSACTION READ ONLY")
            yield connection
        finally:
            connection.close()

    @property
    def has_spilled(self) -> bool:
        """Whether temporary files were written; their folder stays until `close`."""
        return self.limits.temp_folder.exists()

    def close(self) -> None:
        """Close the database; its memory and temporary files are freed."""
        self._database.close()
        if self.has_spilled:
            shutil.rmtree(self.limits.temp_folder, ignore_errors=True)


@contextmanager
def open_session(
    tables: Sequence[Table], names: Sequence[str], limits: SqlLimits
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an instance for one query alone, and a connection to it."""
    instance = Instance(tables, names, limits)
    try:
        with instance.connect() as connection:
            yield connection
    finally:
        instance.close()


def _connect(limits: SqlLimits) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
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


def _lock(database: duckdb.DuckDBPyConnection, shards: Sequence[str]) -> None:
    """End external access except for the shards, then every change of the configuration.

    Settings are global ones: a connection that is opened later starts with them.
    """
    database.execute("SET GLOBAL python_enable_replacements = false")
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    # The one setting that has no global form, and that a later connection may need to change.
    database.execute("SET GLOBAL allowed_configs = ['streaming_buffer_size']")
    database.execute(f"SET GLOBAL allowed_paths = [{', '.join(map(_text, shards))}]")
    database.execute("SET GLOBAL enable_external_access = false")
    database.execute("SET GLOBAL lock_configuration = true")


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
