"""Buffers for records: usually only the front is used, all of it for a longer record.

Small blocks stay in the processor's caches. The memory after the front is reserved address space;
it is not touched, and so not charged, until a record needs it.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import TypeAlias

from emsqrt.execution_context import ExecutionContext
from sennit_core.errors import TooLarge

# A buffer:
#
#     | front: used for every block | the rest: touched by a record that does not fit the front |
FRONT_BYTES = 1 << 18
PARSE_FRONT_BYTES = 1 << 17
_SHARE = 32
"""A whole buffer is this fraction of what is free, or its front where that is more."""

Fill: TypeAlias = Callable[[int, memoryview], tuple[int, int]]
"""Writes rows from an index on into memory, as many as fit; returns (next row, bytes)."""


def buffer_bytes(run: ExecutionContext, front_bytes: int = FRONT_BYTES) -> int:
    """Return the size of an operator's buffer with such a front."""
    run.expect_rows(_SHARE, "start")
    return max(front_bytes, run.budget.free_bytes // _SHARE, run.row_bytes)


def new_buffer(size_bytes: int) -> memoryview:
    """Return a buffer; its pages are allocated when they are written to."""
    return memoryview(mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def write_blocks(fill: Fill, row_count: int, room: memoryview) -> Iterator[tuple[int, int, int]]:
    """Write rows block by block; yield (first row, row after the last, bytes) of each.

    Raises:
        TooLarge: a row does not fit the whole buffer.
    """
    start = 0
    with room[:FRONT_BYTES] as front:
        while start < row_count:
            end, size = fill(start, front)
            if end == start:
                end, size = fill(start, room)
            if end == start:
                raise TooLarge(what="a record", limit_bytes=len(room), actual_bytes=2 * len(room))
            yield start, end, size
            start = end
