"""A locked DuckDB instance: views of the datasets that a query names, and no other access.

Order matters: views are created while files may still be opened (DuckDB reads a footer), then
external access is disabled except for these shards, then the configuration is locked. Opening an
instance costs 15 ms of CPU, so `lake.sql.instance_cache` keeps it for later queries over the same
datasets. Each query has its own connection: temporary objects, variables, prepared statements,
random seeds, transactions and interrupts belong to a connection in DuckDB and end with it. A query
cannot change the state of the instance (catalog, settings, secrets): `lake.sql.guard` allows only
read-only statements, the configuration is locked, and the transaction is read-only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lake.access.rules import outdated
from lake.sql.policies import restricted_rows
from lake.sql.tables import Table
from lake.sql.types import literal, quoted, shard_types
from lake.sql.views import create_view
from sennit_core.errors import SqlError
from sennit_core.schema import Schema

__all__ = [
    "Instance",
    "SqlLimits",
    "Table",
    "columns_of",
    "hide_shards",
    "numbered_shards",
    "open_session",
    "open_write_session",
    "rows_of_schema",
    "shards_of",
]


_MIB = 1 << 20
_STREAM_MEMORY_MIN = 256 * _MIB
"""DuckDB buffers 10 MiB of a slowly read result; instances with less memory buffer 2 MiB."""
_FOOTERS_MAX = 64
"""An instance keeps the footers of this many shards between queries: a quarter of the CPU of a
`count(*)` over nine of them. DuckDB does not count them towards its memory limit."""


@dataclass(frozen=True)
class SqlLimits:
    """Resource limits of a query.

    Args:
        memory_bytes: DuckDB's memory_limit; DuckDB exceeds it by some tens of MiB.
        temp_folder: Folder for spill files; DuckDB creates it on the first spill.
        temp_bytes: Maximum bytes of spill files.
        threads: Number of threads.
    """

    memory_bytes: int
    temp_folder: Path
    temp_bytes: int
    threads: int


class Instance:
    """An in-memory database with one view for each table, its configuration locked.

    Args:
        tables: Datasets that its queries read or list.
        names: Their names as written in the queries; ids among them become views too.
        limits: Memory, temporary space and threads.
        skips_broken_views: Whether to leave out views that cannot be used, for lists.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        names: Sequence[str],
        limits: SqlLimits,
        *,
        skips_broken_views: bool = False,
    ) -> None:
        self.limits = limits
        self._database = _connect(limits)
        try:
            # A view by id only where a query uses it, so that listings show each dataset once.
            wanted = {name.casefold() for name in names}
            for table in tables:
                with suppress(SqlError) if skips_broken_views else nullcontext():
                    _create_view(self._database, table.name, table)
                if table.id in wanted:
                    _create_view(self._database, table.id, table)
            # After the views: creating them opens shards to read their schemas.
            links = [table.link.file.path for table in tables if table.link is not None]
            shards = [path for table in tables for path in table.paths or ()]
            _lock(self._database, [*shards, *links])
            # Parsed once: it starts each query.
            (self._begin,) = self._database.extract_statements("BEGIN TRANSACTION READ ONLY")
        except BaseException:
            self._database.close()
            raise

    @contextmanager
    def connect(self, *, read_only: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection for one query; its temporary state ends with it."""
        # In DuckDB's Python module, a cursor is a connection of its own to the same database.
        connection = self._database.cursor()
        try:
            if self.limits.memory_bytes < _STREAM_MEMORY_MIN:
                connection.execute("SET streaming_buffer_size = '2MiB'")
            if read_only:
                # Never committed: closing the connection rolls it back.
                connection.execute(self._begin)
            yield connection
        finally:
            connection.close()

    @property
    def has_spilled(self) -> bool:
        """Whether spill files were written; their folder exists until `close`."""
        return self.limits.temp_folder.exists()

    def close(self) -> None:
        """Close the database and free its memory and spill files."""
        self._database.close()
        if self.has_spilled:
            shutil.rmtree(self.limits.temp_folder, ignore_errors=True)


@contextmanager
def open_session(
    tables: Sequence[Table],
    names: Sequence[str],
    limits: SqlLimits,
    opened: Callable[[], None] = lambda: None,
    *,
    skips_broken_views: bool = False,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an instance for a single query, and a connection to it.

    `opened` is called between the two; the other arguments are those of `Instance`.
    """
    instance = Instance(tables, names, limits, skips_broken_views=skips_broken_views)
    try:
        opened()
        with instance.connect() as connection:
            yield connection
    finally:
        instance.close()


@contextmanager
def open_write_session(
    tables: Sequence[Table], names: Sequence[str], limits: SqlLimits
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an instance for a statement that changes a dataset, and a connection to it.

    As `open_session`, but the connection may create temporary tables, which end with it.
    """
    instance = Instance(tables, names, limits)
    try:
        with instance.connect(read_only=False) as connection:
            yield connection
    finally:
        instance.close()


def _connect(limits: SqlLimits) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        ":memory:",
        config={
            "threads": str(limits.threads),
            "async_threads": "1",  # not the default of eight: local files need none
            "memory_limit": f"{limits.memory_bytes // _MIB}MiB",
            "temp_directory": str(limits.temp_folder),
            "max_temp_directory_size": f"{limits.temp_bytes // _MIB}MiB",
            # Extensions are native libraries, possibly downloaded; secrets are files of the user.
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            # Without ORDER BY, rows are in the order of the shards, which is that of the uploaded
            # file.
            "preserve_insertion_order": "true",
        },
    )


def _lock(database: duckdb.DuckDBPyConnection, shards: Sequence[str]) -> None:
    """Disable external access except for the shards, then lock the configuration.

    The settings are global, so that connections opened later have them too.
    """
    if len(shards) <= _FOOTERS_MAX:
        # Shards do not change, and DuckDB compares their times with those of the kept footers.
        database.execute("SET GLOBAL parquet_metadata_cache = true")
    database.execute("SET GLOBAL python_enable_replacements = false")
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    # The only setting without a global form that a later connection may need to change.
    database.execute("SET GLOBAL allowed_configs = ['streaming_buffer_size']")
    # The order is fixed: `allowed_paths` cannot change once access is off, and nothing can change
    # once the configuration is locked.
    database.execute(f"SET GLOBAL allowed_paths = [{', '.join(map(literal, shards))}]")
    database.execute("SET GLOBAL enable_external_access = false")
    database.execute("SET GLOBAL lock_configuration = true")


def shards_of(table: Table, indexes: Sequence[int] | None = None) -> str:
    """Return the rows of a dataset's shards, as an item of FROM.

    Args:
        table: The dataset.
        indexes: The shards; None for all.
    """
    # If the files have other columns than the dataset, they are found by their ids.
    return _read_parquet(table, indexes, table.schema.names if table.file_columns else None)


def numbered_shards(table: Table, indexes: Sequence[int] | None = None) -> str:
    """As `shards_of`, with the columns `table.number_columns`, which `*` may include."""
    if not table.paths:
        # Not the view of its name, which may have shards that were left out.
        columns = ", ".join(f"0 AS {number}" for number in table.number_columns)
        return f"(SELECT *, {columns} FROM ({rows_of_schema(table.schema)}))"
    if not table.hides_numbers:
        return shards_of(table, indexes)
    names = [f"__lake_column_{column}" for column in table.columns]
    pairs = zip([*names, "file_index", "file_row_number"], [*table.schema.names, *table.number_columns],
                strict=True)  # fmt: skip
    columns = ", ".join(f"{name} AS {quoted(shown)}" for name, shown in pairs)
    return f"(SELECT {columns} FROM {_read_parquet(table, indexes, names)})"


def columns_of(table: Table, alias: str) -> str:
    """Return the columns of a dataset among those of `numbered_shards`."""
    if not table.hides_numbers:
        return f"{alias}.*"
    return ", ".join(f"{alias}.{quoted(name)}" for name in table.schema.names)


def _read_parquet(table: Table, indexes: Sequence[int] | None, names: Sequence[str] | None) -> str:
    """Return the rows of shards.

    Args:
        table: The dataset.
        indexes: The shards; None for all.
        names: The names that its columns get; None for those in the files.
    """
    paths = table.paths or ()
    chosen = paths if indexes is None else [paths[index] for index in indexes]
    # Names of folders, such as `year=2024`, are no columns.
    options = ["hive_partitioning = false"]
    if names is not None:
        types = shard_types(table.schema).values()
        columns = ", ".join(
            f"{column}: {{name: {literal(name)}, type: {literal(kind)}, default_value: NULL}}"
            for column, name, kind in zip(table.columns, names, types, strict=True)
        )
        options.append(f"schema = MAP {{{columns}}}")
    return f"read_parquet([{', '.join(map(literal, chosen))}], {', '.join(options)})"


def hide_shards(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[Table], names: Sequence[str]
) -> None:
    """Give a connection views of its own, with fewer shards, in the place of those of its instance.

    Args:
        connection: The connection; the views end with it.
        tables: Datasets with the shards to read.
        names: Their names as written in the query.
    """
    wanted = {name.casefold() for name in names}
    for table in tables:
        rows = shards_of(table) if table.paths else f"({rows_of_schema(table.schema)})"
        body = f"SELECT * FROM {rows}"
        if table.policy is not None:
            body = restricted_rows(rows, table.name, table.schema, table.policy)
        for name in (table.name, *((table.id,) if table.id in wanted else ())):
            connection.execute(f"CREATE TEMP VIEW {quoted(name)} AS {body}")


def _create_view(connection: duckdb.DuckDBPyConnection, name: str, table: Table) -> None:
    if table.view is not None:
        create_view(connection, name, table)
        return
    if table.link is not None:
        rows = f"({table.link.query(table.schema)})"
    else:
        rows = shards_of(table) if table.paths else f"({rows_of_schema(table.schema)})"
    kind = "TABLE" if table.explained or table.described else "VIEW"
    if table.policy is None:
        connection.execute(f"CREATE {kind} {quoted(name)} AS SELECT * FROM {rows}")
        if table.described:
            _describe(connection, name, table)
        return
    body = restricted_rows(rows, table.name, table.schema, table.policy)
    try:
        connection.execute(f"CREATE {kind} {quoted(name)} AS {body}")
        if table.described:
            _describe(connection, name, table)
    except (duckdb.ProgrammingError, duckdb.DataError) as error:
        # Without its text, which may show columns that are hidden.
        raise outdated(table.name, type(error).__name__) from None


def _describe(connection: duckdb.DuckDBPyConnection, name: str, table: Table) -> None:
    """Set NOT NULL and defaults of a described table, as far as the user sees them."""
    masked = {} if table.policy is None else table.policy.columns
    for field in table.schema:
        if field.name not in masked:
            column = f"ALTER TABLE {quoted(name)} ALTER COLUMN {quoted(field.name)}"
            if field.name in table.defaults:
                connection.execute(f"{column} SET DEFAULT ({table.defaults[field.name]}\n)")
            if not field.nullable:
                connection.execute(f"{column} SET NOT NULL")


def rows_of_schema(schema: Schema) -> str:
    """Return a query without rows that has the dataset's columns, for SHOW and DESCRIBE."""
    columns = ", ".join(
        f"NULL::{kind} AS {quoted(column)}" for column, kind in shard_types(schema).items()
    )
    return f"SELECT {columns} WHERE false"
