"""`ExternalSort`: sort any number of rows by their keys in memory of a fixed size.

1. Rows collect in memory, each with a key whose bytes compare in the requested order.
2. Full memory is sorted by radix and spilled as a run.
3. Runs are merged until those that are left can be merged at once (`Runs`).
4. The last merge writes its rows to the consumer.

The memory while rows collect:

    | rows →          free          ← 32 bytes a row to sort them | block to write runs from |
"""

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
_HALVED_BYTES_MIN = 2 << 20  # with smaller stores, two threads would only wait for each other
_HALVED_SHARE = 3  # runs are cut from halves while a merge of them needs less than 1 / 3 of memory
_KEPT_TIMES, _KEPT_ROWS_MIN = 4, 1024  # rows beyond a limit are dropped at 4 * limit, at least 1024


def sort_bytes(row_bytes: int) -> int:
    """Return memory to sort rows of up to `row_bytes` bytes, with their keys."""
    # A merge holds two rows and writes a third; the output block is 1 / 64 of the memory.
    return row_bytes * 13 // 4 + 4 * _RESERVE_BYTES


@dataclass(frozen=True, slots=True)
class SortStats:
    """Statistics of a sort, for the manifest.

    Args:
        rows: rows read.
        runs: sorted runs spilled, R; 0 if all rows fitted memory.
        passes: how often a row was read back at most, P.
        fan_in: the most runs in one merge, K.
        block_bytes: the size of the last run's blocks, b.
        spilled_bytes: all bytes spilled, before compression.
        row_bytes_max: the longest row, with its key.
        memory_bytes: the working memory, W.
        peak_bytes: the most of it that was in use.
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
    """Sorts rows by key; the sort is stable: rows of equal keys stay in input order.

    Rows collect in memory; full memory is sorted by radix and spilled as a run. At the end all runs
    are merged, after as many passes as the memory requires. Nothing is spilled if all rows fit.
    Close the sort before its memory is released.

    If the spill manager has a second thread, further runs are cut from halves of the memory: one
    half is sorted and spilled while the other fills. These runs are shorter, so there are more of
    them; once their blocks would need a third of the memory, runs use all memory again. Runs that
    are recorded in a journal always use all memory.

    Args:
        memory: the memory for everything; at least 64 KiB and three times the longest row.
        spill: the spill manager for runs.
        keys: the sort keys; None if only `add_rows` is used.
        payload: the payload of a row: "line", the indices of columns to pack, or None.
        name: the name in segments and errors.
        limit: only this many first rows are needed; others are dropped early.
        numbered: append the row's number to its key (`add` only).
        check: called often; an exception that it raises ends the work.
        journal: where runs are recorded; input rows that an earlier process has read must not be
            added again (`rows_found`).

    Raises:
        CapTooSmall: a row is too long for the memory; `needed_bytes` of memory would be enough.
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
        # The block for spilling a run is reserved from the start: spilling must not need memory.
        split = len(memory) - block_bytes(len(memory), 0)
        self._block = memory[split:]
        self._run_buffer: RunBuffer | None = RunBuffer(memory[:split])
        self._background = spill.background
        self._runs = Runs(memory, spill, name=name, check=check, limit=limit, journal=journal)
        # Rows of the input that are in runs, in memory, or dropped. A resumed sort begins after the
        # rows that an earlier process has sorted.
        self._rows = self._runs.rows_found

    @property
    def stats(self) -> SortStats:
        """Statistics so far."""
        runs = self._runs.stats
        longest = 0 if self._run_buffer is None else self._run_buffer.part.store.row_bytes_max
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
        """Add the rows of a batch from `start` on, spilling when the memory is full."""
        run_buffer, keys = self._filling_buffer(), self._keys
        assert keys is not None, "a sort without keys accepts packed rows only"
        count = len(columns)
        self._check()
        while start < count and self._limit != 0:
            sequence = self._rows if self._numbered else None
            store = run_buffer.part.store
            added = store.add(columns, keys, self._payload, start, sequence)
            self._rows += added
            start += added
            dropped = self._drop_beyond_limit(store)
            # Rows are left and no room was made: the row does not even fit an empty store.
            if start < count and not dropped and not self._make_room():
                row = store.row_bytes(columns, keys, self._payload, start, self._numbered)
                raise self._too_long(row, f"row {self._rows}")

    def add_rows(self, block: Buffer) -> None:
        """Add all rows of a block (rows.h), spilling when the memory is full."""
        run_buffer = self._filling_buffer()
        self._check()
        with memoryview(block).cast("B") as rows:
            start = 0
            while start < len(rows) and self._limit != 0:
                store = run_buffer.part.store
                before = store.rows
                start += store.add_rows(rows, start)
                self._rows += store.rows - before
                dropped = self._drop_beyond_limit(store)
                if start < len(rows) and not dropped and not self._make_room():
                    row = int.from_bytes(rows[start : start + 4], "little")
                    raise self._too_long(row, f"row {self._rows}")

    def finish(self) -> None:
        """End the input, and merge until one pass is left, which `blocks` does."""
        run_buffer = self._filling_buffer()
        self._finished = True
        self._background.wait()
        store = run_buffer.part.store
        # Everything fitted: the rows are sorted where they are, and never copied to a file.
        if not self._runs:
            self._peak_bytes = self._used_bytes()
            store.sort()
            return
        self._refuse_long_rows(store.row_bytes_max)
        # The rows still in memory become a run too: a merge needs all of the memory.
        if store.rows:
            self._spill_run(run_buffer.part, self._rows, complete=True)
        else:
            self._runs.complete()
        self._runs.merge_to_last_pass(store.positions)

    def blocks(
        self, out: memoryview | OutputBuffer, *, ending: bytes | None = None
    ) -> Iterator[tuple[int, int]]:
        """Fill `out` repeatedly with the next rows in order; may be called once.

        Args:
            out: the caller's memory, for at least the longest row.
            ending: write only payloads, each followed by this, such as a line end.

        Yields:
            (bytes, rows) at the start of `out`, or of its `room`.

        Raises:
            CapTooSmall: a row is longer than `out`.
        """
        assert self._finished, "finish first"
        if self._run_buffer is None:
            raise Closed(f"the {self._name}")
        store = self._run_buffer.part.store
        if self._runs:
            yield from self._runs.blocks(out, store.positions, ending)
        else:
            yield from self._drain(store, OutputBuffer.over(out), ending)

    def close(self) -> None:
        """Remove the spilled runs and drop all references to the memory. May be called twice."""
        self._background.wait_idle()
        self._runs.close()
        self._run_buffer = None

    def _filling_buffer(self) -> RunBuffer:
        if self._run_buffer is None or self._finished:
            raise Closed(f"the input of the {self._name}")
        return self._run_buffer

    def _used_bytes(self) -> int:
        if self._run_buffer is None:
            return self._peak_bytes
        store = self._run_buffer.part.store
        return max(self._peak_bytes, store.used_bytes + ENTRY_BYTES * store.rows)

    def _drop_beyond_limit(self, store: RowStore) -> bool:
        """Drop rows beyond the limit once there are several times as many; return whether it did.

        Later rows that sort after the last row kept are skipped when they are added, so that a
        large memory is not filled with rows that are not needed.
        """
        limit = self._limit
        # Each of these sorts drops at least three quarters of the rows, so their total cost grows
        # with the rows added and not with their square.
        if limit is None or store.rows < max(_KEPT_TIMES * limit, _KEPT_ROWS_MIN):
            return False
        self._peak_bytes = max(self._peak_bytes, self._used_bytes())
        store.sort()
        store.keep(limit, bounding=True)
        return True

    def _make_room(self) -> bool:
        """Spill the rows, or drop those beyond the limit; return False if there are no rows."""
        run_buffer = self._filling_buffer()
        store = run_buffer.part.store
        self._check()
        # The store is empty and still refuses the row: a half may be too small where the whole is
        # not.
        if store.rows == 0:
            return self._join(run_buffer)
        self._peak_bytes = max(self._peak_bytes, self._used_bytes())
        if self._limit is not None and 2 * self._limit <= store.rows:
            # Dropping rows is enough only if it frees half of the memory. Otherwise the sort would be
            # repeated for ever fewer new rows, so the rows that are left are spilled too.
            before = store.used_bytes
            store.sort()
            store.keep(self._limit, bounding=True)
            if 2 * store.used_bytes <= before:
                return True
        # Before a run is written: rows that stay in memory are never merged, and may be longer.
        self._refuse_long_rows(store.row_bytes_max)
        self._background.wait()  # the other half may still be being spilled
        if run_buffer.is_halved and self._halves_pay():
            self._background.run(partial(self._spill_run, run_buffer.swap(), self._rows))
            return True
        self._spill_run(run_buffer.part, self._rows)
        if self._runs.has_too_many():
            self._runs.merge_some(store.positions)
        if self._halves_pay():
            run_buffer.halve()
        else:
            self._join(run_buffer)
        return True

    def _halves_pay(self) -> bool:
        """Return whether the next runs should be cut from halves of the memory."""
        # No journal: it names the batch that was being added, and with halves that is another one
        # (design/0044). And no merge that needs too much memory: halves make twice as many runs.
        return (
            self._background.is_second
            and self._limit is None
            and self._journal is None
            and len(self._memory) >= _HALVED_BYTES_MIN
            and self._runs.leaves_room(_HALVED_SHARE)
        )

    def _join(self, run_buffer: RunBuffer) -> bool:
        """Collect rows in all of the memory again; return False if that is the case already."""
        if not run_buffer.is_halved:
            return False
        self._background.wait()
        run_buffer.join()
        return True

    def _spill_run(self, part: Half, rows_before: int, *, complete: bool = False) -> None:
        """Spill the rows of a half as a run; afterwards `rows_before` input rows are in runs."""
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
            # Before `add`, which records it in the journal with the run.
            self._runs.row_bytes_max = max(self._runs.row_bytes_max, store.row_bytes_max)
            self._runs.add(writer.finish(), rows_before, complete=complete)
        # Only now: until the run is complete, these rows exist nowhere else.
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
            out.advance()

    def _refuse_long_rows(self, row_bytes: int) -> None:
        """Refuse rows so long that a merge could not hold two of them and write a third."""
        if 3 * row_bytes + _RESERVE_BYTES > len(self._memory):
            raise self._too_long(row_bytes, f"a row before row {self._rows}")

    def _too_long(self, row_bytes: int, which: str) -> CapTooSmall:
        return LongRow(
            cap_bytes=len(self._memory),
            needed_bytes=3 * row_bytes + _RESERVE_BYTES,
            because=f"{which} of the {self._name} has {row_bytes} bytes with its key",
            row_bytes=row_bytes,
        )
