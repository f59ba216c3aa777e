"""A query's whole result, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any, Self

from lake.statements.text_tables import cell, table_lines
from sennit_core.optional import import_optional

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow as pa

    from lake.statements.running import RunningStatement

__all__ = ["Result"]

_SHOWN_ROWS = 20
_SHOWN_COLUMNS = 20


class Result:
    """A query's whole result, in memory; it iterates over its rows.

    Args:
        table: The rows.
        manifest: The execution's report: rows, bytes, columns, snapshots read.
    """

    def __init__(self, table: pa.Table, manifest: dict[str, Any]) -> None:
        self._table = table
        self._fetched = 0  # rows that `fetchone` has returned
        self.manifest = manifest

    @classmethod
    def of(cls, execution: RunningStatement) -> Self:
        """Read the whole result of a statement, of format `arrow`."""
        import pyarrow as pa

        from sennit_core.arrow_ipc import open_arrow

        stream = b"".join(bytes(payload) for payload in execution.payloads())
        manifest = execution.result()
        with pa.BufferReader(stream) as source, open_arrow(source, "the result") as reader:
            return cls(reader.read_all(), manifest)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._table.column_names)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The rows as tuples of Python values."""
        return _tuples(self._table)

    @property
    def value(self) -> Any:
        """The only value of a result of one row and one column."""
        if (self._table.num_rows, self._table.num_columns) != (1, 1):
            shape = f"{self._table.num_rows} rows and {self._table.num_columns} columns"
            raise ValueError(f"the result has {shape}, not one value")
        return self._table.column(0)[0].as_py()

    def arrow(self) -> pa.Table:
        """Return the rows as a `pyarrow.Table`."""
        return self._table

    def to_arrow(self) -> pa.Table:
        """Return the rows as a `pyarrow.Table`."""
        return self._table

    def df(self) -> pandas.DataFrame:
        """Return the rows as a `pandas.DataFrame`; needs pandas."""
        import_optional("pandas", ".df()")
        frame: pandas.DataFrame = self._table.to_pandas()
        return frame

    def pl(self) -> polars.DataFrame:
        """Return the rows as a `polars.DataFrame`; needs polars."""
        frame: polars.DataFrame = import_optional("polars", ".pl()").from_arrow(self._table)
        return frame

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, as DB-API cursors do; None after the last."""
        found = _tuples(self._table.slice(self._fetched, 1))
        self._fetched += len(found)
        return found[0] if found else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that `fetchone` has not returned."""
        found = _tuples(self._table.slice(self._fetched))
        self._fetched += len(found)
        return found

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for batch in self._table.to_batches():
            yield from _tuples(batch)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        head, rows = self._shown()
        return "\n".join([*table_lines(head, rows), self._shape()])

    def _repr_html_(self) -> str:
        """Return the first rows as HTML, which notebooks show."""
        head, rows = self._shown()
        lines = ["".join(f"<th>{escape(name)}</th>" for name in head)]
        lines += ["".join(f"<td>{escape(text)}</td>" for text in row) for row in rows]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table>{body}</table><p>{self._shape()}</p>"

    def _shown(self) -> tuple[list[str], list[list[str]]]:
        """Return the first rows and columns as text."""
        part = self._table.select(range(min(self._table.num_columns, _SHOWN_COLUMNS)))
        rows = [[cell(value) for value in row] for row in _tuples(part.slice(0, _SHOWN_ROWS))]
        return [cell(name) for name in part.column_names], rows

    def _shape(self) -> str:
        rows, columns = self._table.num_rows, self._table.num_columns
        first = []
        if rows > _SHOWN_ROWS:
            first.append(f"the first {_SHOWN_ROWS} rows")
        if columns > _SHOWN_COLUMNS:
            first.append(f"the first {_SHOWN_COLUMNS} columns")
        shape = f"{rows:,} row{'' if rows == 1 else 's'}"
        if columns > _SHOWN_COLUMNS:
            shape += f" and {columns:,} columns"
        return f"({shape}{'; ' if first else ''}{' and '.join(first)})"


def _tuples(table: pa.Table | pa.RecordBatch) -> list[tuple[Any, ...]]:
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns, strict=True))
