"""Rows as an HTML table for notebooks, bounded in rows, columns and characters."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_MAX = 20
COLUMNS_MAX = 40
_CELL_CHARS_MAX = 100


def table_html(table: pa.Table) -> str:
    """Return the first rows and columns of a table; all text is escaped, NULL is grey."""
    names = table.column_names[:COLUMNS_MAX]
    first = table.select(list(range(len(names)))).slice(0, ROWS_MAX)
    columns = [column.to_pylist() for column in first.columns]
    types = [str(column.type) for column in first.columns]
    head = "".join(
        f'<th title="{escape(kind)}">{escape(name[:_CELL_CHARS_MAX])}</th>'
        for name, kind in zip(names, types, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in zip(*columns, strict=True))
    more = f", the first {first.num_rows} are shown" if table.num_rows > first.num_rows else ""
    hidden = table.num_columns - len(names)
    columns_text = f"{table.num_columns} columns" + (f" ({hidden} not shown)" if hidden else "")
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{table.num_rows} rows{more}, {columns_text}</p>"
    )


def _cell(value: object) -> str:
    if value is None:
        return '<td style="opacity:.5">NULL</td>'
    text = str(value)
    short = text if len(text) <= _CELL_CHARS_MAX else f"{text[: _CELL_CHARS_MAX - 1]}…"
    return f"<td>{escape(short)}</td>"
