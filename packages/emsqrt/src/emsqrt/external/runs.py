"""Sorted runs that were spilled, and merging them in as many passes as the memory requires.

Runs are in input order, and a merge reads neighbours only: rows of equal keys stay in input order
without a sequence number in each key. All merges but the last one write a run, in the place of its
sources. With room for four runs in a merge (K = 4), six runs need two passes:

    0     1     2     3     4     5         the smallest three neighbours are merged first, so that
                └─────┼─────┘               exactly K runs are left (`first_merge`)
    0     1          2-4          5
    └─────┴─────┬─────┴───────────┘
              output                        rows of runs 0, 1 and 5 are read once, others twice
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emsqrt._kernel import Merger
from emsqrt.external.fan_in import (
    FAN_IN_MAX,
    block_bytes,
    choose_window,
    fan_in_of,
    first_merge,
    merge_bytes,
)
from emsqrt.external.merging import Merging
from emsqrt.external.output_buffer import OutputBuffer
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from emsqrt.external.journal import Journal, SavedRuns
    from emsqrt.spill import Segment, SegmentReader, SegmentWriter, SpillManager

RUNS_MAX = 1024  # some are merged once there are more, so that their list stays small
_RUNS_MIN = 64
_MEMORY_OF_RUN = 2 << 10
"""Working memory per run that may wait; its list entry needs up to half of this in addition."""
_ALIGN = 64


@dataclass(slots=True)
class RunStats:
    """Statistics of spilling and merging, for the manifest.

    Args:
        runs: sorted runs written from input, R.
        passes: how often a row was read back at most, P.
        fan_in: the most runs in one merge, K.
        block_bytes: the block size of the last run, b.
        spilled_bytes: all bytes spilled, before compression.
    """

    runs: int = 0
    passes: int = 0
    fan_in: int = 0
    block_bytes: int = 0
    spilled_bytes: int = 0


@dataclass(slots=True)
class _Run:
    """A sorted segment, and the number of merges that its rows went through."""

    segment: Segment
    level: int

    @property
    def need(self) -> int:
        """The size of a buffer for its longest block."""
        return -(-self.segment.block_raw_max // _ALIGN) * _ALIGN


class Runs:
    """Runs in input order; a merge writes rows of equal keys in the order of their runs.

    The owner collects rows in the same memory; merges use it between two runs, when it is empty.

    Args:
        memory: the memory of merges.
        spill: the spill manager for the runs.
        name: the name of the segments.
        check: called often; an exception that it raises ends the work.
        limit: the number of rows needed of the whole order; no run keeps more.
        journal: where runs are recorded, and found by a resumed run.
    """

    def __init__(
        self,
        memory: memoryview,
        spill: SpillManager,
        *,
        name: str,
        check: Callable[[], None] = lambda: None,
        limit: int | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.stats = RunStats()
        self.rows_found = 0
        """Input rows that are in runs of an earlier process."""
        self.row_bytes_max = 0
        """The longest row in the runs, as reported by their writer."""
        self._journal = journal
        # `_rows` and `_complete` go into the journal: how much of the input the runs contain.
        self._rows = 0
        self._complete = False
        self._memory = memory
        self._spill = spill
        self._name = name
        self._check = check
        self._limit = limit
        # In input order. A merge replaces neighbours by their result at the same place, so the
        # order of rows with equal keys is always the order of this list.
        self._runs: list[_Run] = []
        self._readers: list[SegmentReader] = []
        if journal is not None and (found := journal.found()) is not None:
            self._adopt(found)

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def block_bytes(self) -> int:
        """The block size of the next run."""
        return block_bytes(len(self._memory), len(self._runs))

    def create(self) -> SegmentWriter:
        """Begin a run."""
        return self._spill.create(self._name)

    def add(self, segment: Segment, rows: int = 0, *, complete: bool = False) -> None:
        """Add a finished run after the others.

        Args:
            segment: the run.
            rows: the number of input rows that are in runs now.
            complete: whether that is the whole input.
        """
        self._runs.append(_Run(segment, 0))
        self.stats.runs += 1
        self._count(segment)
        self._rows, self._complete = rows, complete
        self._save()

    def complete(self) -> None:
        """Record that the runs contain the whole input."""
        self._complete = True
        self._save()

    def _adopt(self, found: SavedRuns) -> None:
        """Begin with the runs that an earlier process left."""
        for segment, level in found.runs:
            adopted = self._spill.adopt(segment.name, segment.size_bytes)
            self._runs.append(_Run(adopted, level))
        self.stats.runs = len(found.runs)
        self.rows_found = self._rows = found.rows
        self._complete = found.complete
        self.row_bytes_max = found.row_bytes_max

    def _save(self) -> None:
        if self._journal is not None:
            runs = [(run.segment, run.level) for run in self._runs]
            self._journal.save(
                self._rows, runs, complete=self._complete, row_bytes_max=self.row_bytes_max
            )

    def _known(self, positions: bytes | None) -> bytes | None:
        """Return `positions`, or None if the keys of an earlier process are not covered by them."""
        return None if self.rows_found else positions

    def use(self, memory: memoryview) -> None:
        """Use other memory for merges from now on."""
        self._memory = memory

    def leaves_room(self, one_part_in: int) -> bool:
        """Return whether a merge of the runs so far needs under 1 / `one_part_in` of the memory."""
        return sum(run.need for run in self._runs) * one_part_in < len(self._memory)

    def has_too_many(self) -> bool:
        """Whether runs should be merged before more are written."""
        affordable = max(_RUNS_MIN, len(self._memory) // _MEMORY_OF_RUN)
        return len(self._runs) >= min(RUNS_MAX, affordable)

    def merge_some(self, positions: bytes | None) -> None:
        """Merge some neighbouring runs; the memory must be free."""
        needs = [run.need for run in self._runs]
        fan_in = fan_in_of(self._room(), needs)
        self._merge(min(fan_in, len(needs)), positions)

    def merge_to_last_pass(self, positions: bytes | None) -> None:
        """Merge until one pass is left, the smallest neighbours first; the memory must be free.

        Args:
            positions: where all keys may differ (`RowStore.positions`).
        """
        while not self._is_last_pass():
            needs = [run.need for run in self._runs]
            fan_in = min(fan_in_of(self._room(), needs), len(needs))
            self._merge(first_merge(len(needs), fan_in), positions)

    def blocks(
        self, out: memoryview | OutputBuffer, positions: bytes | None, ending: bytes | None = None
    ) -> Iterator[tuple[int, int]]:
        """Fill `out` with the next rows in order, or with their payloads, each ended by `ending`.

        Yields:
            (bytes, rows) at the start of `out`, or of its `room`.

        Raises:
            CapTooSmall: a row is longer than `out`.
        """
        assert self._is_last_pass(), "merge_to_last_pass first"
        self._note_merge(self._runs)
        merged = _Merge(self, self._runs, self._memory, self._known(positions))
        try:
            yield from merged.blocks(OutputBuffer.over(out), self._limit, ending)
        finally:
            merged.close()

    def close(self) -> None:
        """Remove all runs; runs in the journal stay until the whole query has ended."""
        # A run that can be resumed keeps its segments: its folder is removed as a whole at the end.
        runs, self._runs = self._runs, []
        if self._journal is None:
            _remove(self._spill, runs)

    def _room(self) -> int:
        """Return the memory for the sources of a merge that writes a run: all but its block."""
        # One scratch block for all sources: they are read one at a time (design/0035).
        scratch = max(_scratch_bytes(run.segment) for run in self._runs)
        return len(self._memory) - self._out_bytes() - scratch

    def _out_bytes(self) -> int:
        return block_bytes(len(self._memory), len(self._runs) // 2)

    def _is_last_pass(self) -> bool:
        needs = [run.need for run in self._runs]
        scratch = max((_scratch_bytes(run.segment) for run in self._runs), default=0)
        return len(needs) <= FAN_IN_MAX and merge_bytes(needs) + scratch <= len(self._memory)

    def _merge(self, count: int, positions: bytes | None) -> None:
        sizes = [run.segment.raw_bytes for run in self._runs]
        needs = [run.need for run in self._runs]
        start, stop = choose_window(sizes, needs, count, self._room())
        if stop == 0:
            raise CapTooSmall(
                cap_bytes=len(self._memory),
                needed_bytes=merge_bytes(sorted(needs)[-2:]) + self._out_bytes(),
                because=f"two rows of {self._name} are longer than a third of its working memory",
            )
        runs = self._runs[start:stop]
        self._note_merge(runs)
        segment = self._write_merged(runs, self._known(positions))
        self._count(segment)
        # The merged run takes its sources' place, so that rows of equal keys keep their order.
        self._runs[start:stop] = [_Run(segment, 1 + max(run.level for run in runs))]
        # The journal names the new run before its sources are removed: whenever the process is
        # killed, the runs in the journal exist.
        self._save()
        _remove(self._spill, runs)

    def _write_merged(self, runs: list[_Run], positions: bytes | None) -> Segment:
        split = len(self._memory) - self._out_bytes()
        out = self._memory[split:]
        merged = _Merge(self, runs, self._memory[:split], positions)
        try:
            with self.create() as writer:
                merged.write_to(writer, OutputBuffer(out), self._limit)
                return writer.finish()
        finally:
            merged.close()

    def _note_merge(self, runs: list[_Run]) -> None:
        self.stats.fan_in = max(self.stats.fan_in, len(runs))
        passes = 1 + max((run.level for run in runs), default=0)
        self.stats.passes = max(self.stats.passes, passes)

    def _count(self, segment: Segment) -> None:
        self.stats.spilled_bytes += segment.raw_bytes
        self.stats.block_bytes = segment.block_raw_max

    def open(self, run: _Run, scratch: memoryview | None) -> SegmentReader:
        """Open a run for reading."""
        self._check()
        return self._spill.open(run.segment, scratch)


def _remove(spill: SpillManager, runs: Sequence[_Run]) -> None:
    for run in runs:
        spill.remove(run.segment)


def _scratch_bytes(segment: Segment) -> int:
    """Return the memory to read a compressed block; 0 if no block is compressed."""
    heads = segment.blocks * 64
    if segment.blocks_bytes - heads == segment.raw_bytes:
        return 0
    return -(-segment.block_stored_max // _ALIGN) * _ALIGN


class _Merge(Merging):
    """One merge of some runs: their readers, and the parts of the memory that they read into."""

    def __init__(
        self, owner: Runs, runs: list[_Run], memory: memoryview, positions: bytes | None
    ) -> None:
        # The memory of a merge of K runs:
        #
        #     | state of the merger | source 0 | source 1 | … | source K - 1 | scratch |
        #
        # Each source has room for its longest block (`need`) and an equal part of the rest,
        # `spare`, to read several blocks at once.
        scratch_bytes = max((_scratch_bytes(run.segment) for run in runs), default=0)
        split = len(memory) - scratch_bytes
        scratch = memory[split:] if scratch_bytes else None
        needs = [run.need for run in runs]
        spare = (split - merge_bytes(needs)) // max(1, len(needs)) // _ALIGN * _ALIGN
        own = memory[:split]
        super().__init__(own, Merger(own, [need + spare for need in needs], positions))
        self._readers: list[SegmentReader] = []
        try:
            for source, run in enumerate(runs):
                self._readers.append(owner.open(run, scratch))
                self._refill(source)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers:
            reader.close()

    def _refill(self, source: int) -> None:
        """Read as many blocks as fit the source's part of the memory."""
        reader = self._readers[source]
        start, stop = self._merger.span(source)
        at = start
        # `next_bytes` is known from the block's head, so a block that would not fit is never begun.
        while 0 < reader.next_bytes() <= stop - at:
            at += reader.read_into(self._memory[at:stop])[0]
        self._merger.refill(source, at - start)
