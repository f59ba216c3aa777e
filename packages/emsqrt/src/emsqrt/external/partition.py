"""Partition rows into spilled segments by the hash of their keys (Grace partitioning).

    memory     | buffer 0 | buffer 1 | … | buffer of NULL keys |     a full buffer is one block
                    ↓          ↓                   ↓
    segments     0: ▤▤▤     1: ▤▤        …      NULL: ▤

A partition that is too large is partitioned again; each level hashes with another seed, so that its
bits do not depend on those of the level above.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emsqrt._kernel import Partitioner
from emsqrt.external.join_output import NUMBER_BYTES
from emsqrt.long_row import LongRow
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt.spill import Segment, SegmentWriter, SpillManager

FAN_OUT_MAX = 64  # files open at a time
_BUFFER_BYTES_MIN = 8 << 10  # of each partition
_MEMORY_MAX = 8 << 20  # larger buffers gain nothing but room for a longer row
_MEMORY_SHARE = 4
_LONG_ROW_SHARE = 32


def partition_bytes(memory_bytes: int, row_bytes: int = 0) -> int:
    """Return the memory of a join that partitioning uses, for rows of up to `row_bytes` bytes."""
    # The larger of
    #     a quarter of the memory, but not more than 8 MiB;
    #     a 32nd of it: joins pack rows of up to a 48th (text) or a 64th without `row_bytes`;
    #     the longest known row, up to a quarter.
    wanted = min(memory_bytes // _MEMORY_SHARE, _MEMORY_MAX)
    return max(
        wanted, memory_bytes // _LONG_ROW_SHARE, min(row_bytes, memory_bytes // _MEMORY_SHARE)
    )


def fan_out_max(buffers_bytes: int) -> int:
    """Return the most partitions that fit buffers of `buffers_bytes` in all; at least 2."""
    # One buffer more than partitions: for rows with a NULL in their key.
    return max(2, min(FAN_OUT_MAX, buffers_bytes // _BUFFER_BYTES_MIN - 1))


@dataclass(frozen=True, slots=True)
class PartitionFunction:
    """Decides which partition a row belongs to, if any.

    Args:
        fan_out: the number of partitions, without the one for NULL.
        level: 0 for input, 1 for a partition of it, …; each level uses other bits of the hash.
        bounds: the first keys of all ranges but the first; None to partition by hash.
        key_filter: memory of a filter of the other side's keys, if unmatched rows are dropped.
        fills: whether these rows' keys are added to the filter; else the filter drops rows.
    """

    fan_out: int
    level: int = 0
    bounds: tuple[bytes, ...] | None = None
    key_filter: memoryview | None = None
    fills: bool = False

    def over(self, memory: memoryview) -> Partitioner:
        """Return the kernel's partitioner for this function, with its buffers in `memory`."""
        if self.bounds is not None:
            return Partitioner(memory, self.fan_out, self.level, bounds=self.bounds)
        return Partitioner(
            memory, self.fan_out, self.level, key_filter=self.key_filter, fills=self.fills
        )


class PartitionWriter:
    """Writes rows to the segments of their partitions, in order; rows with a NULL key to one more.

    Args:
        memory: the partitions' buffers.
        spill: the spill manager for the segments.
        function: the partition function.
        name: the name of the segments.
        first: write each row's number before its payload, counted from this one; None for no
            numbers.
        row_bytes_max: longer rows are refused.
        wanted: whether each partition, the one for NULL last, is kept; all when None.
    """

    def __init__(  # noqa: PLR0913 - settings of both its users
        self,
        memory: memoryview,
        spill: SpillManager,
        function: PartitionFunction,
        *,
        name: str,
        first: int | None,
        row_bytes_max: int,
        wanted: list[bool] | None = None,
    ) -> None:
        self._memory = memory
        self._spill = spill
        self._name = f"{name}.{function.level}"
        self._partitioner = function.over(memory)
        self._row_bytes_max = row_bytes_max
        self._writers: list[SegmentWriter | None] = [None] * (function.fan_out + 1)
        self._wanted = wanted or [True] * (function.fan_out + 1)
        self._next = -1 if first is None else first
        self.spilled_bytes = 0

    def add(self, block: Buffer, start: int = 0) -> None:
        """Add a block's rows from byte `start` on."""
        with memoryview(block) as whole:
            at, size = start, len(whole)
            while at < size:
                at, full, self._next = self._partitioner.add_rows(whole, at, self._next)
                # An empty buffer that still refuses the row: the row is longer than a buffer.
                if full >= 0 and not self._flush(full):
                    at = self._add_whole(whole, at, full)

    @property
    def next_number(self) -> int:
        """The number of the next row."""
        return self._next

    def count_from(self, first: int) -> None:
        """Number rows from now on, beginning with `first`; earlier rows had numbers already."""
        self._next = first

    def finish(self) -> list[Segment | None]:
        """Return the partitions' segments, the one for NULL keys last; None for an empty one."""
        for partition in range(len(self._writers)):
            self._flush(partition)
        finished = [None if writer is None else writer.finish() for writer in self._writers]
        self._writers.clear()
        return finished

    def abort(self) -> None:
        """Remove the segments, unless they were finished."""
        for writer in self._writers:
            if writer is not None:
                writer.abort()
        self._writers.clear()

    def _flush(self, partition: int) -> bool:
        """Spill a partition's buffer; return False if it was empty."""
        start, stop, rows = self._partitioner.pop(partition)
        self._append(partition, self._memory[start:stop], rows)
        return rows > 0

    def _add_whole(self, block: memoryview, at: int, partition: int) -> int:
        """Spill a row that is longer than a buffer as a block of its own."""
        # The row is written through the memory of all buffers, so all must be empty.
        for other in range(len(self._writers)):
            self._flush(other)
        (row_bytes,) = struct.unpack_from("<I", block, at)
        row_bytes += NUMBER_BYTES if self._next >= 0 else 0
        if row_bytes > self._row_bytes_max:
            raise too_long(row_bytes, self._row_bytes_max)
        after, stored = self._partitioner.add_whole(block, at, self._next)
        assert stored == row_bytes, "the memory of all partitions holds the longest row"
        self._append(partition, self._memory[:stored], 1)
        self._next += self._next >= 0
        return after

    def _append(self, partition: int, rows_view: memoryview, rows: int) -> None:
        # Rows of a partition that nothing will be joined with are dropped here, not spilled.
        if rows == 0 or not self._wanted[partition]:
            return
        writer = self._writers[partition]
        if writer is None:
            writer = self._writers[partition] = self._spill.create(f"{self._name}.{partition}")
        writer.append(rows_view, rows)
        self.spilled_bytes += len(rows_view)


def blocks_of(
    segment: Segment | None, spill: SpillManager, buffer: memoryview
) -> Generator[tuple[memoryview, int]]:
    """Yield each block of a segment, read into `buffer`, and its number of rows."""
    if segment is None:
        return
    with spill.open(segment) as reader:
        while True:
            size, rows = reader.read_into(buffer)
            if size == 0:
                return
            yield buffer[:size], rows


def too_long(row_bytes: int, row_bytes_max: int) -> CapTooSmall:
    """Return the error for a row that is too long for a join's memory."""
    return LongRow(
        cap_bytes=row_bytes_max * 8,
        needed_bytes=row_bytes * 8,
        because=f"a row of the join has {row_bytes} bytes, and the most is an eighth of its memory",
        row_bytes=row_bytes,
    )
