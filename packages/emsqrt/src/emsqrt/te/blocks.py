"""One operator's tree of blocks: runs are the leaves, merges of bounded fan-in are above them.

    level 2              output
                    ┌──────┼──────┐
    level 1       run     run    run
                 ┌─┼─┐     │     ┌┴┐
    runs         ▢ ▢ ▢     ▢     ▢ ▢

A run has D bytes. A merge has up to K inputs, and K * b + overhead bytes of memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from emsqrt.plan import Join
from emsqrt.planner.physical import PhysicalNode
from emsqrt.planner.work import NodeWork
from emsqrt.te import formulas
from emsqrt.te.formulas import MERGE_OVERHEAD_BYTES, Merge, merge_of, plan_merge

STATE_BYTES = 16
"""Bytes of one aggregate's state in a hash table, without the key."""
MERGE_JOIN_BYTES = 4 << 20
"""Memory for a window over the right side and a few blocks; more would not make it faster."""
REST_SHARE = 8
"""Fraction (1 / 8) of a merge join's memory that buffers unmatched right rows before they spill."""
KEY_SHARE = 0.25
"""Size of the key that is copied in front of a row, as a fraction of the row's bytes."""


@dataclass(frozen=True, slots=True)
class Level:
    """The merges of one pass; none of them reads the output of another.

    Args:
        level: 1 for the merges of the first runs; the output of a level is the input of the next.
        fan_in: the most runs in one merge, K.
        block_bytes: the size of a block, b.
        merges: the number of merges.
        runs_before: runs when the level begins.
        runs_after: runs when it ends; 1 after the last level, whose output is not stored.
        peak_bytes: K * b + overhead: a block of each run, one of the output, the merge's state.
        bytes: bytes that the level reads back, and also writes unless it is the last level.
    """

    level: int
    fan_in: int
    block_bytes: int
    merges: int
    runs_before: int
    runs_after: int
    peak_bytes: int
    bytes: float


@dataclass(frozen=True, slots=True)
class Blocks:
    """How one operator uses the memory that it is granted.

    Args:
        merge: R, K, P, b, D of its runs.
        partitions: F of a join, 1 if its build side fits memory.
        partition_levels: how often rows are partitioned; 0 if the build side fits memory.
        levels: its merges, from the first runs up.
        spill_bytes: estimated bytes written to disk, before compression.
    """

    merge: Merge
    partitions: int
    partition_levels: int
    levels: tuple[Level, ...]
    spill_bytes: float


@dataclass(frozen=True, slots=True)
class Grants:
    """Memory that one operator may use.

    Args:
        gather_bytes: from its first input row until its input has ended and a single merge of its
            runs is left.
        drain_bytes: from then on until its last output row; never more than `gather_bytes`.
    """

    gather_bytes: int
    drain_bytes: int


def plan_blocks(node: PhysicalNode, work: NodeWork, grants: Grants) -> Blocks:
    """Cut an operator's work into blocks that fit its grants."""
    if node.operator == "join":
        return _join_blocks(node, work, grants.drain_bytes)
    rows, row_bytes = _held(node, work)
    if node.operator == "sort" and node.holding == "passes":  # files that are sorted already
        return Blocks(Merge(0, 0, 0, 0, grants.drain_bytes), 1, 0, (), 0.0)
    merge = plan_merge(grants.gather_bytes, grants.drain_bytes, rows * row_bytes, row_bytes)
    if node.operator in ("aggregate", "distinct") and merge.runs:
        merge = _partial_runs(work, grants, row_bytes)
    levels = merge_levels(merge, rows * row_bytes)
    written = rows * row_bytes * (merge.runs > 0)
    written += sum(level.bytes for level in levels[:-1])
    return Blocks(merge, 1, 0, levels, written)


def wanted_bytes(node: PhysicalNode, work: NodeWork) -> float:
    """Return the memory in which the operator would spill nothing, from the estimates."""
    if node.operator == "join" and node.holding == "passes":
        return MERGE_JOIN_BYTES
    if node.operator == "join":
        return formulas.PARTITION_SLACK * _build_bytes(node, work)
    rows, row_bytes = _held(node, work)
    # All rows with their entries, 5 % more, and one block to write from.
    return rows * (row_bytes + formulas.ENTRY_BYTES) * 1.05 + formulas.BLOCK_BYTES_MAX


