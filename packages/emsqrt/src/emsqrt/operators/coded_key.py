"""A group key that is read as dictionary codes: each text is looked up once for a batch."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from emsqrt._kernel import Columns
from emsqrt.execution_context import ExecutionContext
from emsqrt.expr import Column, columns_of
from emsqrt.external.layout import KINDS, Layout
from emsqrt.io.parquet_coded import Dictionary
from emsqrt.plan.nodes import Aggregate

_SHARE = 32
"""The dictionaries may use at most this fraction of the free memory; otherwise texts stay plain."""
_COUNT_MAX = 1 << 12
"""The most texts: looking each up must cost less than the rows of a batch."""


class CodableRows(Protocol):
    """An operator that can yield some of its text columns as dictionary arrays."""

    def codable(self) -> dict[str, Dictionary]:
        """Return those columns, and the sizes of their dictionaries."""

    def keep_coded(self, names: tuple[str, ...]) -> None:
        """Yield these columns as dictionary arrays."""


def keep_key_coded(rows: Any, node: Aggregate, layout: Layout, run: ExecutionContext) -> str | None:
    """Have the input yield the key as dictionary arrays, if that is possible; return its name.

    Args:
        rows: the input, with or without a meter.
        node: the aggregate.
        layout: of its groups.
        run: its budget pays for the dictionary.
    """
    below = getattr(rows, "passes_on", rows)
    # A run that can be resumed counts the rows of batches that were added whole.
    if not hasattr(below, "codable") or run.journal() is not None:
        return None
    if len(node.keys) != 1 or layout.values or layout.lists:
        return None
    key = node.keys[0][1]
    args = [agg.arg for _, agg in node.aggs if agg.arg is not None]
    if not isinstance(key, Column) or any(key.name in columns_of(arg) for arg in args):
        return None
    # Texts in states can be too long for the memory, which `Groups` finds for plain batches only.
    if any(part.kind in (KINDS["Utf8"], KINDS["Binary"]) for part in layout.parts):
        return None
    found: CodableRows = below
    dictionary = found.codable().get(key.name)
    if dictionary is None or dictionary.value_count > _COUNT_MAX:
        return None
    if dictionary.size_bytes > run.budget.free_bytes // _SHARE:
        return None
    run.admit(dictionary.size_bytes, "dictionaries", "they are small")
    found.keep_coded((key.name,))
    return key.name


def coded_key(column: Any) -> tuple[Columns, Any] | None:
    """Return a dictionary array as its distinct texts and a code for each row.

    None where some row is NULL: a code has no value for that.
    """
    texts, indices = column.dictionary, column.indices
    if column.null_count or texts.null_count or texts.offset or indices.type != pa.int32():
        return None
    _, ends, values = texts.buffers()
    keys = Columns(len(texts), [(KINDS["Utf8"], 0, None, values, ends)])
    _, codes = indices.buffers()
    return keys, codes.slice(4 * indices.offset, 4 * len(indices))
