"""The result of a query or a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from elytra.client.table_html import table_html
from sennit_core.errors import UsageError
from sennit_core.optional import import_optional

if TYPE_CHECKING:  # heavy imports that only one method each needs
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_SHOWN_ROWS = 20


class Result:
    """A complete result, held as an Arrow table.

    Args:
        table: The rows.
        manifest: How the result was computed: plan hash, engine, bytes, peak memory.
    """

    def __init__(self, table: pa.Table, manifest: dict[str, Any] | None = None) -> None:
        self._table = table
        self.manifest: dict[str, Any] = manifest or {}

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """The inputs that it lacks: those of poisoned tasks, in a job with `on_poison="skip"`."""
        return list(self.manifest.get("skipped") or [])

    def to_arrow(self) -> pa.Table:
        """Return the rows as a pyarrow Table (no copy)."""
        return self._table

    def arrow(self) -> pa.Table:
        """The same as `to_arrow`, named like `df` and `pl`."""
        return self._table

    def df(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame; needs pandas installed."""
        import_optional("pandas", ".df()")
        frame: pd.DataFrame = self._table.to_pandas()
        return frame

    def pl(self) -> pl.DataFrame:
        """Return the rows as a polars DataFrame; needs polars installed."""
        frame: pl.DataFrame = import_optional("polars", ".pl()").from_arrow(self._table)
        return frame

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self._table.column_names)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The rows as tuples of Python values."""
        return list(self)

    @property
    def value(self) -> Any:
        """The value of a result of one row and one column, such as that of `count()`.

        Raises:
            UsageError: The result has another shape.
        """
        if self._table.shape != (1, 1):
            rows, columns = self._table.shape
            raise UsageError(
                f"a result of {rows} rows and {columns} columns is not one value",
                hint="use .rows, .df() or .to_arrow()",
            )
        return self._table.column(0)[0].as_py()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        columns = [column.to_pylist() for column in self._table.columns]
        return iter(zip(*columns, strict=True))

    def __str__(self) -> str:
        head = list(Result(self._table.slice(0, _SHOWN_ROWS)))
        texts = [self.columns, *([_cell(value) for value in row] for row in head)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in texts
        ]
        if len(self) > _SHOWN_ROWS:
            lines.append(f"... {len(self) - _SHOWN_ROWS} rows more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the first rows and columns as a table for notebooks."""
        return table_html(self._table)

    def __repr__(self) -> str:
        return f"<Result of {len(self)} rows: {', '.join(self.columns)}>"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