def _held(node: PhysicalNode, work: NodeWork) -> tuple[float, float]:
    """Return the number of rows that an operator holds, and the mean bytes of a row."""
    row_bytes = max(1.0, work.row_bytes)
    match node.operator:
        case "aggregate" | "distinct":
            # A hash table is full before all of its memory is used.
            return work.groups, max(row_bytes, STATE_BYTES) / formulas.TABLE_LOAD
        # These keep only the rows that they return.
        case "top_k" if node.strategy == "heap":
            return work.rows_out, row_bytes * (1 + KEY_SHARE)
        case "sample" | "expect":
            return work.rows_out, row_bytes * (1 + KEY_SHARE)
    rows = sum(work.rows_in)
    each = sum(work.bytes_in) / rows if rows else row_bytes
    return rows, each * (1 + KEY_SHARE)


def _partial_runs(work: NodeWork, grants: Grants, row_bytes: float) -> Merge:
    """Plan the runs of partial states that an aggregate spills each time its table is full."""
    table = formulas.run_payload(grants.gather_bytes, row_bytes)
    # A group whose rows are far apart has a state in several runs; about two were measured.
    seen = max(work.groups, min(sum(work.rows_in), work.groups * 2))
    runs = math.ceil(seen * row_bytes / table)
    return merge_of(grants.drain_bytes, max(2, runs), table)


def _build_bytes(node: PhysicalNode, work: NodeWork) -> float:
    rows, size = work.rows_in[node.build], work.bytes_in[node.build]
    return size * (1 + KEY_SHARE) + rows * formulas.ENTRY_BYTES / 2


def _join_blocks(node: PhysicalNode, work: NodeWork, memory_bytes: int) -> Blocks:
    #     merge join     spills unmatched right rows
    #     cross          spills the right side
    #     hash, fits     spills nothing
    #     partitions     both sides once per level; with order, also the joined rows
    none = Merge(0, 0, 0, 0, memory_bytes)
    if node.holding == "passes":
        return Blocks(none, 1, 0, (), _unmatched_bytes(node, work, memory_bytes))
    build = _build_bytes(node, work)
    if isinstance(node.logical, Join) and node.logical.how == "cross":
        return Blocks(none, 1, 0, (), build * (build > memory_bytes))
    cut = formulas.partition_levels(memory_bytes, build)
    if not cut:
        return Blocks(none, 1, 0, (), 0.0)
    both = sum(work.bytes_in) * (1 + KEY_SHARE)
    parts = formulas.partitions_for(memory_bytes, build)
    if node.choice is not None and not node.choice.ordered:
        return Blocks(none, parts, cut, (), both * cut)
    # A merge brings the output of the partitions back into the order of the left side.
    out_bytes = work.bytes_out * (1 + KEY_SHARE)
    merge = plan_merge(memory_bytes, memory_bytes, out_bytes, work.row_bytes)
    levels = merge_levels(merge, work.bytes_out)
    spilled = both * cut + work.bytes_out * (merge.runs > 0) * max(1, merge.passes)
    return Blocks(merge, parts, cut, levels, spilled)


def _unmatched_bytes(node: PhysicalNode, work: NodeWork, memory_bytes: int) -> float:
    """Return the bytes of unmatched right rows, which come last, that a merge join spills."""
    if not isinstance(node.logical, Join) or node.logical.how not in ("right", "full"):
        return 0.0
    left, right = work.rows_in
    # If every left row is written at least once, what is written beyond them is at most this many
    # right rows without a match.
    unmatched = min(right, max(0.0, work.rows_out - left))
    size = unmatched * work.bytes_in[1] / max(1.0, right) * (1 + KEY_SHARE)
    return size * (size > memory_bytes / REST_SHARE)


def merge_levels(merge: Merge, input_bytes: float) -> tuple[Level, ...]:
    """Return the merges of each level; early levels merge only enough runs to fill later ones."""
    levels: list[Level] = []
    runs = merge.runs
    for level in range(1, merge.passes + 1):
        # The full tree above this level can merge K^(levels left) runs: only what is more must be
        # merged here.
        after = min(runs, merge.fan_in ** (merge.passes - level))
        merges, largest = _merges(runs, after, merge.fan_in)
        if not merges:
            continue
        # Each merge of f runs leaves one: `merges` merges that make the list shorter by `runs -
        # after` read `runs - after + merges` runs. The other runs go up a level unread.
        merged = runs - after + merges
        peak = (largest + 1) * merge.block_bytes + MERGE_OVERHEAD_BYTES
        size = input_bytes * merged / runs
        levels.append(
            Level(len(levels) + 1, largest, merge.block_bytes, merges, runs, after, peak, size)
        )
        runs = after
    return tuple(levels)


def _merges(runs: int, after: int, fan_in: int) -> tuple[int, int]:
    """Return how many merges of up to `fan_in` runs leave `after` runs, and the largest fan-in."""
    fewer = runs - after
    if fewer == 0:
        return 0, 0
    # A merge of K runs leaves K - 1 fewer.
    merges = -(-fewer // (fan_in - 1))
    return merges, min(fan_in, fewer + 1)
