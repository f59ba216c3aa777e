"""Room for rows that are longer than the block in which others leave an operator.

Readers have something left over for long records (`Run.reader_bytes`). Once an operator that takes
in all of its input begins to give, that is free for the rows which these records became.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emsqrt.long_row import LongRow
from emsqrt.run import Run
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

_VARIED = ("Utf8", "Binary", "List", "Struct", "Map")
ROWS_HELD = 28
"""Who groups works in so many of its longest rows at least."""
ROW_COPIES = 3
"""A group as it is read, as columns, and slack."""


def varies(schema: Schema) -> bool:
    """Whether one row may be longer than another."""
    return any(field.type.name in _VARIED for field in schema)


@contextmanager
def room_for(
    row_bytes: int, out: memoryview, run: Run, tag: str, copies: int = 1
) -> Iterator[memoryview]:
    """Give `out`, or more where that is needed, for the length of a `with`.

    Args:
        row_bytes: what the longest row takes.
        out: what there is.
        run: whose budget is asked, for the room and for the batch that is made of a row.
        tag: for whom.
        copies: how often the row lies in the room.

    Raises:
        LongRow: there is not that much.
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
            because=f"a row of the {tag} takes {format_bytes(row_bytes)}",
            row_bytes=row_bytes,
            place="beside",
        )
    with guard, memoryview(bytearray(room_bytes)) as room:
        yield room
