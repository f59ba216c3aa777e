"""Text columns that pass through a sort as dictionary codes of one or two bytes each.

A Parquet file stores texts of few distinct values once in each row group. When they are read,
spilled and written as codes, they are never copied. The total size of all dictionaries is known
before the first row is read, so the width of a code is always sufficient.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol

import pyarrow as pa

from emsqrt.execution_context import ExecutionContext
from emsqrt.io.parquet_coded import Dictionary
from sennit_core.schema import DataType

_VALUE_BYTES = 200
"""Memory of a text as a Python object, with its code and its entry in a dict."""
_SHARE = 32
"""Dictionaries may use at most this fraction of the free memory; otherwise texts stay plain."""
_COUNT_MAX = 1 << 16


class CodableRows(Protocol):
    """A scan that can yield some of its text columns as dictionary codes."""

    def codable(self) -> dict[str, Dictionary]:
        """Return those columns, and the sizes of their dictionaries."""

    def keep_coded(self, names: Collection[str]) -> None:
        """Yield these columns as dictionary codes."""


class CodedText:
    """One column's texts, coded in the order of their first occurrence.

    Args:
        count_max: the most distinct texts.
    """

    def __init__(self, count_max: int) -> None:
        narrow = count_max <= 1 << 8
        self.type = DataType("UInt8" if narrow else "UInt16")
        self._count_max = count_max
        # `_places`  code of each text; a code never changes, so packed rows stay valid
        # `_last`    the dictionary of the last batch, `_table` its codes: index in it → code
        self._places: dict[str, int] = {}
        self._last: Any = None
        self._table: Any = None
        self._texts: Any = None

    def places(self, column: Any) -> Any:
        """Return the codes of a dictionary array's texts, as integers of `type`."""
        # Batches of one row group share a dictionary, so this is done once per row group.
        if self._last is None or not column.dictionary.equals(self._last):
            self._meet(column.dictionary)
        if column.null_count:
            return self._table.take(column.indices)
        found = self._table.to_numpy().take(column.indices.to_numpy(), mode="clip")  # valid indices
        return pa.Array.from_buffers(self._table.type, len(found), [None, pa.py_buffer(found)])

    @property
    def texts(self) -> Any:
        """The dictionary, once all rows were added."""
        if self._texts is None:
            self._texts = pa.array(list(self._places), pa.string())
        return self._texts

    def _meet(self, dictionary: Any) -> None:
        found = [
            self._places.setdefault(text, len(self._places)) for text in dictionary.to_pylist()
        ]
        assert len(self._places) <= self._count_max, "the reader rejects larger dictionaries"
        self._table = pa.array(found, self.type.to_arrow())
        self._last = dictionary


def code_texts(rows: Any, but: Iterable[str], run: ExecutionContext) -> dict[str, CodedText]:
    """Make a scan yield text columns as dictionary codes, if memory holds their dictionaries.

    Args:
        rows: the input, with or without a meter.
        but: columns whose values are compared, which stay plain.
        run: its budget pays for the dictionaries.
    """
    below = getattr(rows, "passes_on", rows)
    # A run that can be resumed keeps plain texts: codes mean nothing to another process.
    if not hasattr(below, "codable") or run.journal() is not None:
        return {}
    scan: CodableRows = below
    left_bytes = run.budget.free_bytes // _SHARE
    found: dict[str, CodedText] = {}
    for name, dictionary in scan.codable().items():
        size_bytes = dictionary.size_bytes + _VALUE_BYTES * dictionary.value_count
        if name in but or dictionary.value_count > _COUNT_MAX or size_bytes > left_bytes:
            continue
        run.admit(size_bytes, "dictionaries", "they are small")
        left_bytes -= size_bytes
        found[name] = CodedText(dictionary.value_count)
    if found:
        scan.keep_coded(found)
    return found
