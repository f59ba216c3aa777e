"""Write batches as text with the kernel's formatters, one call for many rows.

Arrow's own functions take 20 µs for each column of a batch however few rows it has, and several passes
over each value. The kernel writes the types below with the same bytes; a batch with any other column is
left to Arrow's functions (`emsqrt.io.cells`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import pyarrow as pa

from emsqrt._kernel import Columns, CsvFormatter, JsonlFormatter, JsonRowsFormatter
from emsqrt.io.emitter import PIECE_BYTES

__all__ = ["KernelRows", "csv_rows", "json_rows", "jsonl_rows"]

_FIRST_BYTES = 4 << 10
_KINDS = {
    "Bool": 0, "Int8": 1, "Int16": 2, "Int32": 3, "Int64": 4, "UInt8": 5, "UInt16": 6, "UInt32": 7,
    "UInt64": 8, "Float32": 9, "Float64": 10, "Decimal": 11, "Utf8": 12, "Binary": 13, "Date": 3,
    "Time": 4, "Timestamp": 4, "Duration": 4,
}  # fmt: skip
"""The kernel's kind of each type (`columns.h`)."""
_NAMES = {
    pa.bool_(): "Bool", pa.int8(): "Int8", pa.int16(): "Int16", pa.int32(): "Int32",
    pa.int64(): "Int64", pa.uint8(): "UInt8", pa.uint16(): "UInt16", pa.uint32(): "UInt32",
    pa.uint64(): "UInt64", pa.float32(): "Float32", pa.float64(): "Float64", pa.string(): "Utf8",
    pa.binary(): "Binary", pa.date32(): "Date", pa.time64("us"): "Time",
}  # fmt: skip
_TEXT_KINDS = (12, 13)


class _Formatter(Protocol):
    def format(self, columns: Columns, start: int, out: memoryview, /) -> tuple[int, int]: ...


class KernelRows:
    """Writes the rows of batches of one schema.

    Args:
        formatter: One of the kernel's.
        kinds: The kernel's kind of each column.
    """

    def __init__(self, formatter: _Formatter, kinds: tuple[int, ...]) -> None:
        self._formatter = formatter
        self._kinds = kinds
        self._out = memoryview(bytearray(_FIRST_BYTES))

    def write(self, batch: pa.RecordBatch, put: Callable[[memoryview], object]) -> None:
        """Write all rows.

        Args:
            batch: The rows.
            put: Receives the text in pieces of whole rows, each valid during the call.
        """
        columns = Columns(batch.num_rows, list(map(_parts, self._kinds, batch.columns)))
        row, out = 0, self._out
        while row < batch.num_rows:
            following, size = self._formatter.format(columns, row, out)
            if following < batch.num_rows and len(out) < PIECE_BYTES:
                # Most results are short; longer ones are written in larger pieces.
                self._out = out = memoryview(bytearray(PIECE_BYTES))
            elif following == row:
                # One row is longer than the buffer, and gets one of its own.
                size_next, out = 2 * len(out), self._out
                out = memoryview(bytearray(size_next))
            else:
                put(out[:size])
                row, out = following, self._out


def json_rows(schema: pa.Schema) -> KernelRows | None:
    """Return what writes rows as JSON arrays, each after a comma; None if a type is not supported."""
    names = _type_names(schema)
    return None if names is None else KernelRows(JsonRowsFormatter(names), _kinds_of(names))


def jsonl_rows(schema: pa.Schema) -> KernelRows | None:
    """Return what writes rows as JSON Lines; None if a type or a name is not supported."""
    names = _type_names(schema)
    if names is None:
        return None
    try:
        formatter = JsonlFormatter(list(zip(schema.names, names, strict=True)))
    except (ValueError, UnicodeError):  # a name of a kilobyte
        return None
    return KernelRows(formatter, _kinds_of(names))


def csv_rows(schema: pa.Schema, delimiter: str) -> KernelRows | None:
    """Return what writes rows as CSV; None if a type is not supported.

    Args:
        schema: The columns.
        delimiter: A character that no number has.
    """
    names = _type_names(schema)
    if names is None:
        return None
    return KernelRows(CsvFormatter(names, delimiter=delimiter), _kinds_of(names))


def _type_names(schema: pa.Schema) -> list[str] | None:
    names = [_type_name(kind) for kind in schema.types]
    return None if not names or None in names else [name for name in names if name is not None]


@lru_cache(maxsize=1024)
def _type_name(kind: pa.DataType) -> str | None:
    """Return the kernel's name of a type; None if it has none."""
    if pa.types.is_decimal128(kind):
        return (
            f"Decimal({kind.precision},{kind.scale})" if 0 <= kind.scale <= kind.precision else None
        )
    if pa.types.is_timestamp(kind):
        return f"Timestamp({kind.unit})" if kind.tz is None else f"Timestamp({kind.unit},UTC)"
    if pa.types.is_duration(kind):
        return "Duration"
    return _NAMES.get(kind)


def _kinds_of(names: list[str]) -> tuple[int, ...]:
    return tuple(_KINDS[name.partition("(")[0]] for name in names)


def _parts(kind: int, column: pa.Array) -> tuple[int, int, Any, Any, Any]:
    buffers = column.buffers()
    if kind in _TEXT_KINDS:
        return kind, column.offset, buffers[0], buffers[2], buffers[1]
    return kind, column.offset, buffers[0], buffers[1], None
