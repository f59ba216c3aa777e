"""Joining partition by partition: hash, reversed hash, finer partitions, or slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from emsqrt._kernel import JoinTable, join_alone
from emsqrt.external.join_journal import JoinJournal, Pair, Partitions
from emsqrt.external.joined import (
    FIRST,
    FORWARD,
    KEEPS_LEFT,
    KEEPS_RIGHT,
    LEFT_ONLY,
    LONE,
    NUMBER_POSITIONS,
    PAIRS,
    REVERSED,
    SEQUENCED,
    Emission,
    HashJoinKind,
    JoinedOut,
    JoinStats,
    drain,
)
from emsqrt.external.nested_loop import NestedLoop
from emsqrt.external.partition import PartitionWriter, blocks_of, fan_out_max, partition_bytes

if TYPE_CHECKING:
    from emsqrt.external.runs import Runs
    from emsqrt.spill import Segment, SegmentWriter, SpillManager

ENTRY_BYTES = 12  # what a stored row takes beside itself
LEVELS_MAX = 8
_SHRINKS = 0.6  # a partition that keeps more of what it was cut from has a hot key


class PartitionedJoin:
    """Joins the partitions of two sides one after another.

    Its generators yield each time `joined` is to be emptied: True at the end of what is in order.

    Args:
        memory: to work in, given to each partition in turn.
        spill: where the partitions lie.
        how: the kind of join.
        journal: knows the partitions of the right side, or the pairs that an earlier run left.
        ordered: the rows that come out have a key that puts them in order. Then left rows have
            their numbers before their payloads, and right rows where they come out.
        row_bytes_max: of rows that are partitioned again.
        name: of the segments.
        stats: counted up.
        check: called often.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        memory: memoryview,
        spill: SpillManager,
        how: HashJoinKind,
        journal: JoinJournal,
        *,
        ordered: bool,
        row_bytes_max: int,
        name: str,
        stats: JoinStats,
        check: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._spill = spill
        self._how: HashJoinKind = how
        self._journal = journal
        self._ordered = ordered
        self._flag = SEQUENCED if ordered else 0
        self._row_bytes_max = row_bytes_max
        self._name = name
        self._stats = stats
        self._check = check
        self._pairs = journal.pairs or []

    def blocks(self, left: Partitions, out: memoryview) -> Iterator[tuple[int, int]]:
        """Join all partitions; yield (bytes, rows) of joined rows at the start of `out`."""
        joined = JoinedOut(out)
        for pair in self._each(left):
            for ends in self._join(pair, self._memory, joined):
                if not ends:
                    yield joined.take()
            self._journal.ended()
        if joined.rows:
            yield joined.take()

    def write_runs(self, left: Partitions, runs: Runs) -> None:
        """Join all partitions; what each gives becomes one run, or one for each slice."""
        for pair in self._each(left):
            split = len(self._memory) - max(pair.joined_bytes_max, runs.block_bytes)
            out = self._memory[split:]
            joined = JoinedOut(out, runs.block_bytes)
            writer: SegmentWriter | None = None
            try:
                for ends in self._join(pair, self._memory[:split], joined):
                    if joined.rows or not ends:
                        filled, rows = joined.take()
                        writer = writer or runs.create()
                        writer.append(out[:filled], rows)  # nothing before a long row
                    if ends and writer is not None:
                        runs.add(writer.finish())
                        writer = None
            finally:
                if writer is not None:
                    writer.abort()
            self._journal.ended()
            if runs.is_crowded():
                runs.thin_out(NUMBER_POSITIONS)

    def _each(self, left: Partitions) -> Iterator[Pair]:
        """Yield pair after pair, those that a pair was split into next; tell each one's end."""
        if self._journal.pairs is None:
            assert self._journal.right is not None, "it was partitioned before the left side"
            pairs = [Pair(*sides) for sides in zip(left, self._journal.right, strict=True)]
            *_, nulls = pairs
            pairs[-1:] = [Pair(nulls.left, None), Pair(None, nulls.right)]
            self._pairs = pairs[::-1]
            self._journal.probed(self._pairs)
        while self._pairs:
            pair = self._pairs.pop()
            self._check()
            self._journal.began(pair)
            yield pair

    def _join(self, pair: Pair, memory: memoryview, joined: JoinedOut) -> Iterator[bool]:
        left, right = pair.left, pair.right
        self._stats.levels = max(self._stats.levels, pair.level)
        block, room = memory[: pair.block_bytes], memory[pair.block_bytes :]
        if left is None or right is None:
            yield from self._alone(pair, block, joined)
            return
        is_hot = pair.level >= LEVELS_MAX or (
            pair.cut_from_bytes is not None and right.raw_bytes > _SHRINKS * pair.cut_from_bytes
        )
        self._stats.partitions += 1
        if _fits(right, room):
            yield from self._hash(right, left, FORWARD[self._how], block, room, joined)
        elif _fits(left, room) and (not self._ordered or self._how in LEFT_ONLY):
            self._stats.reversals += 1
            yield from self._hash(left, right, REVERSED[self._how], block, room, joined)
        elif not is_hot:
            self._stats.partitions -= 1
            self._split(pair, block, room)
        elif self._how in LEFT_ONLY and (table := self._load(right, block, room)) is not None:
            yield from self._probe(table, left, FORWARD[self._how], block, joined)
        else:
            yield from self._nested(pair, left, right, memory, joined)
        yield True

    def _alone(self, pair: Pair, block: memoryview, joined: JoinedOut) -> Iterator[bool]:
        """Write the rows of a partition whose other side is empty, where the kind keeps them."""
        is_right = pair.left is None
        if self._how not in (KEEPS_RIGHT if is_right else KEEPS_LEFT):
            return
        for rows, _ in blocks_of(pair.right if is_right else pair.left, self._spill, block):
            at = 0
            while at < len(rows):
                at, *wrote, _ = join_alone(rows, at, joined.room(), is_right, self._ordered)
                joined.wrote(*wrote)
                if at < len(rows):
                    yield False
        yield True

    def _hash(
        self,
        build: Segment,
        probe: Segment,
        emission: Emission,
        block: memoryview,
        room: memoryview,
        joined: JoinedOut,
    ) -> Iterator[bool]:
        table = JoinTable(room)
        for rows, _ in blocks_of(build, self._spill, block):
            taken = table.add_rows(rows)
            assert taken == len(rows), "what fits is known"
        table.index()
        yield from self._probe(table, probe, emission, block, joined)

    def _probe(
        self,
        table: JoinTable,
        probe: Segment,
        emission: Emission,
        block: memoryview,
        joined: JoinedOut,
    ) -> Iterator[bool]:
        # A reversed semi or anti join probes with right rows, which have no numbers, and writes none.
        writes = emission.flags & (PAIRS | LONE | FIRST)
        flags = emission.flags | (self._flag if writes else 0)
        for rows, _ in blocks_of(probe, self._spill, block):
            at = 0
            while at < len(rows):
                at, *wrote, _ = table.probe(rows, at, joined.room(), flags)
                joined.wrote(*wrote)
                if at < len(rows):
                    yield False
        yield from drain(table, emission, self._flag, joined)

    def _load(self, right: Segment, block: memoryview, room: memoryview) -> JoinTable | None:
        """Return a table of the right side's keys, each once; None when these do not fit."""
        table = JoinTable(room)
        for rows, _ in blocks_of(right, self._spill, block):
            at = 0
            while (at := table.add_rows(rows, at, keys_only=True)) < len(rows):
                before = table.rows_bytes
                table.distinct()
                if table.rows_bytes > before * 3 // 4:
                    return None
        table.index()
        return table

    def _split(self, pair: Pair, block: memoryview, room: memoryview) -> None:
        """Cut a partition into finer ones, which come next."""
        assert pair.left is not None, "both sides have rows"
        assert pair.right is not None, "both sides have rows"
        buffers = room[: partition_bytes(len(self._memory))]
        wanted_fan_out = -(-pair.right.raw_bytes * 13 // (10 * len(room)))
        fan_out = min(fan_out_max(len(buffers)), max(2, wanted_fan_out))
        sides: list[list[Segment | None]] = []
        for side, segment in (("right", pair.right), ("left", pair.left)):
            writer = PartitionWriter(
                buffers,
                self._spill,
                fan_out,
                pair.level,
                name=f"{self._name}.{side}",
                numbered=False,
                row_bytes_max=self._row_bytes_max,
                wanted=self._wanted(sides[0]) if sides else None,
            )
            try:
                for rows, _ in blocks_of(segment, self._spill, block):
                    self._check()
                    writer.add(rows)
                sides.append(writer.finish())
            finally:
                self._stats.spilled_bytes += writer.spilled_bytes
                writer.abort()
        right, left = sides
        for one, other in zip(reversed(left), reversed(right), strict=True):
            if one is not None or other is not None:
                self._pairs.append(Pair(one, other, pair.level + 1, pair.right.raw_bytes))

    def _wanted(self, right: list[Segment | None]) -> list[bool]:
        return [self._how in KEEPS_LEFT or segment is not None for segment in right]

    def _nested(
        self,
        pair: Pair,
        left: Segment,
        right: Segment,
        memory: memoryview,
        joined: JoinedOut,
    ) -> Iterator[bool]:
        self._stats.nested_loops += 1
        loop = NestedLoop(
            memory, pair.block_bytes, self._spill, self._how, self._flag, f"{self._name}.bits"
        )
        yield from loop.join(left, right, joined)
        self._stats.slices += loop.slices


def _block_bytes(segment: Segment | None) -> int:
    return 0 if segment is None else segment.block_raw_max


def _fits(segment: Segment, room: memoryview) -> bool:
    return segment.raw_bytes + segment.rows * ENTRY_BYTES + 16 <= len(room)
