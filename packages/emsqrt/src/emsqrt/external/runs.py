"""Sorted runs that were spilled, and merging them: in as many passes as memory asks for."""

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
from emsqrt.external.output_buffer import OutputBuffer
from emsqrt.long_row import LongRow
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from emsqrt.external.journal import Journal, SavedRuns
    from emsqrt.spill import Segment, SegmentReader, SegmentWriter, SpillManager

RUNS_MAX = 1024  # more are merged at once, so that their list stays small
_RUNS_MIN = 64
_MEMORY_OF_RUN = 2 << 10
"""One run may wait for so many bytes of memory: the list of them takes half of that beside it."""
_FULL, _DONE = -1, -2
_ALIGN = 64


@dataclass(slots=True)
class RunStats:
    """What spilling and merging took, for the manifest.

    Args:
        runs: sorted runs written from input, R.
        passes: how often the most travelled row was read back, P.
        fan_in: the most runs in one merge, K.
        block_bytes: of the last run written, b.
        spilled_bytes: written in all, before compression.
    """

    runs: int = 0
    passes: int = 0
    fan_in: int = 0
    block_bytes: int = 0
    spilled_bytes: int = 0


@dataclass(slots=True)
class _Run:
    """A sorted segment, and how many merges its rows went through."""

    segment: Segment
    level: int

    @property
    def need(self) -> int:
        """Bytes of a buffer that takes its longest block."""
        return -(-self.segment.block_raw_max // _ALIGN) * _ALIGN


class Runs:
    """Runs in input order; equal keys leave a merge in the order of their runs.

    The same memory serves whoever fills it to cut a run and, between two runs, the merges.

    Args:
        memory: to merge in.
        spill: where the runs lie.
        name: of the segments.
        check: called often; what it raises ends the work.
        limit: rows wanted of the whole order; no run keeps more.
        journal: where runs are written down, and found again by whoever resumes.
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
        """Rows of the input that lie in runs which an earlier run left."""
        self.row_bytes_max = 0
        """The longest of all rows in runs, as far as who cuts these tells."""
        self._journal = journal
        self._rows = 0
        self._complete = False
        self._memory = memory
        self._spill = spill
        self._name = name
        self._check = check
        self._limit = limit
        self._runs: list[_Run] = []
        self._readers: list[SegmentReader] = []
        if journal is not None and (found := journal.found()) is not None:
            self._adopt(found)

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def block_bytes(self) -> int:
        """How large the blocks of the next run should be."""
        return block_bytes(len(self._memory), len(self._runs))

    def create(self) -> SegmentWriter:
        """Begin a run."""
        return self._spill.create(self._name)

    def add(self, segment: Segment, rows: int = 0, *, complete: bool = False) -> None:
        """Add a finished run behind the others.

        Args:
            segment: the run.
            rows: of the input that lie in runs now.
            complete: whether that is all of it.
        """
        self._runs.append(_Run(segment, 0))
        self.stats.runs += 1
        self._count(segment)
        self._rows, self._complete = rows, complete
        self._save()

    def complete(self) -> None:
        """Say that there is no more input than lies in runs."""
        self._complete = True
        self._save()

    def _adopt(self, found: SavedRuns) -> None:
        """Begin with the runs that an earlier run left."""
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
        """Nobody has looked at the keys of rows that an earlier run took in."""
        return None if self.rows_found else positions

    def use(self, memory: memoryview) -> None:
        """Merge in other memory from now on."""
        self._memory = memory

    def leaves_room(self, one_part_in: int) -> bool:
        """Whether a merge of the runs so far takes less than that part of the memory."""
        return sum(run.need for run in self._runs) * one_part_in < len(self._memory)

    def is_crowded(self) -> bool:
        """Whether runs should be merged before more are cut."""
        bearable = max(_RUNS_MIN, len(self._memory) // _MEMORY_OF_RUN)
        return len(self._runs) >= min(RUNS_MAX, bearable)

    def thin_out(self, positions: bytes | None) -> None:
        """Merge some neighbours; the memory is free for it."""
        needs = [run.need for run in self._runs]
        fan_in = fan_in_of(self._room(), needs)
        self._merge(min(fan_in, len(needs)), positions)

    def settle(self, positions: bytes | None) -> None:
        """Merge until one pass is left, the smallest neighbours first; the memory is free for it.

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
        """Fill `out` with the next rows in order, or with their payloads each followed by `ending`.

        Yields:
            (bytes, rows) that lie at the start of `out`, or of its `room`.

        Raises:
            CapTooSmall: a row is longer than `out`.
        """
        assert self._is_last_pass(), "settle first"
        self._note_merge(self._runs)
        merged = _Merge(self, self._runs, self._memory, self._known(positions))
        try:
            yield from merged.blocks(OutputBuffer.over(out), self._limit, ending)
        finally:
            merged.close()

    def close(self) -> None:
        """Remove all runs; those that are written down stay until the whole run has ended."""
        runs, self._runs = self._runs, []
        if self._journal is None:
            _remove(self._spill, runs)

    def _room(self) -> int:
        """Memory for the sources of a merge that writes a run: all but its block."""
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
        self._runs[start:stop] = [_Run(segment, 1 + max(run.level for run in runs))]
        self._save()
        _remove(self._spill, runs)

    def _write_merged(self, runs: list[_Run], positions: bytes | None) -> Segment:
        split = len(self._memory) - self._out_bytes()
        out = self._memory[split:]
        merged = _Merge(self, runs, self._memory[:split], positions)
        try:
            with self.create() as writer:
                merged.write_to(writer, out, self._limit)
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
    """Memory to read a block that was compressed; 0 when none was."""
    heads = segment.blocks * 64
    if segment.blocks_bytes - heads == segment.raw_bytes:
        return 0
    return -(-segment.block_stored_max // _ALIGN) * _ALIGN


class _Merge:
    """One merge of some runs: their readers, and parts of the memory to read ahead into."""

    def __init__(
        self, owner: Runs, runs: list[_Run], memory: memoryview, positions: bytes | None
    ) -> None:
        scratch_bytes = max((_scratch_bytes(run.segment) for run in runs), default=0)
        split = len(memory) - scratch_bytes
        scratch = memory[split:] if scratch_bytes else None
        self._memory = memory[:split]
        needs = [run.need for run in runs]
        spare = (split - merge_bytes(needs)) // max(1, len(needs)) // _ALIGN * _ALIGN
        self._merger = Merger(self._memory, [need + spare for need in needs], positions)
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

    def blocks(
        self, out: OutputBuffer, limit: int | None, ending: bytes | None
    ) -> Iterator[tuple[int, int]]:
        """Fill `out` again and again; a row that it cannot hold is refused."""
        for filled, rows in self._fill(out, limit, ending):
            if rows == 0:
                start, stop = self._head()
                raise _too_long(len(out.room), stop - start)
            yield filled, rows

    def write_to(self, writer: SegmentWriter, out: memoryview, limit: int | None) -> None:
        """Write all to a segment; a row that `out` cannot hold becomes a block of its own."""
        for filled, rows in self._fill(OutputBuffer(out), limit, None):
            if rows:
                writer.append(out[:filled], rows)
                continue
            start, stop = self._head()
            writer.append(self._memory[start:stop], 1)
            source = self._merger.skip()
            if source >= 0:
                self._refill(source)

    def _fill(
        self, out: OutputBuffer, limit: int | None, ending: bytes | None
    ) -> Iterator[tuple[int, int]]:
        """Yield each time `out` is full, or holds nothing because the next row is longer."""
        left = -1 if limit is None else limit
        filled = rows = 0
        while left:
            most = {} if left < 0 else {"rows_max": left}
            came, taken, why = self._merger.run(out.room[filled:], ending, **most)
            filled, rows = filled + came, rows + taken
            if left > 0:
                left -= taken
            if why >= 0:
                self._refill(why)
                continue
            if why == _DONE and rows == 0:
                return
            if rows == 0 and out.widen():
                continue
            yield filled, rows
            if rows == 0 and left > 0:
                left -= 1  # whoever fills `out` has taken the long row
            filled = rows = 0
            out.turn()
            if why == _DONE:
                return
        if rows:
            yield filled, rows

    def _refill(self, source: int) -> None:
        """Read as many blocks as fit the source's part."""
        reader = self._readers[source]
        start, stop = self._merger.span(source)
        at = start
        while 0 < reader.next_bytes() <= stop - at:
            at += reader.read_into(self._memory[at:stop])[0]
        self._merger.refill(source, at - start)

    def _head(self) -> tuple[int, int]:
        head = self._merger.head()
        assert head is not None, "a row is there that did not fit"
        return head


def _too_long(out_bytes: int, row_bytes: int) -> CapTooSmall:
    return LongRow(
        cap_bytes=out_bytes,
        needed_bytes=row_bytes,
        because=f"a row has {row_bytes} bytes",
        row_bytes=row_bytes,
    )
