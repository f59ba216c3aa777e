"""A buffer of sorted rows as column blocks, read by several cursors at different positions.

A window function looks ahead of a row for the end of its peers, its partition or its frame, and
back to the start of the frame. Each of these positions is a cursor that only moves forward. Blocks
from the first one that a cursor needs are held in slots of a fixed memory; blocks without a slot
are spilled in order, and read back when a cursor reaches them. So no partition, no peer group and
no frame has to fit memory.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emsqrt._kernel import Columns, row_changes, unpack_rows
from emsqrt.long_row import LongRow

if TYPE_CHECKING:
    from emsqrt.spill import Segment, SegmentReader, SegmentWriter, SpillManager

SLOTS_MIN = 6
"""Slots for the current row, both ends of a frame, one to look ahead, and some to load into."""
NEW_PEERS, NEW_PARTITION = 1, 2
"""Bits of a row's flag: its key, or the partition's part of it, differs from the row before."""
ROWS_MAX = 8192
"""The most rows of a block: readers allocate 8 bytes per row outside the buffer's memory."""
_READERS_MAX = 4  # spilled segments open at a time
_ALIGN = 64
_WORDS = 7  # of each column: nulls, and the spans of validity, values and ends
_HEAD_WORDS = 5

Span = tuple[int, int]


@dataclass(slots=True)
class WindowBlock:
    """Some rows, as columns in a slot; valid until another block is requested from the buffer.

    Args:
        number: the number of the block.
        first: the number of its first row.
        rows: its number of rows.
        memory: the slot.
        nulls: the null count of each column.
        spans: validity, values and ends of each column in `memory`; ends may be empty.
        flags: the position of the rows' flags.
    """

    number: int
    first: int
    rows: int
    memory: memoryview
    nulls: list[int]
    spans: list[tuple[Span, Span, Span]]
    flags: Span
    used: int

    @property
    def end(self) -> int:
        """The number of the row after its last."""
        return self.first + self.rows

    def flags_view(self) -> memoryview:
        """Return the flags, a byte a row."""
        return self.memory[self.flags[0] : self.flags[1]]

    def views(self, column: int) -> tuple[memoryview | None, memoryview, memoryview | None]:
        """Return validity (None when no value is null), values and ends of a column."""
        validity, values, ends = (self.memory[start:stop] for start, stop in self.spans[column])
        return validity if self.nulls[column] else None, values, ends if len(ends) else None

    def column(self, column: int, kind: int) -> Columns:
        """Return one column as the kernel sees it; it holds the slot's memory."""
        validity, values, ends = self.views(column)
        return Columns(self.rows, [(kind, 0, validity, values, ends)])


class Cursor:
    """A position in the buffer. It keeps its block and all later ones."""

    def __init__(self, buffer: WindowBuffer) -> None:
        self._buffer = buffer
        self.number = 0
        self.first = 0
        self.pinned = False

    def block_of(self, row: int) -> WindowBlock | None:
        """Move forward to the block that contains `row`, and return it; None past the end."""
        while True:
            block = self._buffer.block(self.number)
            if block is None or row < block.end:
                assert block is None or row >= block.first, "no cursor may come back"
                return block
            self.number, self.first = self.number + 1, block.end

    def need_from(self, row: int, block: WindowBlock) -> None:
        """Release all rows before `row`.

        Args:
            row: the first row that will be requested.
            block: a block near it; the call is free if `row` is in this block or after it.
        """
        if row >= block.end:
            if self.number <= block.number:
                self.number, self.first = block.number + 1, block.end
        elif row >= block.first:
            if self.number < block.number:
                self.number, self.first = block.number, block.first
        elif row >= self.first:
            self.block_of(row)


@dataclass(slots=True)
class _Stored:
    """Consecutive spilled blocks: finished, or still being written."""

    first: int
    blocks: int = 0
    writer: SegmentWriter | None = None
    segment: Segment | None = None
    reader: SegmentReader | None = field(default=None, repr=False)


