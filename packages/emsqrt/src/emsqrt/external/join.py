"""External hash join: in memory while the build side fits, else Grace partitions of both sides.

1. The build side (the right one, unless `build_left`) goes to a hash table.
2. If it fits, each block of the probe side is looked up in the table, and nothing is spilled.
3. If it does not fit and its keys ascend, it is spilled in ranges of keys, which are merged with
   the probe side while that ascends too.
4. Otherwise both sides are partitioned by hash, and joined partition by partition.

                 ┌─ fits ────▶ hash table
    build side ──┼─ sorted ──▶ key ranges ──▶ merge join ──┐ probe side not sorted
                 └─ else ────▶ hash partitions ────────────┴──▶ PartitionedJoin ──▶ runs ──▶ merge

Output order: rows are in the order of the left input, the matches of one row in the order of the
right input, and unmatched right rows last. A join that has to partition numbers the left rows,
writes the output of each partition as runs sorted by these numbers, and merges the runs. A join
that builds the left side sorts its output. A sorted right side is not partitioned (see
`SortedBuild`).

(Kitsuregawa, Tanaka, Moto-oka: "Application of hash to data base machine", 1983; Shapiro, "Join
processing in database systems with large main memories", TODS 11(3), 1986.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from emsqrt._kernel import JoinTable
from emsqrt.external.join_journal import JoinJournal, Pair, Partitions
from emsqrt.external.join_output import (
    FORWARD,
    KEEPS_LEFT,
    KEEPS_RIGHT,
    LEFT_ONLY,
    LEFT_POSITIONS,
    NUMBER_POSITIONS,
    OFFSET_NUMBERS,
    REVERSED,
    RIGHT_SEQUENCED,
    SEQUENCED,
    HashJoinKind,
    JoinOutput,
    JoinStats,
    drain,
    sequenced_flags,
)
from emsqrt.external.joined_sort import JoinedSort
from emsqrt.external.merge_join import MergeJoin
from emsqrt.external.partition import (
    PartitionFunction,
    PartitionWriter,
    fan_out_max,
    partition_bytes,
)
from emsqrt.external.partitioned_join import PartitionedJoin
from emsqrt.external.runs import Runs
from emsqrt.external.sorted_build import SortedBuild, is_sorted
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt.external.journal import StateJournal
    from emsqrt.spill import Segment, SpillManager

# How the memory is divided while the build side comes:
#
#     | rows of the table →     free     ← index | partition buffers |
#       `_room`                                    `_buffers`
#
# On overflow the rows of the table are partitioned where they are; what is free of `_room` becomes
# the filter of the build side's keys.
MEMORY_BYTES_MIN = 256 << 10
ROW_SHARE = 8
"""A row may use 1 / 8 of the memory, so that two rows and some blocks always fit."""
_FILTER_SHARE = 8  # a side that is partitioned from spill lends 1 / 8 of its memory to the filter


def join_bytes(row_bytes: int) -> int:
    """Return memory to join rows of up to `row_bytes` bytes, with their keys."""
    return max(MEMORY_BYTES_MIN, ROW_SHARE * row_bytes)


class ExternalJoin:
    """Joins rows of equal keys (see `pack_join_rows`) in memory of a fixed size.

    Call `add_build` with one side's blocks, `finish_build`, `probe` with the other side's blocks,
    then `finish`.

    Args:
        memory: the working memory.
        spill: the spill manager for rows that do not fit.
        how: inner, left, right, full, semi or anti; see `CrossJoin` for cross.
        ordered: keep the output order; False if the consumer needs no order, which saves spilling
            the output of a join that has to partition.
        build_left: build the left side and probe with the right; pays off if the left is smaller.
        build_bytes: the bytes of the build side's rows, if known, for a better fan-out.
        row_bytes: the length of the longest row, if it is known to be large.
        name: the name of the segments.
        check: called often; an exception that it raises ends the work.
        journal: where partitions are recorded, with `ordered`; a side that an earlier run has read
            must not be added again (`is_built`, `is_probed`).

    Raises:
        CapTooSmall: the memory is below `MEMORY_BYTES_MIN`, or a row needs more than an eighth.
    """

    def __init__(  # noqa: PLR0913 - settings, all but three by keyword
        self,
        memory: memoryview,
        spill: SpillManager,
        how: HashJoinKind,
        *,
        ordered: bool = True,
        build_left: bool = False,
        build_bytes: int | None = None,
        row_bytes: int = 0,
        name: str = "join",
        check: Callable[[], None] = lambda: None,
        journal: StateJournal | None = None,
    ) -> None:
        if len(memory) < MEMORY_BYTES_MIN:
            raise CapTooSmall(
                cap_bytes=len(memory), needed_bytes=MEMORY_BYTES_MIN, because="a join works in it"
            )
        self.stats = JoinStats()
        self.how: HashJoinKind = how
        self._memory = memory
        self._spill = spill
        self._ordered = ordered
        self._name = name
        self._check = check
        self._build_left = build_left
        # Semi and anti joins write no right row, so a table of the right side needs no payloads.
        self._keys_only = how in LEFT_ONLY and not build_left
        keeps = how in KEEPS_LEFT, how in KEEPS_RIGHT
        self._keeps_probe, self._keeps_build = keeps[::-1] if build_left else keeps
        self._sequenced = sequenced_flags(how) if ordered else 0
        self._emission = (REVERSED if build_left else FORWARD)[how]
        # Probing with the right side yields matches in the order of the right side; they are sorted
        # back. The table and the sort get half of the memory each.
        self._sorts = ordered and build_left and how not in LEFT_ONLY
        split = len(memory) - partition_bytes(len(memory), row_bytes)
        self._buffers = memory[split:]
        self._room = memory[: len(memory) // 2 if self._sorts else split]
        self._fan_out = self._choose_fan_out(build_bytes)
        self._filter: memoryview | None = None
        self.is_partitioned = False
        """Whether the build side did not fit memory; known once it has ended."""
        # A join that can be resumed keeps its order: its progress is counted in rows.
        page = journal if ordered and not build_left else None
        self._journal = JoinJournal(page, spill, self._can_join)
        self.is_probed = self._journal.pairs is not None
        """Whether an earlier run has read both sides."""
        self.is_built = self.is_probed or self._journal.right is not None
        """Whether an earlier run has read the build side."""
        # One of these holds the build side's rows; later, one receives those of the probe side.
        self._table: JoinTable | None = None if self.is_built else JoinTable(self._room)
        self._side: SortedBuild | None = None
        self._sort: JoinedSort | None = None
        self._merge: MergeJoin | None = None
        self._side_rows: Generator[memoryview] | None = None
        self._writer: PartitionWriter | None = None
        self._runs: Runs | None = None

    def add_build(self, block: Buffer) -> None:
        """Add rows of the build side."""
        self._check()
        with memoryview(block) as rows:
            at = 0
            while self._table is not None and at < len(rows):
                # Stops at a row that does not fit. Then duplicates are dropped (semi and anti), or
                # the rows of the table are spilled; `_table` is None from there on, and the rest of
                # the block follows them.
                at = self._table.add_rows(rows, at, keys_only=self._keys_only)
                if at < len(rows) and not self._shrink(self._table):
                    self._overflow(self._table)
            # A sorted build side stays one only while rows keep coming in order.
            if self._side is not None and at < len(rows):
                at = self._side.add(rows, at)
                if at < len(rows):
                    self._partition_side(self._side)
            if self._writer is not None and at < len(rows):
                self._writer.add(rows, at)

    def finish_build(self) -> None:
        """End the build side; rows of the probe side may be added from now on."""
        if self._table is not None:
            self._table.index()
            if self._sorts:
                self._runs = self._open_runs()
                self._sort = JoinedSort(self._memory[len(self._room) :], self._runs)
        elif self._side is not None:
            self._side.finish()
            self.stats.spilled_bytes += self._side.spilled_bytes
            self._begin_merge(self._side)
        elif not self.is_probed:
            if self._writer is not None:
                self._journal.built(self._finish_writer())
            built = self._journal.right
            assert built is not None, "the build side was partitioned, now or by an earlier run"
            self._partition_probe(built, PartitionFunction(len(built) - 1, key_filter=self._filter))

    def probe(self, block: Buffer, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        """Join rows of the probe side; the iterator must be consumed.

        Args:
            block: the rows.
            joined: the output buffer; the same in each call, because rows accumulate in it.

        Yields:
            (bytes, rows) of joined rows at the start of the output buffer; none while both sides
            are partitioned, or if the output has to be sorted.
        """
        self._check()
        with memoryview(block) as rows:
            if self._sort is not None:
                for filled, _ in self._probe_table(rows, joined):
                    self._sort.add(joined.memory[:filled])
            elif self._table is not None:
                yield from self._probe_table(rows, joined)
            elif self._merge is not None:
                yield from self._probe_side(self._merge, rows, joined)
            else:
                assert self._writer is not None, "finish_build first, and nothing twice"
                self._writer.add(rows)

    def finish(self, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        """End the probe side; yields as `probe` does."""
        if self._sort is not None:
            yield from self._finish_sort(self._sort, joined)
        elif self._table is not None:
            yield from self._drain(self._table, joined)
        elif self._writer is not None or self.is_probed:
            yield from self._join_partitions(joined)
        else:
            assert self._merge is not None, "finish_build first"
            yield from self._merge.finish(joined)

    def close(self) -> None:
        """Remove the spilled rows, and drop all references to the memory."""
        self._table = self._sort = None
        self._end_merge()
        if self._side is not None:
            self._side.close()
            self._side = None
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        if self._runs is not None:
            self._runs.close()
            self._runs = None
        self._journal.close()

    # The build side ---------------------------------------------------------------------------
    def _choose_fan_out(self, build_bytes: int | None) -> int:
        most = fan_out_max(len(self._buffers))
        if build_bytes is None:
            return most
        # 1.3 times as many partitions as would just fit, because they are not equally large.
        return min(most, max(2, -(-build_bytes * 13 // (10 * len(self._room)))))

    def _can_join(self, segments: Sequence[Segment], fan_out: int) -> bool:
        """Return whether partitions of an earlier run, with another cap, can be joined here."""
        longest = max((segment.block_raw_max for segment in segments), default=0)
        # A buffer for the longest block must leave room for a table; and each partition of the
        # probe side needs a buffer.
        fits = longest * ROW_SHARE <= len(self._memory)
        return fits and fan_out <= fan_out_max(len(self._buffers))

    def _shrink(self, table: JoinTable) -> bool:
        """Make room by dropping duplicate keys, if the join needs keys only."""
        if not self._keys_only:
            return False
        before = table.rows_bytes
        table.distinct()
        # With less than a quarter freed, dropping duplicates again and again would cost more than
        # partitioning does.
        return table.rows_bytes < before * 3 // 4

    def _overflow(self, table: JoinTable) -> None:
        """Spill the rows of the table, and send all further rows to the same segments."""
        rows = self._room[: table.rows_bytes]
        # From here on no index is needed: the rows are only copied to their partitions.
        free = self._room[table.rows_bytes :]
        self._table = None
        self.is_partitioned = True
        if not self._build_left and not self._journal.is_kept and is_sorted(rows):
            self._side = SortedBuild(
                len(self._memory),
                self._spill,
                f"{self._name}.sorted",
                self._row_bytes_max,
                buffers=self._buffers if self._keeps_build else None,
                numbered=bool(self._sequenced & RIGHT_SEQUENCED),
            )
            self._side.add(rows)
        else:
            self._partition_build(free).add(rows)

    def _partition_side(self, side: SortedBuild) -> None:
        """Partition a side that is not sorted after all."""
        side.finish()
        self.stats.spilled_bytes += side.spilled_bytes
        # `_room` holds a block of the sorted side and the filter now: no table is left in it.
        split = len(self._room) - len(self._room) // _FILTER_SHARE
        writer = self._partition_build(
            self._room[split:], is_numbered=side.rows_numbered is not None
        )
        for rows in side.blocks(self._room[:split]):
            self._check()
            writer.add(rows)
        if side.rows_numbered is not None:
            writer.count_from(side.rows_numbered)
        side.close()
        self._side = None

    def _partition_build(self, free: memoryview, *, is_numbered: bool = False) -> PartitionWriter:
        if (
            not self._keeps_probe
        ):  # probe rows without a match can be dropped before they are spilled
            self._filter = free
        self._writer = self._partition(
            "left" if self._build_left else "right",
            PartitionFunction(self._fan_out, key_filter=self._filter, fills=True),
            [True] * self._fan_out + [self._keeps_build],
            is_numbered=is_numbered,
        )
        return self._writer

    # The probe side ---------------------------------------------------------------------------
    def _probe_table(self, rows: memoryview, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        assert self._table is not None, "it fitted memory"
        at, size, flags = 0, len(rows), self._emission.flags | self._placed
        while at < size:
            at, *wrote, _ = self._table.probe(rows, at, joined.room(), flags)
            joined.wrote(*wrote)
            if at < size:
                yield joined.flush()
        if joined.is_due:
            yield joined.flush()

    def _drain(self, table: JoinTable, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        for _ in drain(table, self._emission, self._placed, joined):
            yield joined.flush()
        if joined.rows:
            yield joined.flush()

    @property
    def _placed(self) -> int:
        return OFFSET_NUMBERS if self._sorts else 0

    def _finish_sort(self, sort: JoinedSort, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        assert self._table is not None, "it fitted memory"
        assert self._runs is not None, "the sort writes to it"
        # The stored left rows without a match come after all probe rows; sorting moves them to
        # their places.
        for filled, _ in self._drain(self._table, joined):
            sort.add(joined.memory[:filled])
        if not sort.runs_written:
            yield from sort.blocks(joined)
            return
        sort.flush()
        self._table = self._sort = None
        yield from self._merge_runs(self._runs, LEFT_POSITIONS, joined)

    def _begin_merge(self, side: SortedBuild) -> None:
        buffer, memory = self._memory[: side.block_bytes], self._memory[side.block_bytes :]
        self._merge = MergeJoin(
            memory,
            self._spill,
            self.how,
            name=self._name,
            row_bytes_max=self._row_bytes_max,
            right_numbered=side.rows_numbered is not None,
            check=self._check,
        )
        self._side_rows = side.blocks(buffer)
        self._merge.begin(self._side_rows)

    def _probe_side(
        self, merge: MergeJoin, rows: memoryview, joined: JoinOutput
    ) -> Iterator[tuple[int, int]]:
        at = yield from merge.join(rows, joined)
        self.stats.merged_bytes += at
        if at < len(rows):
            self._probe_ranges().add(rows, at)
        if joined.is_due or (joined.rows and self._merge is None):
            yield joined.flush()

    def _probe_ranges(self) -> PartitionWriter:
        """Partition probe rows by the ranges of the sorted build side: they are not sorted."""
        assert self._side is not None, "the build side is sorted"
        assert self._merge is not None, "both sides were merged so far"
        # A sorted side becomes a partitioned one in three steps:
        #
        # 1. `abandon`: left rows up to key `last` are joined; `rest` has the unmatched right rows.
        # 2. `mark` (right and full joins) sets a bit in each spilled right row up to `last` that is
        #    not in `rest`, so that no partition writes it as unmatched.
        # 3. The segments of the side become partitions, with their first keys as bounds.
        last, rest = self._merge.abandon()
        self._end_merge()
        if self._keeps_build and last:
            before_bytes = self._side.spilled_bytes
            self._side.mark(last, rest, self._memory)
            self.stats.spilled_bytes += self._side.spilled_bytes - before_bytes
        side, self._side = self._side, None
        ranges: Partitions = [*side.segments] or [None]
        built = [*ranges, side.nulls]
        self._journal.built(built)
        return self._partition_probe(
            built, PartitionFunction(len(ranges), bounds=tuple(side.bounds))
        )

    def _end_merge(self) -> None:
        if self._merge is not None:
            self.stats.spilled_bytes += self._merge.stats.spilled_bytes
            self.stats.nested_loops += self._merge.stats.nested_loops
            self._merge.close()
            self._merge = None
        if self._side_rows is not None:
            self._side_rows.close()
            self._side_rows = None

    def _partition_probe(self, built: Partitions, function: PartitionFunction) -> PartitionWriter:
        wanted = [self._keeps_probe or segment is not None for segment in built[:-1]]
        side = "right" if self._build_left else "left"
        self._writer = self._partition(side, function, [*wanted, self._keeps_probe])
        return self._writer

    def _partition(
        self,
        side: str,
        function: PartitionFunction,
        wanted: list[bool],
        *,
        is_numbered: bool = False,
    ) -> PartitionWriter:
        self.stats.levels = max(self.stats.levels, 1)
        flag = SEQUENCED if side == "left" else RIGHT_SEQUENCED
        return PartitionWriter(
            self._buffers,
            self._spill,
            function,
            name=f"{self._name}.{side}",
            # Rows that come from a sorted side have their numbers already.
            first=0 if self._sequenced & flag and not is_numbered else None,
            row_bytes_max=self._row_bytes_max,
            wanted=wanted,
        )

    @property
    def _row_bytes_max(self) -> int:
        return len(self._memory) // ROW_SHARE

    def _finish_writer(self) -> Partitions:
        assert self._writer is not None, "rows are partitioned"
        segments = self._writer.finish()
        self.stats.spilled_bytes += self._writer.spilled_bytes
        self._writer = None
        return segments

    # Partitions -------------------------------------------------------------------------------
    def _join_partitions(self, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        if not self.is_probed:
            self._pair_up(self._finish_writer(), self._journal.right or [])
        join = PartitionedJoin(
            self._memory,
            self._spill,
            self.how,
            self._journal,
            sequenced=self._sequenced,
            row_bytes_max=self._row_bytes_max,
            buffers_bytes=len(self._buffers),
            name=self._name,
            stats=self.stats,
            check=self._check,
        )
        if not self._ordered:
            yield from join.blocks(joined)
            return
        # All keys of the runs are row numbers, so it is known beforehand where they can differ.
        positions = NUMBER_POSITIONS if self._sequenced & RIGHT_SEQUENCED else LEFT_POSITIONS
        self._runs = self._open_runs()
        join.write_runs(self._runs, positions)
        yield from self._merge_runs(self._runs, positions, joined)

    def _pair_up(self, probed: Partitions, built: Partitions) -> None:
        """Record which partitions of both sides belong together; NULL keys belong to none."""
        sides = (built, probed) if self._build_left else (probed, built)
        pairs = [Pair(*pair) for pair in zip(*sides, strict=True)]
        # Rows with a NULL in their key match nothing, not even each other: each side is written
        # alone.
        nulls = pairs.pop()
        pairs += [Pair(nulls.left, None), Pair(None, nulls.right)]
        # The list is used as a stack: reversed, partition 0 is joined first.
        self._journal.probed(pairs[::-1])

    def _open_runs(self) -> Runs:
        journal = self._journal if self._journal.is_kept else None
        name = f"{self._name}.run"
        return Runs(self._memory, self._spill, name=name, check=self._check, journal=journal)

    def _merge_runs(
        self, runs: Runs, positions: bytes, joined: JoinOutput
    ) -> Iterator[tuple[int, int]]:
        runs.merge_to_last_pass(positions)
        self.stats.spilled_bytes += runs.stats.spilled_bytes
        yield from runs.blocks(joined.output_buffer(), positions)
