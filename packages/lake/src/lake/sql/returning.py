"""RETURNING: the rows that a statement has changed, in a file that the node sends after its commit.

The clause is first bound by DuckDB in a statement of the same kind on an empty table, which refuses
what it may not have (subqueries, aggregates, window functions, names of other tables) with DuckDB's
words. What is left is computed row by row, so a SELECT over the changed rows has the same values, and
these need not be copied into a table.

With an access policy, the rows are shown as a query would show them: without hidden columns, and with
masked ones masked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.io.formats import FormatWriter, open_format, type_name
from lake.objects.durable import storage_errors
from lake.sql.batches import read_batches
from lake.sql.changing_statement import ChangingStatement
from lake.sql.duckdb_worker import translated_errors
from lake.sql.guard import check_statement, open_parser, placeholders
from lake.sql.policies import restricted_rows
from lake.sql.query_text import QueryText
from lake.sql.session import rows_of_schema
from lake.sql.tables import Table
from lake.sql.types import quoted
from lake.sql.write_statements import Insert, Merge, RowChange, Update
from sennit_core.errors import StorageFull, TooLarge, Unsupported
from sennit_core.private_files import FILE_MODE
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["ReturnedRows", "open_returned"]


class ReturnedRows:
    """The result of RETURNING, while it is written.

    Args:
        statement: The statement.
        write: Its parts.
        target: The changed dataset.
    """

    def __init__(self, statement: ChangingStatement, write: RowChange, target: Table) -> None:
        assert write.returning is not None, "only such a statement returns rows"
        self.rows = 0
        self._statement = statement
        self._target = target
        self._clause = write.returning.columns
        # INSERT knows the dataset by its name alone, as DuckDB does.
        self._alias = quoted(write.table if isinstance(write, Insert) else write.alias)
        self._file: _ResultFile | None = None
        self._writer: FormatWriter | None = None
        self._names = self._bound_names(write)

    def add(self, connection: duckdb.DuckDBPyConnection, rows: str) -> None:
        """Append rows.

        Args:
            connection: A connection of the statement.
            rows: A query of changed rows, with all columns of the dataset.
        """
        target = self._target
        if target.policy is not None:
            rows = restricted_rows(f"({rows})", target.name, target.schema, target.policy)
        text = f"SELECT {self._clause.text} FROM ({rows}) AS {self._alias}"
        self._append(connection.sql(text))

    def _append(self, relation: duckdb.DuckDBPyRelation) -> None:
        with read_batches(relation) as (schema, batches):
            writer = self._open(schema)
            for batch in batches:
                self._statement.context.check()
                self.rows += batch.num_rows
                writer.write(batch.rename_columns(self._names))

    def merge(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        """Run MERGE as it is written, which returns its rows itself, and append these."""
        self._append(connection.sql(sql, params=self._statement.params))

    def finish(self, connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
        """Write the end of the result; return the members of the response that describe it."""
        if self._writer is None:  # no row was changed
            self.add(connection, rows_of_schema(self._target.schema))
        assert self._writer is not None, "opened with the first rows"
        assert self._file is not None
        self._writer.finish()
        self._file.close()
        return {
            "returned": {
                "file": str(self._file.path),
                "rows": self._writer.rows,
                "truncated": self._writer.truncated,
                "columns": [
                    {"name": field.name, "type": type_name(field)} for field in self._writer.schema
                ],
            }
        }

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self, found: pa.Schema) -> FormatWriter:
        if self._writer is None:
            request = self._statement.request
            plain = request.get("plain")
            self._file = _ResultFile(
                self._statement,
                Path(request["folder"] if plain is None else plain["folder"]) / "returned",
                None if plain is None else int(plain["bytes"]),
                request.get("returnedBytes"),
            )
            schema = _renamed(found, self._names)
            self._writer = open_format(
                request.get("format") or "arrow",
                schema,
                self._file.write,
                max_rows=request.get("maxRows"),
            )
        return self._writer

    def _bound_names(self, write: RowChange) -> list[str]:
        """Bind the clause as DuckDB does; return the names of its columns."""
        target = self._target
        schema = target.schema
        checked = QueryText("SELECT ", self._clause, f" FROM {quoted(write.table)}")
        table, alias = quoted(write.table), self._alias
        if isinstance(write, Insert):
            before = f"INSERT INTO {table} SELECT * FROM {table} WHERE false"
        elif isinstance(write, Update):
            name = quoted(target.names[0])
            before = f"UPDATE {table} AS {alias} SET {name} = {name} WHERE false"
        elif isinstance(write, Merge):
            before = (
                f"MERGE INTO {table} AS {alias} USING (SELECT 1 WHERE false) ON false "
                "WHEN MATCHED THEN DELETE"
            )
        else:
            before = f"DELETE FROM {table} AS {alias} WHERE false"
        query = QueryText(f"{before} RETURNING ", self._clause)
        with checked.placed_errors(self._statement.sql):
            check_statement(checked.text, frozenset((write.table,)))
            if placeholders(checked.text):
                raise Unsupported(
                    "parameters in RETURNING, which DuckDB has not either",
                    hint="return the columns that the expression needs",
                )
        rows = f"({rows_of_schema(schema)})"
        if target.policy is not None:
            rows = f"({restricted_rows(rows, target.name, schema, target.policy)})"
        with (
            query.placed_errors(self._statement.sql),
            translated_errors(query.text, [target], self._statement.context),
            closing(open_parser()) as connection,
        ):
            connection.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM {rows}")
            found = connection.execute(query.text)
            return [column[0] for column in found.description]


class _ResultFile:
    """The file of a result, on the disk, or in memory if the statement reads encrypted datasets.

    Args:
        statement: The statement.
        path: The file.
        bytes_max: The most that may be in memory; None on the disk.
        sent_max: The most that is sent to another node; None for a statement of this one.
    """

    def __init__(
        self,
        statement: ChangingStatement,
        path: Path,
        bytes_max: int | None,
        sent_max: int | None,
    ) -> None:
        self.path = path
        self._statement = statement
        self._bytes_max = bytes_max
        self._sent_max = sent_max
        self._size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with storage_errors(path, 0):
            self._file = os.fdopen(os.open(path, flags, FILE_MODE), "wb", buffering=0)

    def write(self, piece: Any) -> None:
        size = memoryview(piece).nbytes
        self._size += size
        if self._sent_max is not None and self._size > self._sent_max:
            raise TooLarge(
                "what RETURNING sends to another node",
                self._sent_max,
                hint="return fewer columns, or change fewer rows in one statement",
            )
        if self._bytes_max is None:
            self._statement.budget.check(size)
        elif self._size > self._bytes_max:
            raise StorageFull(
                "the memory for decrypted data",
                self._size,
                self._bytes_max,
                message=f"the rows that the statement returns need more than "
                f"{format_bytes(self._bytes_max)} of memory for decrypted data",
                hint="return fewer columns, or change fewer rows in one statement",
            )
        with storage_errors(self.path, size):
            self._file.write(piece)

    def close(self) -> None:
        self._file.close()


def _renamed(schema: pa.Schema, names: list[str]) -> pa.Schema:
    for number, name in enumerate(names):
        schema = schema.set(number, schema.field(number).with_name(name))
    return schema


@contextmanager
def open_returned(
    statement: ChangingStatement, write: RowChange, target: Table
) -> Iterator[ReturnedRows | None]:
    """Open the result of a statement; None if it returns no rows."""
    if write.returning is None:
        yield None
        return
    returned = ReturnedRows(statement, write, target)
    try:
        yield returned
    finally:
        returned.close()
