"""Let malloc keep freed memory for the next batch.

Memory that was returned to the kernel is faulted in again page by page, and each page is cleared.
With every batch that is decoded, unpacked and written, this costs a tenth of the time of a Parquet
sort. So if the cap allows it, a part of the budget is reserved for the free end of the heap.
"""

from __future__ import annotations

from emsqrt._kernel import keep_freed, release_freed
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


def keep_freed_blocks(budget: MemoryBudget, kept_bytes: int = KEPT_BYTES) -> int:
    """Let malloc keep freed blocks if the budget is large enough; return the bytes to reserve.

    Args:
        budget: The budget that they would be reserved from.
        kept_bytes: How much may be kept.
    """
    # Too little memory: blocks of the threshold's size and more go back to the kernel when they are
    # freed.
    if budget.free_bytes < _SHARE * kept_bytes:
        keep_freed(_THRESHOLD_BYTES, _THRESHOLD_BYTES)
        return 0
    return kept_bytes if keep_freed(kept_bytes, kept_bytes // _BLOCK_SHARE) else 0


def return_freed_blocks() -> None:
    """End `keep_freed_blocks`: from now on, freed blocks go back to the kernel."""
    keep_freed(_THRESHOLD_BYTES, _THRESHOLD_BYTES)
    release_freed()
