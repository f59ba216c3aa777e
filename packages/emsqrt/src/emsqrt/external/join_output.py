"""Code that all joins share: the kinds, what a table writes for each, and the output buffer.

A joined row is a row whose payload is `u32 left_bytes, u32 right_bytes`, the left payload and the
right payload; a side without a row has the length `ABSENT`. Its key is empty, the left row's
number, or both rows' numbers; rows of equal keys stay in the order in which they were written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from emsqrt.external.output_buffer import OutputBuffer
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emsqrt._kernel import JoinTable

HashJoinKind = Literal["inner", "left", "right", "full", "semi", "anti"]

ABSENT = 0xFFFF_FFFF
NUMBER_BYTES = 8  # of a row's number in a spilled row
JOINED_HEAD_BYTES = 32  # the most bytes of a joined row without both payloads

# As in _kernel/join.h.
PAIRS, UNMATCHED, MATCHED, MARK, SWAPPED, SEQUENCED, RIGHT_SEQUENCED, OFFSET_NUMBERS = (
    1 << n for n in range(8)
)

# The key of a joined row: two row numbers, u64 big-endian.
#
#     byte   0  1  2 … 7 │ 8  9  10 … 15
#            left number   right number
#
# Bytes 0, 1, 8 and 9 are zero below 2^48, with one exception: the number of a missing left row is
# eight bytes FF, so that unmatched right rows sort last. Byte 1 is enough to recognise it.
NUMBER_POSITIONS = bytes([1, *range(2, 8), *range(10, 16)])
"""Where the keys of joined rows differ, for a Merger: two numbers below 2^48."""
LEFT_POSITIONS = NUMBER_POSITIONS[:7]
"""The same where only left rows have numbers."""


@dataclass(frozen=True, slots=True)
class Emission:
    """The rows that a join of one kind writes while it probes, and at the end.

    Args:
        flags: for `JoinTable.probe`.
        drained: stored rows to write at the end: True for those that matched, False for the others.
    """

    flags: int
    drained: bool | None = None


FORWARD: dict[HashJoinKind, Emission] = {
    "inner": Emission(PAIRS),
    "left": Emission(PAIRS | UNMATCHED),
    "right": Emission(PAIRS | MARK, drained=False),
    "full": Emission(PAIRS | UNMATCHED | MARK, drained=False),
    "semi": Emission(MATCHED),
    "anti": Emission(UNMATCHED),
}
"""The left side probes a table of the right one."""

REVERSED: dict[HashJoinKind, Emission] = {
    "inner": Emission(PAIRS | SWAPPED),
    "left": Emission(PAIRS | MARK | SWAPPED, drained=False),
    "right": Emission(PAIRS | UNMATCHED | SWAPPED),
    "full": Emission(PAIRS | UNMATCHED | MARK | SWAPPED, drained=False),
    "semi": Emission(MARK | SWAPPED, drained=True),
    "anti": Emission(MARK | SWAPPED, drained=False),
}
"""The right side probes a table of the left one."""

KEEPS_LEFT = frozenset({"left", "full", "anti"})
"""Kinds that write left rows without a match."""
KEEPS_RIGHT = frozenset({"right", "full"})
"""Kinds that write right rows without a match."""
LEFT_ONLY = frozenset({"semi", "anti"})
"""Kinds that write no right row at all."""


def sequenced_flags(how: HashJoinKind) -> int:
    """Return which sides need row numbers for an ordered result.

    The matches of a left row are in the order of the right side already. Only unmatched right rows
    have to be sorted, by their own numbers.
    """
    return SEQUENCED | RIGHT_SEQUENCED if how in KEEPS_RIGHT else SEQUENCED


@dataclass(slots=True)
class JoinStats:
    """Statistics of a join, for the manifest.

    Args:
        partitions: partitions that were joined, in all levels; 0 if everything fitted memory.
        levels: how often a row was partitioned at most.
        reversals: partitions of which the left side was built and the right side probed.
        nested_loops: partitions that did not shrink, and were joined slice by slice.
        slices: the slices of all nested loops.
        merged_bytes: bytes of sorted left rows that were merged with a sorted right side.
        spilled_bytes: all bytes spilled, including runs of joined rows, before compression.
    """

    partitions: int = 0
    levels: int = 0
    reversals: int = 0
    nested_loops: int = 0
    slices: int = 0
    merged_bytes: int = 0
    spilled_bytes: int = 0


class JoinOutput:
    """A buffer of joined rows, and how full it is.

    Args:
        memory: must hold the longest joined row.
        block_bytes: fill no more of it than this, unless one row is longer; None for all.
    """

    def __init__(self, memory: memoryview, block_bytes: int | None = None) -> None:
        self.memory = memory
        # `_end`: where filling stops, `_block_bytes` except for one row that is longer.
        # `_rows_flushed`: the rows of all blocks so far, for `is_due`.
        self._block_bytes = self._end = min(block_bytes or len(memory), len(memory))
        self._rows_flushed = 0
        self.filled = self.rows = 0

    @property
    def is_due(self) -> bool:
        """Whether the buffer holds as many rows as were flushed before, in all.

        So blocks double from one row up to a full block: a consumer that needs a few rows gets them
        early, and one that needs all rows gets few blocks.
        """
        return 0 < self.rows >= self._rows_flushed

    def output_buffer(self) -> OutputBuffer:
        """Return the same memory as the output buffer of a merge."""
        return OutputBuffer(self.memory, block_bytes=self._block_bytes)

    def room(self) -> memoryview:
        """Return the memory that is not filled yet."""
        return self.memory[self.filled : self._end]

    def wrote(self, filled: int, rows: int) -> None:
        """Count bytes and rows that were written into `room()`."""
        self.filled += filled
        self.rows += rows

    def flush(self) -> tuple[int, int]:
        """Return (bytes, rows) at the start of the memory, which is filled again from the start.

        (0, 0) means that the next row is longer than a block; `room()` is large enough now.

        Raises:
            CapTooSmall: a row is longer than the memory.
        """
        # Not a single row was written although all of the memory was offered.
        if self.filled == 0 and self._end == len(self.memory):
            raise CapTooSmall(
                cap_bytes=len(self.memory),
                needed_bytes=2 * len(self.memory),
                because="a joined row is longer than the block it is written to",
            )
        # An empty flush means that the next row is longer than a block: offer it all of the memory,
        # once.
        self._end = self._block_bytes if self.filled else len(self.memory)
        self._rows_flushed += self.rows
        flushed = self.filled, self.rows
        self.filled = self.rows = 0
        return flushed

    def flush_rows(self) -> tuple[memoryview, int]:
        """Return what `flush` returns, with a view of the bytes."""
        filled, rows = self.flush()
        return self.memory[:filled], rows


def drain(table: JoinTable, emission: Emission, flag: int, joined: JoinOutput) -> Iterator[bool]:
    """Write the stored rows that belong at the end; yield False whenever `joined` is full."""
    done = emission.drained is None
    while not done:
        *wrote, done = table.drain(joined.room(), bool(emission.drained), emission.flags | flag)
        joined.wrote(*wrote)
        if not done:
            yield False
