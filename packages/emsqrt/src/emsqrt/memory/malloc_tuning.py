"""Let malloc keep freed memory for the next batch.

Memory that was returned to the kernel is faulted in again page by page, and each page is cleared.
With every batch that is decoded, unpacked and written, this costs a tenth of the time of a Parquet
sort. So if the cap allows it, a part of the budget is reserved for the free end of the heap.
"""

from __future__ import annotations

from emsqrt._kernel import keep_freed
from emsqrt.memory.budget import MemoryBudget

KEPT_TAG = "freed blocks"
KEPT_BYTES = 5 << 20
"""The memory of one batch while it is read and decoded, or unpacked and cut."""
_SHARE = 5
"""Keep freed memory only if at least this many times `KEPT_BYTES` are free."""
_BLOCK_SHARE = 4
"""Blocks larger than this fraction of `KEPT_BYTES` are mapped, not allocated on the heap."""
_THRESHOLD_BYTES = 256 << 10
"""Both thresholds if nothing is kept, as `emsqrt.process_setup` sets them."""


def keep_freed_blocks(budget: MemoryBudget) -> int:
    """Let malloc keep freed blocks if the budget is large enough; return the bytes to reserve."""
    # Too little memory: blocks of the threshold's size and more go back to the kernel when they are
    # freed.
    if budget.free_bytes < _SHARE * KEPT_BYTES:
        keep_freed(_THRESHOLD_BYTES, _THRESHOLD_BYTES)
        return 0
    return KEPT_BYTES if keep_freed(KEPT_BYTES, KEPT_BYTES // _BLOCK_SHARE) else 0
