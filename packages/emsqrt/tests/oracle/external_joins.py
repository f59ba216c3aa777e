"""Running an external join over rows made by hand, and rows to run it over."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

from emsqrt.external import ExternalJoin, JoinStats
from emsqrt.external.join_oracle import KIB, Joined, Row, blocks, key, read
from emsqrt.external.join_output import HashJoinKind, JoinOutput
from emsqrt.spill import SpillManager


@dataclass
class Answer:
    rows: list[Joined]
    stats: JoinStats
    partitioned: bool
    blocks: list[int]
    """How many rows came at a time."""


def run(
    how: HashJoinKind,
    left: list[Row],
    right: list[Row],
    memory_bytes: int,
    *,
    ordered: bool = True,
    build_left: bool = False,
    block_rows: int = 100,
    out_bytes: int = 128 * KIB,
) -> Answer:
    rows: list[Joined] = []
    counts: list[int] = []
    with tempfile.TemporaryDirectory() as folder, SpillManager(folder, codec="none") as spill:
        memory, out = memoryview(bytearray(memory_bytes)), memoryview(bytearray(out_bytes))
        joined = JoinOutput(out)
        join = ExternalJoin(memory, spill, how, ordered=ordered, build_left=build_left)
        built, probing = (left, right) if build_left else (right, left)
        for rows_block in blocks(built, block_rows):
            join.add_build(rows_block)
        join.finish_build()
        for rows_block in blocks(probing, block_rows):
            for size, count in join.probe(rows_block, joined):
                rows += read(out[:size])
                counts.append(count)
        for size, count in join.finish(joined):
            rows += read(out[:size])
            counts.append(count)
        answer = Answer(rows, join.stats, join.is_partitioned, counts)
        join.close()
        assert spill.stats.live_bytes == 0
        return answer


def spread(seed: int, count: int, distinct: int, hot: float, nulls: float) -> list[bytes]:
    """Keys of which a share is one and the same, and a share NULL."""
    keys, state = [], seed * 2 + 1
    for _ in range(count):
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        share = (state >> 40) / (1 << 24)
        if share < hot:
            keys.append(key(7))
        elif share < hot + nulls:
            keys.append(b"")
        else:
            keys.append(key((state >> 20) % distinct))
    return keys
