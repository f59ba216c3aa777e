"""Freed memory that the allocator keeps for the next batch.

What goes back to the kernel comes back one page at a time, cleared, for a fault each: with every
batch that is decoded, unpacked and written, a tenth of a sort of Parquet. So where there is room, a
part of it is reserved for the end of the heap to stay.
"""

from __future__ import annotations

from emsqrt._kernel import keep_freed
from emsqrt.memory.budget import MemoryBudget

KEPT_TAG = "freed blocks"
KEPT_BYTES = 5 << 20
"""What passes at a time: rows that are read and decoded, or unpacked and cut."""
_SHARE = 5
_BLOCK_SHARE = 4
"""A block of the heap is one part in so many of that at most: larger ones are mapped."""
_THRESHOLD_BYTES = 256 << 10
"""Otherwise, as `emsqrt.lean` sets it."""


def keep_freed_blocks(budget: MemoryBudget) -> int:
    """Have freed blocks kept where that takes a small part; return how many bytes to reserve."""
    if budget.free_bytes < _SHARE * KEPT_BYTES:
        keep_freed(_THRESHOLD_BYTES, _THRESHOLD_BYTES)
        return 0
    return KEPT_BYTES if keep_freed(KEPT_BYTES, KEPT_BYTES // _BLOCK_SHARE) else 0
