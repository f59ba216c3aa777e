"""The arithmetic of external memory: number of runs, fan-in and passes.

With W bytes of memory and N bytes of rows there are R = ceil(N / D) sorted runs of D < W bytes. A
merge holds one block of b bytes for each run it reads, so K = W / b runs; P = ceil(log_K R) passes.
One pass is enough iff W is about sqrt(N * b) or more (Aggarwal and Vitter, CACM 31(9), 1988). That
is where the square root of the engine's name comes from: it is sqrt-shaped external memory, a
depth-first evaluation of a tree of blocks whose frontier is K * b, with disk in the place of
re-evaluation. It is not the register reuse of Cook and Mertz (STOC 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PAGE_BYTES = 4 << 10
BLOCK_BYTES_MIN = 64 << 10
"""Blocks are smaller than this if W / 64 is: many small blocks cost less than another pass."""
BLOCK_BYTES_MAX = 512 << 10
FAN_IN_MAX = 256
"""The most files that are open at the same time."""
ENTRY_BYTES = 32
"""A row's entry and its scratch while a run is sorted."""
MERGE_OVERHEAD_BYTES = 16 << 10
"""A merge's own state, in addition to a block of each run and one for the output."""
TABLE_LOAD = 0.75
PARTITION_SLACK = 1.2
"""Headroom for partitions that are larger than the mean."""


@dataclass(frozen=True, slots=True)
class Merge:
    """How sorted runs are merged into one.

    Args:
        runs: R; 0 if all rows fit memory.
        fan_in: the most runs in one merge, K.
        passes: P; how often a row is read back at most.
        block_bytes: b, the block size of each run in a merge and of its output.
        run_bytes: D, the bytes of rows in one run.
    """

    runs: int
    fan_in: int
    passes: int
    block_bytes: int
    run_bytes: int


def run_payload(memory_bytes: int, row_bytes: float) -> int:
    """Return D: the bytes of rows that can be sorted in W bytes, less one block for spilling."""
    room = memory_bytes - min(BLOCK_BYTES_MAX, memory_bytes // 64)
    return max(1, int(room / (1 + ENTRY_BYTES / max(1.0, row_bytes))))


def plan_merge(gather_bytes: int, drain_bytes: int, input_bytes: float, row_bytes: float) -> Merge:
    """Plan the runs and merges of a sort.

    Args:
        gather_bytes: W while rows come in, at least `least_merge()`.
        drain_bytes: W while they are merged and leave, at most as much.
        input_bytes: N, all rows with their keys.
        row_bytes: rho, a row's mean size.
    """
    run_bytes = run_payload(gather_bytes, row_bytes)
    if input_bytes <= run_payload(drain_bytes, row_bytes):
        return Merge(0, 0, 0, 0, run_bytes)
    return merge_of(drain_bytes, math.ceil(input_bytes / run_bytes), run_bytes)


def merge_of(memory_bytes: int, runs: int, run_bytes: int) -> Merge:
    """Plan the merges of runs: one pass if possible, else with the full fan-in in the last merges.

    The first merges leave exactly K^(P - 1) runs, so that all later merges are full; this is the
    first step of a K-ary Huffman code.
    """
    room = memory_bytes - MERGE_OVERHEAD_BYTES
    fan_in = max(2, min(FAN_IN_MAX, room // least_block(memory_bytes) - 1))
    passes = 1
    # K = 4, 40 runs: 4^3 ≥ 40 > 4^2, so three passes.
    #
    #     level 1   40 runs → 16   only what leaves 4^2 runs: 8 merges, of 32 of the runs
    #     level 2   16 runs → 4    full merges
    #     level 3    4 runs → output
    while fan_in**passes < runs:
        passes += 1
    # Everything fits one merge: fewer runs than K leave each a larger block.
    if passes == 1:
        fan_in = max(2, runs)
    # K blocks to read and one to write.
    block = min(BLOCK_BYTES_MAX, room // (fan_in + 1))
    return Merge(runs, fan_in, passes, block, run_bytes)


def least_block(memory_bytes: int) -> int:
    """Return the smallest block that is worth reading with W bytes of memory."""
    return max(PAGE_BYTES, min(BLOCK_BYTES_MIN, memory_bytes // 64))


def least_merge() -> int:
    """Return the least memory in which any number of runs can be merged: three blocks."""
    return 3 * PAGE_BYTES + MERGE_OVERHEAD_BYTES


def one_pass_bytes(input_bytes: float, block_bytes: int = BLOCK_BYTES_MIN) -> int:
    """Return the memory from which one merge pass sorts N bytes: sqrt(1.25 * b * N)."""
    return math.ceil(math.sqrt(1.25 * block_bytes * input_bytes))


def partitions_for(memory_bytes: int, build_bytes: float) -> int:
    """Return F: the number of partitions that each fit memory; 1 if the whole build side fits."""
    if build_bytes <= memory_bytes:
        return 1
    wanted = math.ceil(PARTITION_SLACK * build_bytes / memory_bytes)
    # Each partition has a block to write from, and one more is for NULL keys.
    most = max(2, (memory_bytes - MERGE_OVERHEAD_BYTES) // least_block(memory_bytes) - 1)
    return max(2, min(wanted, most, FAN_IN_MAX))


def partition_levels(memory_bytes: int, build_bytes: float) -> int:
    """Return how often rows are partitioned until each partition fits; 0 if the whole side fits."""
    levels, left = 0, build_bytes
    # The bound is for estimates that are infinite.
    while left > memory_bytes and levels < 64:
        left = left * PARTITION_SLACK / partitions_for(memory_bytes, left)
        levels += 1
    return levels
