"""`ExternalSort`: rows in order of their keys, however many, in memory of a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from emsqrt.external.fan_in import ENTRY_BYTES, block_bytes
from emsqrt.external.output_buffer import OutputBuffer
from emsqrt.external.run_buffer import Half, RunBuffer
from emsqrt.external.runs import Runs
from emsqrt.long_row import LongRow
from sennit_core.errors import CapTooSmall, Closed

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt._kernel import Columns, KeySpec, RowStore
    from emsqrt.external.journal import Journal
    from emsqrt.spill import SpillManager

_RESERVE_BYTES = 16 << 10  # of a merge: its state, and an output block
_HALVED_BYTES_MIN = 2 << 20  # of a store, below which two threads would only wait for each other
_HALVED_SHARE = 3  # of the memory, for the blocks of all runs while they are cut from halves
_KEPT_TIMES, _KEPT_ROWS_MIN = 4, 1024  # rows gather to so many times a limit, or to so many


def sort_bytes(row_bytes: int) -> int:
    """Return memory in which rows of up to so many bytes, with their keys, are sorted."""
    # Two are merged into a third; the block that drains a run is one part in 64 of all.
    return row_bytes * 13 // 4 + 4 * _RESERVE_BYTES


@dataclass(frozen=True, slots=True)
class SortStats:
    """What a sort took, for the manifest.

    Args:
        rows: taken in.
        runs: sorted runs spilled, R; 0 when all fitted memory.
        passes: how often a row was read back at most, P.
        fan_in: the most runs in one merge, K.
        block_bytes: of the last run's blocks, b.
        spilled_bytes: written in all, before compression.
        row_bytes_max: the longest row, with its key.
        memory_bytes: the working memory, W.
        peak_bytes: the most of it in use.
    """

    rows: int
    runs: int
    passes: int
    fan_in: int
    block_bytes: int
    spilled_bytes: int
    row_bytes_max: int
    memory_bytes: int
    peak_bytes: int


class ExternalSort:
    """Sorts rows by key, stable: rows with equal keys leave as they came.

    Rows gather in memory; when it is full they are sorted by radix and spilled as a run. The end is
    a merge of all runs, after as many passes as memory asks for. Nothing is spilled when the rows
    fit. Close it, before the memory is given back.

    Where the spill has a second thread, further runs are cut from halves of the memory: one is
    sorted and spilled while the other fills. Shorter runs are more runs, so that ends when their
    blocks would take a third of the memory. Runs that are written down are cut from all of it.

    Args:
        memory: everything lies in it; from about 64 KiB and three times the longest row.
        spill: where runs go.
        keys: what orders rows; None when only `add_rows` is used.
        payload: what a row carries: "line", the indices of columns to pack, or None.
        name: of the segments, and in errors.
        limit: only the first so many rows are wanted, and the others are dropped early.
        numbered: keys end in the row's number (`add` only).
        check: called often; what it raises ends the work.
        journal: where runs are written down; an input that an earlier run took in is not to be
            given again (`rows_found`).

    Raises:
        CapTooSmall: a row is longer than memory allows; `needed_bytes` of memory would do.
    """

    def __init__(  # noqa: PLR0913 - settings, all but four by keyword
        self,
        memory: memoryview,
        spill: SpillManager,
        keys: KeySpec | None,
        payload: Literal["line"] | tuple[int, ...] | None,
        *,
        name: str = "sort",
        limit: int | None = None,
        numbered: bool = False,
        check: Callable[[], None] = lambda: None,
        journal: Journal | None = None,
    ) -> None:
        self._memory = memory
        self._keys = keys
        self._payload = payload
        self._name = name
        self._limit = limit
        self._numbered = numbered
        self._check = check
        self._journal = journal
        self._rows = 0
        self._peak_bytes = 0
        self._finished = False
        # The block that drains a run is held from the start: spilling never asks for memory.
        split = len(memory) - block_bytes(len(memory), 0)
        self._block = memory[split:]
        self._gathered: RunBuffer | None = RunBuffer(memory[:split])
        self._lane = spill.lane
        self._runs = Runs(memory, spill, name=name, check=check, limit=limit, journal=journal)
        self._rows = self._runs.rows_found

    @property
    def stats(self) -> SortStats:
        """What it took so far."""
        runs = self._runs.stats
        longest = 0 if self._gathered is None else self._gathered.part.store.row_bytes_max
        return SortStats(
            rows=self._rows,
            runs=runs.runs,
            passes=runs.passes,
            fan_in=runs.fan_in,
            block_bytes=runs.block_bytes,
            spilled_bytes=runs.spilled_bytes,
            row_bytes_max=max(longest, self._runs.row_bytes_max),
            memory_bytes=len(self._memory),
            peak_bytes=len(self._memory) if runs.runs else self._used_bytes(),
        )

    def add(self, columns: Columns, start: int = 0) -> None:
        """Take the rows of a batch from `start` on, spilling what memory has no room for."""
        gathered, keys = self._gathering(), self._keys
        assert keys is not None, "a sort without keys takes packed rows"
        count = len(columns)
        self._check()
        while start < count and self._limit != 0:
            sequence = self._rows if self._numbered else None
            store = gathered.part.store
            taken = store.add(columns, keys, self._payload, start, sequence)
            self._rows += taken
            start += taken
            dropped = self._drop_beyond_limit(store)
            if start < count and not dropped and not self._make_room():
                row = store.row_bytes(columns, keys, self._payload, start, self._numbered)
                raise self._too_long(row, f"row {self._rows}")

    def add_rows(self, block: Buffer) -> None:
        """Take all rows of a block (rows.h), spilling what memory has no room for."""
        gathered = self._gathering()
        self._check()
        with memoryview(block).cast("B") as rows:
            start = 0
            while start < len(rows) and self._limit != 0:
                store = gathered.part.store
                before = store.rows
                start += store.add_rows(rows, start)
                self._rows += store.rows - before
                dropped = self._drop_beyond_limit(store)
                if start < len(rows) and not dropped and not self._make_room():
                    row = int.from_bytes(rows[start : start + 4], "little")
                    raise self._too_long(row, f"row {self._rows}")

    def finish(self) -> None:
        """End the input; merges until one pass is left, which `blocks` then does."""
        gathered = self._gathering()
        self._finished = True
        self._lane.wait()
        store = gathered.part.store
        if not self._runs:
            self._peak_bytes = self._used_bytes()
            store.sort()
            return
        self._refuse_long_rows(store.row_bytes_max)
        if store.rows:
            self._spill_run(gathered.part, self._rows, complete=True)
        else:
            self._runs.complete()
        self._runs.settle(store.positions)

    def blocks(
        self, out: memoryview | OutputBuffer, *, ending: bytes | None = None
    ) -> Iterator[tuple[int, int]]:
        """Fill `out` with the next rows in order, again and again; once.

        Args:
            out: memory of the caller's, for at least the longest row.
            ending: write payloads alone, each followed by this, such as a line end.

        Yields:
            (bytes, rows) that lie at the start of `out`, or of its `room`.

        Raises:
            CapTooSmall: a row is longer than `out`.
        """
        assert self._finished, "finish first"
        if self._gathered is None:
            raise Closed(f"the {self._name}")
        store = self._gathered.part.store
        if self._runs:
            yield from self._runs.blocks(out, store.positions, ending)
        else:
            yield from self._drain(store, OutputBuffer.over(out), ending)

    def close(self) -> None:
        """Remove what was spilled and let go of the memory. Closing twice is fine."""
        self._lane.settle()
        self._runs.close()
        self._gathered = None

    def _gathering(self) -> RunBuffer:
        if self._gathered is None or self._finished:
            raise Closed(f"the input of the {self._name}")
        return self._gathered

    def _used_bytes(self) -> int:
        if self._gathered is None:
            return self._peak_bytes
        store = self._gathered.part.store
        return max(self._peak_bytes, store.used_bytes + ENTRY_BYTES * store.rows)

    def _drop_beyond_limit(self, store: RowStore) -> bool:
        """Keep what the limit asks for when several times as many rows are there; whether it did.

        Later rows that would not be kept are left out as they come, so that a large memory is not
        filled with rows of which a few are wanted.
        """
        limit = self._limit
        if limit is None or store.rows < max(_KEPT_TIMES * limit, _KEPT_ROWS_MIN):
            return False
        self._peak_bytes = max(self._peak_bytes, self._used_bytes())
        store.sort()
        store.keep(limit, bounding=True)
        return True

    def _make_room(self) -> bool:
        """Spill the rows, or drop those beyond the limit; False when there are none."""
        gathered = self._gathering()
        store = gathered.part.store
        self._check()
        if store.rows == 0:
            return self._join(gathered)
        self._peak_bytes = max(self._peak_bytes, self._used_bytes())
        if self._limit is not None and 2 * self._limit <= store.rows:
            before = store.used_bytes
            store.sort()
            store.keep(self._limit, bounding=True)
            if 2 * store.used_bytes <= before:
                return True
        self._refuse_long_rows(store.row_bytes_max)
        self._lane.wait()
        if gathered.is_halved and self._halves_pay():
            self._lane.run(partial(self._spill_run, gathered.turn(), self._rows))
            return True
        self._spill_run(gathered.part, self._rows)
        if self._runs.is_crowded():
            self._runs.thin_out(store.positions)
        if self._halves_pay():
            gathered.halve()
        else:
            self._join(gathered)
        return True

    def _halves_pay(self) -> bool:
        """Whether the next runs should be cut from halves of the memory."""
        return (
            self._lane.is_second
            and self._limit is None
            and self._journal is None
            and len(self._memory) >= _HALVED_BYTES_MIN
            and self._runs.leaves_room(_HALVED_SHARE)
        )

    def _join(self, gathered: RunBuffer) -> bool:
        """Let rows gather in all of the memory again; False when they do already."""
        if not gathered.is_halved:
            return False
        self._lane.wait()
        gathered.join()
        return True

    def _spill_run(self, part: Half, rows_before: int, *, complete: bool = False) -> None:
        """Write the rows of a part as a run; the first `rows_before` rows lie in runs then."""
        store = part.store
        store.sort()
        position = 0
        stop = store.rows if self._limit is None else min(store.rows, self._limit)
        block = self._block[: self._runs.block_bytes]
        with self._runs.create() as writer:
            while position < stop:
                filled, rows = store.drain(block, position, stop)
                if rows:
                    writer.append(block[:filled], rows)
                else:  # longer than a block: a block of its own
                    first, end = store.row_span(position)
                    rows = 1
                    writer.append(part.memory[first:end], rows)
                position += rows
            self._runs.row_bytes_max = max(self._runs.row_bytes_max, store.row_bytes_max)
            self._runs.add(writer.finish(), rows_before, complete=complete)
        store.reset()

    def _drain(
        self, store: RowStore, out: OutputBuffer, ending: bytes | None
    ) -> Iterator[tuple[int, int]]:
        position = 0
        stop = store.rows if self._limit is None else min(store.rows, self._limit)
        while position < stop:
            self._check()
            filled, rows = store.drain(out.room, position, stop, ending)
            if rows == 0 and out.widen():
                continue
            if rows == 0:
                first, end = store.row_span(position)
                needed = end - first
                because = f"a row of the {self._name} has {needed} bytes"
                raise CapTooSmall(cap_bytes=len(out.room), needed_bytes=needed, because=because)
            position += rows
            yield filled, rows
            out.turn()

    def _refuse_long_rows(self, row_bytes: int) -> None:
        """A merge must hold two rows and write a third, whatever their lengths."""
        if 3 * row_bytes + _RESERVE_BYTES > len(self._memory):
            raise self._too_long(row_bytes, f"a row before row {self._rows}")

    def _too_long(self, row_bytes: int, which: str) -> CapTooSmall:
        return LongRow(
            cap_bytes=len(self._memory),
            needed_bytes=3 * row_bytes + _RESERVE_BYTES,
            because=f"{which} of the {self._name} has {row_bytes} bytes with its key",
            row_bytes=row_bytes,
        )
