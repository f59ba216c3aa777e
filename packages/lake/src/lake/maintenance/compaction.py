"""Chooses which small shards of a dataset become larger ones.

Many small appends leave many small files, each of which costs a query some of its time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sennit_core.records import ShardInfo, SnapshotInfo
from sennit_core.units import MIB

__all__ = ["RunChoice", "RunLimits", "small_runs"]

RunChoice: TypeAlias = Callable[[SnapshotInfo], list[list[int]]]
"""Returns the runs of a snapshot that are written anew, each the numbers of its shards."""

_SHARD_BYTES = 64 * MIB
_SMALL_BYTES = _SHARD_BYTES // 2


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Which runs of small shards are compacted.

    Args:
        runs_max: How many of them; None for all.
        shards_min: A run of fewer shards stays as it is.
    """

    runs_max: int | None = None
    shards_min: int = 2


def small_runs(shards: Sequence[ShardInfo], limits: RunLimits | None = None) -> list[list[int]]:
    """Return runs of shards of one partition, by their numbers, that together are one of usual size.

    Without partitions they are consecutive, so that rows keep their order.

    In each run the largest shard is at most half of the whole. So a row is written again only when its
    shard has doubled: O(log n) times, even if compaction follows each of n appends.
    """
    limits = limits or RunLimits()
    partitions: dict[tuple[tuple[str, object], ...], list[int]] = defaultdict(list)
    for number, shard in enumerate(shards):
        partitions[tuple(shard.partition.items())].append(number)
    runs = (run for numbers in partitions.values() for run in _runs(shards, numbers))
    found = [
        run
        for run in runs
        if len(run) >= limits.shards_min and _is_worth_it([shards[number] for number in run])
    ]
    return found[: limits.runs_max]


def _runs(shards: Sequence[ShardInfo], numbers: Sequence[int]) -> Iterator[list[int]]:
    run: list[int] = []
    size = 0
    for number in numbers:
        shard = shards[number]
        if shard.bytes > _SMALL_BYTES or size + shard.bytes > _SHARD_BYTES:
            yield run
            run, size = [], 0
        if shard.bytes <= _SMALL_BYTES:
            run.append(number)
            size += shard.bytes
    yield run


def _is_worth_it(run: Sequence[ShardInfo]) -> bool:
    sizes = [shard.bytes for shard in run]
    return len(run) > 1 and 2 * max(sizes) <= sum(sizes)