class WindowBuffer:
    """A buffer of sorted rows for window functions. Close it before its memory is released.

    Args:
        memory: memory for at least `SLOTS_MIN` slots; its address is a multiple of 64.
        slot_bytes: the size of a slot, a multiple of 64.
        spill: the spill manager for blocks without a slot.
        blocks: fills `out` repeatedly with sorted rows, like `ExternalSort.blocks`.
        out: the memory that `blocks` fills.
        kinds: the kinds of the columns in the rows' payload.
        partition: the kinds of the first key columns, a byte each, that define a partition.
        check: called often; an exception that it raises ends the work.
    """

    def __init__(  # noqa: PLR0913 - what an input is, and what to work in
        self,
        memory: memoryview,
        slot_bytes: int,
        spill: SpillManager,
        blocks: Iterator[tuple[int, int]],
        out: memoryview,
        kinds: Sequence[int],
        partition: bytes,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        count = len(memory) // slot_bytes
        assert count >= SLOTS_MIN, "too few slots"
        # State, by block number:
        #
        #        dropped      │    held in slots or spilled     │  not read yet
        #     0 … _floor - 1  │  _floor … _written … _pulled - 1 │  _pulled …
        #
        # `_floor`    the first block that some cursor needs
        # `_written`  the first block that was never spilled: earlier ones can lose their slot
        # `_pulled`   the number of the next block from the sort
        # `_rows`     rows of all blocks so far
        # `_stored`   spilled blocks, ascending, each a sequence of consecutive ones
        self._slots = [memory[slot_bytes * at : slot_bytes * (at + 1)] for at in range(count)]
        self._free = list(range(count))
        self._held: dict[int, tuple[int, WindowBlock]] = {}  # least recently used first
        self._spill = spill
        self._blocks = blocks
        self._out = out
        # The part of `_out` that is filled, its rows that are not unpacked yet, and where they
        # begin.
        self._filled = self._rows_left = self._start = 0
        self._kinds = list(kinds)
        self._partition = partition
        # The key of the last row unpacked, as a row without a payload, for the first flag of the
        # next block.
        self._previous = b""
        self._check = check
        self._cursors: list[Cursor] = []
        self._stored: deque[_Stored] = deque()
        self._floor = self._pulled = self._written = self._rows = 0
        self._ended = False
        words = _HEAD_WORDS + _WORDS * len(kinds)
        self._head = struct.Struct(f"<{words}q")
        self._head_bytes = -(-self._head.size // _ALIGN) * _ALIGN

    @property
    def rows(self) -> int | None:
        """The number of rows; None until the end was read."""
        return self._rows if self._ended else None

    def cursor(self) -> Cursor:
        """Return a new cursor at the first row; only before the first read."""
        cursor = Cursor(self)
        self._cursors.append(cursor)
        return cursor

    def drop_passed(self) -> None:
        """Drop the blocks that all cursors have passed."""
        self._floor = min(cursor.number for cursor in self._cursors)
        for number in [number for number in self._held if number < self._floor]:
            self._free.append(self._held.pop(number)[0])
        while self._stored and self._stored[0].first + self._stored[0].blocks <= self._floor:
            self._drop(self._stored.popleft())

    def block(self, number: int) -> WindowBlock | None:
        """Return a block at or after the first cursor; None past the end.

        Raises:
            CapTooSmall: a row is longer than a slot.
        """
        # Removed and added again: the last entry of the dict is the one used last.
        held = self._held.pop(number, None)
        if held is not None:
            self._held[number] = held
            return held[1]
        assert number >= self._floor, "no cursor may come back"
        while number >= self._pulled:
            if not self._pull():
                return None
        held = self._held.get(number)
        return self._load(number) if held is None else held[1]

    def close(self) -> None:
        """Remove the spilled blocks and drop all references to the memory."""
        while self._stored:
            self._drop(self._stored.popleft())
        self._held.clear()
        self._slots.clear()
        self._cursors.clear()

    # Blocks come from the sort, are spilled when slots are needed, and are read back later.

    def _pull(self) -> bool:
        """Make the next block of the sorted rows; return False at their end."""
        if self._start >= self._filled:
            self._check()
            filled, rows = next(self._blocks, (0, 0))
            self._filled, self._rows_left, self._start = filled, rows, 0
            if not rows:
                self._ended = True
                return False
        at = self._free_slot()
        block = self._unpack(self._slots[at])
        self._held[block.number] = at, block
        return True

    def _unpack(self, slot: memoryview) -> WindowBlock:
        rows_max = min(self._rows_left, ROWS_MAX)
        # A slot:
        #
        #     | head: number, bytes, spans | columns: validity, values, ends | flags, a byte a row |
        #
        # The head makes a spilled block readable without any state in memory.
        flags_room = -(-rows_max // _ALIGN) * _ALIGN
        room = len(slot) - flags_room
        head = self._head_bytes
        packed = self._out[: self._filled]
        try:
            rows, following, filled = unpack_rows(
                packed, self._start, rows_max, self._kinds, slot[head : max(room, head)]
            )
        except ValueError as error:
            row = int.from_bytes(packed[self._start : self._start + 4], "little")
            # Twice: the buffers of all columns, each aligned, must fit the slot too.
            needed = (row + self._head_bytes + flags_room) * 2
            because = f"row {self._rows} of the window has {row} bytes"
            raise LongRow(
                cap_bytes=len(slot),
                needed_bytes=max(needed, len(slot) + 1),
                because=because,
                row_bytes=row,
            ) from error
        stop = head
        spans = []
        for _, _, validity, values, ends in filled:
            moved = [
                (0, 0) if span is None else (span[0] + head, span[1] + head)
                for span in (validity, values, ends)
            ]
            stop = max(stop, *(end for _, end in moved))
            spans.append((moved[0], moved[1], moved[2]))
        flags = (-(-stop // _ALIGN) * _ALIGN, -(-stop // _ALIGN) * _ALIGN + rows)
        last = row_changes(
            packed, self._start, self._partition, self._previous, slot[flags[0] : flags[1]]
        )
        # Row layout of rows.h: u32 row_bytes, u32 key_bytes, key, payload.
        key_bytes = int.from_bytes(packed[last + 4 : last + 8], "little")
        self._previous = struct.pack("<II", 8 + key_bytes, key_bytes) + bytes(
            packed[last + 8 : last + 8 + key_bytes]
        )
        nulls = [column[1] for column in filled]
        block = WindowBlock(self._pulled, self._rows, rows, slot, nulls, spans, flags, flags[1])
        words = [block.number, block.used, block.first, rows, flags[0]]
        for count, (validity, values, ends) in zip(nulls, spans, strict=True):
            words += [count, *validity, *values, *ends]
        self._head.pack_into(slot, 0, *words)
        self._pulled += 1
        self._rows += rows
        self._rows_left -= rows
        self._start = following
        return block

    def _free_slot(self) -> int:
        """Return a slot that no cursor needs now; its block is spilled first if still needed."""
        while not self._free:
            # Blocks that may not lose their slot: pinned ones, whose memory is in use, and the one
            # used last.
            kept = {cursor.number for cursor in self._cursors if cursor.pinned}
            kept.add(next(reversed(self._held)))  # the most recently used
            # Least recently used first, and only blocks that are spilled already: no write is needed.
            for number in self._held:
                if number not in kept and number < self._written:
                    self._free.append(self._held.pop(number)[0])
                    break
            else:
                self._write()
        return self._free.pop()

    def _write(self) -> None:
        """Spill the first block that was not spilled yet."""
        # Blocks that all cursors have passed are never written.
        self._written = max(self._written, self._floor)
        _, block = self._held[self._written]
        last = self._stored[-1] if self._stored else None
        # Consecutive blocks share a segment. A gap, or a segment that was finished to be read,
        # begins a new one.
        if last is None or last.writer is None or last.first + last.blocks != self._written:
            if last is not None:
                self._finish(last)
            last = _Stored(self._written, writer=self._spill.create("window"))
            self._stored.append(last)
        assert last.writer is not None
        last.writer.append(block.memory[: block.used], block.rows)
        last.blocks += 1
        self._written += 1

    def _finish(self, stored: _Stored) -> None:
        if stored.writer is not None:
            stored.segment = stored.writer.finish()
            stored.writer = None

    def _load(self, number: int) -> WindowBlock:
        stored = next(each for each in self._stored if number < each.first + each.blocks)
        at = self._free_slot()
        # A segment can be read only once it is complete; the next block that is spilled begins
        # another one.
        self._finish(stored)
        if stored.reader is None:
            assert stored.segment is not None
            # An open reader is a file and may hold a window of a store's memory.
            open_now = [each for each in self._stored if each.reader is not None]
            if len(open_now) >= _READERS_MAX:
                self._close_reader(open_now[0])
            stored.reader = self._spill.open(stored.segment)
        # Cursors go forward, so the next block of a segment is usually the one that is wanted.
        if stored.reader.next_block != number - stored.first:
            stored.reader.seek(number - stored.first)
        slot = self._slots[at]
        stored.reader.read_into(slot)
        # A block is spilled with its head, so that its columns are found again as they were placed.
        found, used, first, rows, flags, *words = self._head.unpack_from(slot, 0)
        assert found == number, "blocks are read in the order in which they were spilled"
        nulls = words[::_WORDS]
        spans = [
            ((one[0], one[1]), (one[2], one[3]), (one[4], one[5]))
            for one in (words[start + 1 : start + _WORDS] for start in range(0, len(words), _WORDS))
        ]
        block = WindowBlock(number, first, rows, slot, nulls, spans, (flags, flags + rows), used)
        self._held[number] = at, block
        return block

    def _close_reader(self, stored: _Stored) -> None:
        if stored.reader is not None:
            stored.reader.close()
            stored.reader = None

    def _drop(self, stored: _Stored) -> None:
        self._close_reader(stored)
        if stored.writer is not None:
            stored.writer.abort()
        if stored.segment is not None:
            self._spill.remove(stored.segment)
