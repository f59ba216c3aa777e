"""Memory for rows that are longer than the blocks in which an operator's output leaves it.

Readers reserve memory for long records (`ExecutionContext.reader_bytes`). Once a blocking operator
has read all of its input, that memory is free for the rows that those records became.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emsqrt.execution_context import ExecutionContext
from emsqrt.long_row import LongRow
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

_VARIED = ("Utf8", "Binary", "List", "Struct", "Map")
ROWS_HELD = 28
"""Grouping needs working memory for this many of its longest rows."""
ROW_COPIES = 3
"""Copies of a group: as it is read, as columns, and slack."""


def varies(schema: Schema) -> bool:
    """Return whether rows of the schema differ in length."""
    return any(field.type.name in _VARIED for field in schema)


@contextmanager
def room_for(
    row_bytes: int, out: memoryview, run: ExecutionContext, tag: str, copies: int = 1
) -> Iterator[memoryview]:
    """Yield `out`, or a larger buffer where a row needs it, for the length of a `with`.

    Args:
        row_bytes: length of the longest row.
        out: the buffer at hand.
        run: its budget pays for the buffer and for the batch of a row.
        tag: the operator's name.
        copies: how many copies of a row the buffer must hold.

    Raises:
        LongRow: the budget is too small.
    """
    room_bytes = copies * row_bytes
    if room_bytes <= len(out):
        yield out
        return
    guard = run.budget.try_acquire(room_bytes + row_bytes, tag)
    if guard is None:
        raise LongRow(
            cap_bytes=run.budget.free_bytes,
            needed_bytes=room_bytes + row_bytes,
            because=f"a row of the {tag} needs {format_bytes(row_bytes)}",
            row_bytes=row_bytes,
            memory="free",
        )
    with guard, memoryview(bytearray(room_bytes)) as room:
        yield room
