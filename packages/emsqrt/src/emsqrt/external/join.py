"""External hash join: in memory while the right side fits, else Grace partitions of both sides.

Law: rows come in the order of the left input, the matches of one row in the order of the right one,
and unmatched right rows last. A join that had to partition numbers both inputs' rows, writes what
each partition gives as a run sorted by these numbers, and merges the runs.

(Kitsuregawa, Tanaka, Moto-oka: "Application of hash to data base machine", 1983; Shapiro, "Join
processing in database systems with large main memories", TODS 11(3), 1986.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from emsqrt._kernel import JoinTable
from emsqrt.external.join_journal import JoinJournal, Partitions
from emsqrt.external.joined import (
    FORWARD,
    KEEPS_LEFT,
    KEEPS_RIGHT,
    LEFT_ONLY,
    NUMBER_POSITIONS,
    HashJoinKind,
    JoinedOut,
    JoinStats,
    drain,
)
from emsqrt.external.partition import PartitionWriter, fan_out_max, partition_bytes
from emsqrt.external.partitioned_join import PartitionedJoin
from emsqrt.external.runs import Runs
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt.external.journal import StateJournal
    from emsqrt.spill import Segment, SpillManager

MEMORY_BYTES_MIN = 256 << 10
ROW_SHARE = 8
"""A row may take this part of the memory, so that two of them, and blocks, fit at any time."""


class ExternalJoin:
    """Joins rows of equal keys (see `pack_join_rows`) in the memory it is given.

    `add_build` the right side's blocks, `finish_build`, `probe` with the left side's, `finish`.

    Args:
        memory: all that it works in.
        spill: where rows go that do not fit.
        how: inner, left, right, full, semi or anti; see `CrossJoin` for cross.
        ordered: keep the law of order; False when whoever reads on does not care, which saves
            spilling the answer of a join that had to partition.
        build_bytes: of the right side's rows, where known; a better fan-out.
        name: of the segments.
        check: called often; what it raises ends the work.
        journal: where partitions are written down, with `ordered`; sides that an earlier run took
            in are not to be given again (`is_built`, `is_probed`).

    Raises:
        CapTooSmall: the memory is below `MEMORY_BYTES_MIN`, or a row takes more than an eighth.
    """

    def __init__(  # noqa: PLR0913 - settings, all but three by keyword
        self,
        memory: memoryview,
        spill: SpillManager,
        how: HashJoinKind,
        *,
        ordered: bool = True,
        build_bytes: int | None = None,
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
        self._numbered = ordered and how not in LEFT_ONLY
        self._ordered = ordered
        self._name = name
        self._check = check
        self._emission = FORWARD[how]
        split = len(memory) - partition_bytes(len(memory))
        self._room, self._buffers = memory[:split], memory[split:]
        self._fan_out = self._choose_fan_out(build_bytes)
        self._journal = JoinJournal(journal if ordered else None, spill, self._can_join)
        self.is_probed = self._journal.pairs is not None
        """Whether an earlier run took in both sides."""
        self.is_built = self.is_probed or self._journal.right is not None
        """Whether an earlier run took in the right side."""
        self._table: JoinTable | None = None if self.is_built else JoinTable(self._room)
        self._writer: PartitionWriter | None = None
        self._join: PartitionedJoin | None = None

    @property
    def is_partitioned(self) -> bool:
        """Whether the right side did not fit memory; known once it has ended."""
        return self._table is None

    def add_build(self, block: Buffer) -> None:
        """Add rows of the right side."""
        self._check()
        with memoryview(block) as rows:
            at = 0
            while self._table is not None and at < len(rows):
                at = self._table.add_rows(rows, at, keys_only=self.how in LEFT_ONLY)
                if at < len(rows) and not self._shrink(self._table):
                    self._overflow(self._table)
            if self._writer is not None and at < len(rows):
                self._writer.add(rows, at)

    def finish_build(self) -> None:
        """End the right side; from now on the left side may come."""
        if self._table is not None:
            self._table.index()
            return
        if self._writer is not None:
            self._journal.built(self._writer.finish())
            self.stats.spilled_bytes += self._writer.spilled_bytes
            self._writer = None
        self._join = PartitionedJoin(
            self._memory,
            self._spill,
            self.how,
            self._journal,
            ordered=self._ordered,
            row_bytes_max=len(self._memory) // ROW_SHARE,
            name=self._name,
            stats=self.stats,
            check=self._check,
        )
        if (right := self._journal.right) is None:
            return
        self._fan_out = len(right) - 1
        keeps_lone = self.how in KEEPS_LEFT
        wanted = [keeps_lone or segment is not None for segment in right[:-1]]
        self._writer = self._partition("left", [*wanted, keeps_lone], self._ordered)

    def probe(self, block: Buffer, out: memoryview) -> Iterator[tuple[int, int]]:
        """Join rows of the left side; must be consumed.

        Yields:
            (bytes, rows) of joined rows that lie at the start of `out`; none while both sides are
            being partitioned.
        """
        self._check()
        if self._table is None:
            assert self._writer is not None, "finish_build first, and nothing of what was taken in"
            self._writer.add(block)
            return
        joined = JoinedOut(out)
        with memoryview(block) as rows:
            at, size, flags = 0, len(rows), self._emission.flags
            while at < size:
                at, *wrote, _ = self._table.probe(rows, at, joined.room(), flags)
                joined.wrote(*wrote)
                if at < size:
                    yield joined.take()
        if joined.rows:
            yield joined.take()

    def finish(self, out: memoryview) -> Iterator[tuple[int, int]]:
        """End the left side; yields as `probe` does."""
        if self._table is not None:
            yield from self._drain(self._table, JoinedOut(out))
            return
        assert self._join is not None, "finish_build first"
        left: Partitions = []
        if self._writer is not None:
            left = self._writer.finish()
            self.stats.spilled_bytes += self._writer.spilled_bytes
            self._writer = None
        if not self._ordered:
            yield from self._join.blocks(left, out)
            return
        journal = self._journal if self._journal.is_kept else None
        name = f"{self._name}.run"
        runs = Runs(self._memory, self._spill, name=name, check=self._check, journal=journal)
        try:
            self._join.write_runs(left, runs)
            runs.settle(NUMBER_POSITIONS)
            self.stats.spilled_bytes += runs.stats.spilled_bytes
            yield from runs.blocks(out, NUMBER_POSITIONS)
        finally:
            runs.close()

    def close(self) -> None:
        """Remove what was spilled, and let go of the memory."""
        self._table = None
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        self._join = None
        self._journal.close()

    def _choose_fan_out(self, build_bytes: int | None) -> int:
        most = fan_out_max(len(self._buffers))
        if build_bytes is None:
            return most
        return min(most, max(2, -(-build_bytes * 13 // (10 * len(self._room)))))

    def _can_join(self, segments: Sequence[Segment], fan_out: int) -> bool:
        """Whether partitions of an earlier run, which had another cap, can be joined in this one."""
        longest = max((segment.block_raw_max for segment in segments), default=0)
        fits = longest * ROW_SHARE <= len(self._memory)
        return fits and fan_out <= fan_out_max(len(self._buffers))

    def _shrink(self, table: JoinTable) -> bool:
        """Make room by dropping keys that are there already, where only keys count."""
        if self.how not in LEFT_ONLY:
            return False
        before = table.rows_bytes
        table.distinct()
        return table.rows_bytes < before * 3 // 4

    def _overflow(self, table: JoinTable) -> None:
        """Spill the rows of the table, and take all further ones to partitions."""
        wanted = [True] * self._fan_out + [self.how in KEEPS_RIGHT]
        self._writer = self._partition("right", wanted, self._numbered)
        self._writer.add(self._room[: table.rows_bytes])
        self._table = None

    def _partition(self, side: str, wanted: list[bool], numbered: bool) -> PartitionWriter:
        self.stats.levels = max(self.stats.levels, 1)
        return PartitionWriter(
            self._buffers,
            self._spill,
            self._fan_out,
            0,
            name=f"{self._name}.{side}",
            numbered=numbered,
            row_bytes_max=len(self._memory) // ROW_SHARE,
            wanted=wanted,
        )

    def _drain(self, table: JoinTable, joined: JoinedOut) -> Iterator[tuple[int, int]]:
        for _ in drain(table, self._emission, 0, joined):
            yield joined.take()
        if joined.rows:
            yield joined.take()
