"""Arithmetic of merges: fan-in, block sizes and number of passes.

N bytes of input are written as sorted runs of D bytes. A merge of K runs holds a block of each, so
K <= W / b, and P passes merge K^P runs. One pass is enough up to N of about W^2 / b (Aggarwal and
Vitter, CACM 31(9), 1988). Blocks shrink as runs are added, so that a few runs are read in large
blocks and many runs still fit, without knowing the size of the input (design/0036).
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
# The 8 of the formula in `block_bytes`: the first run has blocks of W / 64.
_SHARE = 8


def block_bytes(memory_bytes: int, runs: int) -> int:
    """Return the block size of the next run if there are `runs` already.

    The r-th run has blocks of W / (8 (r + 8)), so one block of each of R runs is W / 8 *
    ln((R + 8) / 8) in all. Blocks are never smaller than 64 KiB, or W / 64 if that is less.
    """
    # A floor of 64 KiB would be a large part of a small memory: below 4 MiB the floor is W / 64.
    least = max(_PAGE, min(_BLOCK_BYTES_MIN, memory_bytes // 64))
    wanted = memory_bytes // (_SHARE * (runs + _SHARE))
    return min(max(wanted, least), BLOCK_BYTES_MAX) // _PAGE * _PAGE


def merge_bytes(needs: Sequence[int]) -> int:
    """Return the memory to merge runs with these longest blocks, without the output."""
    return merger_bytes(len(needs)) + sum(needs)


def fan_in_of(memory_bytes: int, needs: Sequence[int]) -> int:
    """Return how many runs with blocks of typical size fit a merge; at least 2."""
    # The 90th percentile: otherwise a few runs with one very long row would lower the fan-in of all
    # merges. `choose_window` takes only runs whose own blocks fit.
    typical = sorted(needs)[len(needs) * 9 // 10]
    # What one more source adds to the merger's state, which is rounded up to multiples of 64 bytes.
    each = typical + merger_bytes(65) - merger_bytes(64) + 1
    return max(2, min(FAN_IN_MAX, (memory_bytes - merger_bytes(2)) // each))


def passes_of(runs: int, fan_in: int) -> int:
    """Return the fewest passes that merge `runs` runs: ceil(log_K R), at least 1."""
    passes, reach = 1, fan_in  # `reach` = K^P: the most runs that so many passes can merge
    while reach < runs:
        passes += 1
        reach *= fan_in
    return passes


def first_merge(runs: int, fan_in: int) -> int:
    """Return how many runs the next merge reads, so that all later merges are full.

    A merge of f runs leaves f - 1 runs fewer; the first merges leave exactly K^(P-1) runs.
    """
    # The runs that P - 1 full passes can merge. A narrow first merge reads few rows an extra time;
    # a narrow last merge would read all of them.
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
        count: how many runs to merge; fewer if their blocks do not fit.
        memory_bytes: the memory for the merge, without its output.

    Returns:
        The window; (0, 0) when no two runs fit.
    """
    # Prefix sums make the bytes of each window one subtraction.
    size_before = list(accumulate(sizes, initial=0))
    need_before = list(accumulate(needs, initial=0))
    # If no window of `count` runs fits, a narrower one is tried: a merge that removes fewer runs is
    # still progress.
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
    """The estimated cost of a sort.

    Args:
        runs: sorted runs, R; 0 if all rows fit memory.
        fan_in: the most runs that a merge may read, K.
        passes: how often each row is read back at most, P.
        block_bytes: the block size of the last run, b.
        run_bytes: bytes of rows in memory at a time, D.
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
        input_bytes: the bytes of all rows as they are stored, with keys, N.
        row_bytes: the bytes of an average row.
    """
    room = memory_bytes - block_bytes(memory_bytes, 0)
    # Every row of a run has an entry and sort scratch next to its bytes; D is what is left for the
    # bytes.
    run_bytes = max(1, room * row_bytes // (row_bytes + ENTRY_BYTES))
    if input_bytes <= run_bytes:
        return SortPlan(0, 0, 0, 0, run_bytes)
    runs = -(-input_bytes // run_bytes)
    # An estimate may have any number of runs; the bound keeps planning short.
    needs = [block_bytes(memory_bytes, run) for run in range(min(runs, 4 * FAN_IN_MAX))]
    if runs <= FAN_IN_MAX and merge_bytes(needs) <= memory_bytes:
        return SortPlan(runs, runs, 1, needs[-1], run_bytes)
    # A merge that is not the last one also holds the block that it writes.
    fan_in = fan_in_of(memory_bytes - needs[-1], needs)
    return SortPlan(runs, fan_in, max(2, passes_of(runs, fan_in)), needs[-1], run_bytes)
