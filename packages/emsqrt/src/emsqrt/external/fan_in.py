"""How many runs a merge takes, how large blocks are, how many passes it needs: arithmetic alone.

Sorted runs of D bytes are cut from N bytes of input; a merge of K of them holds a block of each,
so K <= W / b, and P passes merge K^P runs. One pass is enough up to N of about W^2 / b (Aggarwal
and Vitter, CACM 31(9), 1988): blocks shrink as runs are added, so that few runs are read in large
pieces and many still fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from emsqrt._kernel import merger_bytes

BLOCK_BYTES_MAX = 512 << 10
FAN_IN_MAX = 256  # files open at a time
ENTRY_BYTES = 32  # a row's entry and its scratch while sorting
_PAGE = 4096
_BLOCK_BYTES_MIN = 64 << 10
_SHARE = 8


def block_bytes(memory_bytes: int, runs: int) -> int:
    """Bytes of the blocks of the next run, when there are `runs` already.

    The r-th run takes W / (8 (r + 8)): all blocks of R runs are W / 8 * ln((R + 8) / 8) together,
    until they reach 64 KiB, or W / 64 where that is less.
    """
    least = max(_PAGE, min(_BLOCK_BYTES_MIN, memory_bytes // 64))
    wanted = memory_bytes // (_SHARE * (runs + _SHARE))
    return min(max(wanted, least), BLOCK_BYTES_MAX) // _PAGE * _PAGE


def merge_bytes(needs: Sequence[int]) -> int:
    """Memory to merge runs whose longest blocks have these bytes, apart from the output."""
    return merger_bytes(len(needs)) + sum(needs)


def fan_in_of(memory_bytes: int, needs: Sequence[int]) -> int:
    """How many runs with blocks like most of these fit a merge; 2 at least."""
    typical = sorted(needs)[len(needs) * 9 // 10]
    each = typical + merger_bytes(65) - merger_bytes(64) + 1
    return max(2, min(FAN_IN_MAX, (memory_bytes - merger_bytes(2)) // each))


def passes_of(runs: int, fan_in: int) -> int:
    """The fewest passes that merge so many runs: ceil(log_K R), 1 at least."""
    passes, reach = 1, fan_in
    while reach < runs:
        passes += 1
        reach *= fan_in
    return passes


def first_merge(runs: int, fan_in: int) -> int:
    """How many runs the next merge takes, so that all later ones are full.

    Merging f runs leaves f - 1 fewer; only as many are merged now as leave K^(P-1).
    """
    left: int = fan_in ** (passes_of(runs, fan_in) - 1)
    return min(fan_in, runs - left + 1)


def choose_window(
    sizes: Sequence[int], needs: Sequence[int], count: int, memory_bytes: int
) -> tuple[int, int]:
    """Choose which neighbours to merge: [start, stop) with the fewest bytes in all.

    Only neighbours, because rows with equal keys stay in the order of the runs.

    Args:
        sizes: bytes of each run.
        needs: the longest block of each run.
        count: how many; fewer are taken where their blocks do not fit.
        memory_bytes: for the merge apart from its output.

    Returns:
        The window; (0, 0) when no two runs fit.
    """
    size_before = list(accumulate(sizes, initial=0))
    need_before = list(accumulate(needs, initial=0))
    for width in range(count, 1, -1):
        room = memory_bytes - merger_bytes(width)
        fitting = [
            (size_before[start + width] - size_before[start], start)
            for start in range(len(sizes) - width + 1)
            if need_before[start + width] - need_before[start] <= room
        ]
        if fitting:
            start = min(fitting)[1]
            return start, start + width
    return 0, 0


@dataclass(frozen=True, slots=True)
class SortPlan:
    """What sorting so many bytes will take.

    Args:
        runs: sorted runs, R; 0 when all fits memory.
        fan_in: runs a merge may take, K.
        passes: how often each row is read back at most, P.
        block_bytes: of the last run, b.
        run_bytes: rows in memory at a time, D.
    """

    runs: int
    fan_in: int
    passes: int
    block_bytes: int
    run_bytes: int


def plan_sort(memory_bytes: int, input_bytes: int, row_bytes: int) -> SortPlan:
    """Plan a sort before it runs.

    Args:
        memory_bytes: the working memory, W.
        input_bytes: all rows as the store holds them, keys included, N.
        row_bytes: of an average row.
    """
    room = memory_bytes - block_bytes(memory_bytes, 0)
    run_bytes = max(1, room * row_bytes // (row_bytes + ENTRY_BYTES))
    if input_bytes <= run_bytes:
        return SortPlan(0, 0, 0, 0, run_bytes)
    runs = -(-input_bytes // run_bytes)
    needs = [block_bytes(memory_bytes, run) for run in range(min(runs, 4 * FAN_IN_MAX))]
    if runs <= FAN_IN_MAX and merge_bytes(needs) <= memory_bytes:
        return SortPlan(runs, runs, 1, needs[-1], run_bytes)
    fan_in = fan_in_of(memory_bytes - needs[-1], needs)
    return SortPlan(runs, fan_in, max(2, passes_of(runs, fan_in)), needs[-1], run_bytes)
