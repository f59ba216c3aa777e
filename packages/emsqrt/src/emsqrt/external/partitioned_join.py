"""Join partition by partition: hash, reversed hash, finer partitions, or slice by slice.

The first of these that applies to a partition (design/0037):

1. One side is empty: write the other one, if the kind keeps unmatched rows.
2. The right side fits memory: hash join.
3. The left side fits memory: hash join with the sides swapped, if the order can be restored or does
   not matter.
4. It was not cut yet, or its right side has at most 0.6 of the bytes of the one that it was cut
   from and its level is below 8: cut it, by other bits of the hash.
5. Semi and anti joins: a table of the right side's distinct keys, if that fits.
6. Block nested loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from emsqrt._kernel import JoinTable, null_extend_rows
from emsqrt.external.join_journal import JoinJournal, Pair
from emsqrt.external.join_output import (
    FORWARD,
    KEEPS_LEFT,
    KEEPS_RIGHT,
    LEFT_ONLY,
    REVERSED,
    Emission,
    HashJoinKind,
    JoinOutput,
    JoinStats,
    drain,
)
from emsqrt.external.joined_sort import JoinedSort, sort_bytes_min
from emsqrt.external.nested_loop import NestedLoop
from emsqrt.external.partition import (
    PartitionFunction,
    PartitionWriter,
    blocks_of,
    fan_out_max,
)
from emsqrt.external.sorted_build import ENTRY_BYTES

if TYPE_CHECKING:
    from emsqrt.external.runs import Runs
    from emsqrt.spill import Segment, SegmentWriter, SpillManager

LEVELS_MAX = 8  # a partition of this level counts as one of equal keys: no hash has split it
_SHRINKS = 0.6  # a partition that keeps more of what it was cut from has a hot key


class PartitionedJoin:
    """Joins the partitions of two sides one after another.

    Its generators yield each time `joined` must be emptied: True at the end of a sorted sequence.

    Args:
        memory: the working memory, used for one partition at a time.
        spill: the spill manager with the partitions.
        how: the kind of join.
        journal: has the pairs of partitions that are to be joined, the next one last.
        sequenced: flags of the sides whose rows have their numbers before their payloads; joined
            rows have these numbers as their key.
        row_bytes_max: the longest row that is partitioned again.
        buffers_bytes: the memory of partition buffers.
        name: the name of the segments.
        stats: the statistics to update.
        check: called often.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        memory: memoryview,
        spill: SpillManager,
        how: HashJoinKind,
        journal: JoinJournal,
        *,
        sequenced: int,
        row_bytes_max: int,
        buffers_bytes: int,
        name: str,
        stats: JoinStats,
        check: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._spill = spill
        self._how: HashJoinKind = how
        self._sequenced = sequenced
        self._row_bytes_max = row_bytes_max
        self._buffers_bytes = buffers_bytes
        self._name = name
        self._stats = stats
        self._check = check
        self._journal = journal
        self._pairs = journal.pairs or []

    def blocks(self, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        """Join all partitions; yield (bytes, rows) of joined rows at the start of `joined`."""
        for pair in self._each():
            for ends in self._join(pair, self._memory, joined):
                if not ends:
                    yield joined.flush()
            self._journal.ended()
        if joined.rows:
            yield joined.flush()

    def write_runs(self, runs: Runs, positions: bytes) -> None:
        """Join all partitions; the output of each becomes one run, or one run per slice.

        Args:
            runs: receives the runs.
            positions: where their keys may differ.
        """
        for pair in self._each():
            #     | block of either side | table or partition buffers | joined rows |
            #       `block_bytes`                                       `out`
            split = len(self._memory) - max(pair.joined_bytes_max, runs.block_bytes)
            memory, out = self._memory[:split], self._memory[split:]
            # The runs' keys are the left rows' numbers, so a run must be written in the order of
            # the left side. That is the order of probing with the left side; with the right side,
            # the output is sorted.
            if self._is_to_sort(pair, memory):
                self._write_sorted(pair, memory, JoinOutput(out), runs)
            else:
                self._write_run(pair, memory, JoinOutput(out, runs.block_bytes), runs)
            self._journal.ended()
            if runs.has_too_many():
                runs.merge_some(positions)

    def _write_run(self, pair: Pair, memory: memoryview, joined: JoinOutput, runs: Runs) -> None:
        writer: SegmentWriter | None = None
        try:
            for ends in self._join(pair, memory, joined):
                if joined.rows or not ends:
                    rows, count = joined.flush_rows()
                    writer = writer or runs.create()
                    # A run ends where the order begins anew: at the end of a partition, or of a
                    # slice of a nested loop.
                    writer.append(rows, count)  # nothing before a long row
                if ends and writer is not None:
                    runs.add(writer.finish())
                    writer = None
        finally:
            if writer is not None:
                writer.abort()

    def _is_to_sort(self, pair: Pair, memory: memoryview) -> bool:
        """Return whether only the left side fits memory, with room to sort the output."""
        left, right = pair.left, pair.right
        if left is None or right is None or self._how in LEFT_ONLY:
            return False
        # At least half of the room is for sorting, and enough for one row and one block in any
        # case.
        room = len(memory) - pair.block_bytes
        least = max(room // 2, sort_bytes_min(room, pair.joined_bytes_max))
        return _table_bytes(right) > room and _table_bytes(left) + least <= room

    def _write_sorted(self, pair: Pair, memory: memoryview, joined: JoinOutput, runs: Runs) -> None:
        """Build the left side, and write the output as runs of as many rows as can be sorted."""
        left, right = pair.left, pair.right
        assert left is not None, "both sides have rows"
        assert right is not None, "both sides have rows"
        block, room = memory[: pair.block_bytes], memory[pair.block_bytes :]
        split = _table_bytes(left)
        sort = JoinedSort(room[split:], runs)
        for _ in self._hash(left, right, REVERSED[self._how], block, room[:split], joined):
            sort.add(joined.flush_rows()[0])
        if joined.rows:
            sort.add(joined.flush_rows()[0])
        sort.flush()
        self._stats.partitions += 1
        self._stats.reversals += 1
        self._stats.levels = max(self._stats.levels, pair.level)

    def _each(self) -> Iterator[Pair]:
        """Yield all pairs; after a pair that was split, its finer pairs come next."""
        # Depth first: at each level, the pairs of at most one split are waiting.
        while self._pairs:
            pair = self._pairs.pop()
            self._check()
            self._journal.began(pair)
            yield pair

    def _join(self, pair: Pair, memory: memoryview, joined: JoinOutput) -> Iterator[bool]:
        left, right = pair.left, pair.right
        self._stats.levels = max(self._stats.levels, pair.level)
        block, room = memory[: pair.block_bytes], memory[pair.block_bytes :]
        if left is None or right is None:
            yield from self._join_one_sided(pair, block, joined)
            return
        # Rows of one key stay in one partition with any hash; splitting it again would only copy
        # them.
        is_hot = pair.level >= LEVELS_MAX or (
            pair.cut_from_bytes is not None and right.raw_bytes > _SHRINKS * pair.cut_from_bytes
        )
        self._stats.partitions += 1
        # The first that applies; cheapest first (design/0037).
        if _fits(right, room):
            yield from self._hash(right, left, FORWARD[self._how], block, room, joined)
        elif _fits(left, room) and (not self._sequenced or self._how in LEFT_ONLY):
            self._stats.reversals += 1
            yield from self._hash(left, right, REVERSED[self._how], block, room, joined)
        elif not is_hot:
            # It is counted again as its parts.
            self._stats.partitions -= 1
            self._split(pair, block, room)
        # A hot key is one entry of a table of distinct keys.
        elif self._how in LEFT_ONLY and (table := self._load(right, block, room)) is not None:
            yield from self._probe(table, left, FORWARD[self._how], block, joined)
        else:
            yield from self._nested(pair, left, right, memory, joined)
        yield True

    def _join_one_sided(self, pair: Pair, block: memoryview, joined: JoinOutput) -> Iterator[bool]:
        """Write the rows of a partition whose other side is empty, where the kind keeps them."""
        is_right = pair.left is None
        if self._how not in (KEEPS_RIGHT if is_right else KEEPS_LEFT):
            return
        for rows, _ in blocks_of(pair.right if is_right else pair.left, self._spill, block):
            at = 0
            while at < len(rows):
                at, *wrote, _ = null_extend_rows(rows, at, joined.room(), is_right, self._sequenced)
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
        joined: JoinOutput,
    ) -> Iterator[bool]:
        table = JoinTable(room)
        for rows, _ in blocks_of(build, self._spill, block):
            added = table.add_rows(rows)
            assert added == len(rows), "`_fits` was checked before"
        table.index()
        yield from self._probe(table, probe, emission, block, joined)

    def _probe(
        self,
        table: JoinTable,
        probe: Segment,
        emission: Emission,
        block: memoryview,
        joined: JoinOutput,
    ) -> Iterator[bool]:
        flags = emission.flags | self._sequenced
        for rows, _ in blocks_of(probe, self._spill, block):
            at = 0
            while at < len(rows):
                at, *wrote, _ = table.probe(rows, at, joined.room(), flags)
                joined.wrote(*wrote)
                if at < len(rows):
                    yield False
        yield from drain(table, emission, self._sequenced, joined)

    def _load(self, right: Segment, block: memoryview, room: memoryview) -> JoinTable | None:
        """Return a table of the right side's distinct keys; None if they do not fit."""
        table = JoinTable(room)
        for rows, _ in blocks_of(right, self._spill, block):
            at = 0
            while (at := table.add_rows(rows, at, keys_only=True)) < len(rows):
                before = table.rows_bytes
                table.distinct()
                # Fewer than a quarter were duplicates: the rows to come would soon fill it again.
                if table.rows_bytes > before * 3 // 4:
                    return None
        table.index()
        return table

    def _split(self, pair: Pair, block: memoryview, room: memoryview) -> None:
        """Split a partition into finer ones, which are joined next."""
        assert pair.left is not None, "both sides have rows"
        assert pair.right is not None, "both sides have rows"
        buffers = room[: self._buffers_bytes]
        # 1.3 times as many partitions as would just fit, because they are not equally large.
        wanted = -(-self._build_bytes(pair.left, pair.right) * 13 // (10 * len(room)))
        fan_out = min(fan_out_max(len(buffers)), max(2, wanted))
        sides = [
            ("right", pair.right, self._how in KEEPS_RIGHT),
            ("left", pair.left, self._how in KEEPS_LEFT),
        ]
        # The smaller side first: rows of the other one are not even written where their partition
        # of the first side is empty, unless the join keeps rows without a match.
        sides.sort(key=lambda side: side[1].raw_bytes)
        parts: dict[str, list[Segment | None]] = {}
        for side, segment, keeps in sides:
            # Segments of the side that was split before; none while the first side is.
            others = next(iter(parts.values()), [])
            writer = PartitionWriter(
                buffers,
                self._spill,
                PartitionFunction(fan_out, pair.level),
                name=f"{self._name}.{side}",
                first=None,
                row_bytes_max=self._row_bytes_max,
                wanted=[keeps or other is not None for other in others] or None,
            )
            try:
                for rows, _ in blocks_of(segment, self._spill, block):
                    self._check()
                    writer.add(rows)
                parts[side] = writer.finish()
            finally:
                self._stats.spilled_bytes += writer.spilled_bytes
                writer.abort()
        # The pairs are a stack, so the first partition is pushed last.
        for one, other in zip(reversed(parts["left"]), reversed(parts["right"]), strict=True):
            if one is not None or other is not None:
                self._pairs.append(Pair(one, other, pair.level + 1, pair.right.raw_bytes))

    def _build_bytes(self, left: Segment, right: Segment) -> int:
        """Return the bytes to split until they fit; the left side needs room to sort if ordered."""
        sorts = self._sequenced and self._how not in LEFT_ONLY
        return min(right.raw_bytes, left.raw_bytes * (2 if sorts else 1))

    def _nested(
        self,
        pair: Pair,
        left: Segment,
        right: Segment,
        memory: memoryview,
        joined: JoinOutput,
    ) -> Iterator[bool]:
        self._stats.nested_loops += 1
        loop = NestedLoop(
            memory, pair.block_bytes, self._spill, self._how, self._sequenced, f"{self._name}.bits"
        )
        yield from loop.join(left, right, joined)
        self._stats.slices += loop.slices


def _table_bytes(segment: Segment) -> int:
    """Return the memory of a table of these rows."""
    return segment.raw_bytes + segment.rows * ENTRY_BYTES + 16


def _fits(segment: Segment, room: memoryview) -> bool:
    return _table_bytes(segment) <= len(room)
