"""Merge join of two inputs that are sorted by their keys: each is read once, no table is built.

1. A window over the right side moves forward with the keys of the left rows.
2. Each left row is joined with the rows of its key in the window.
3. Right rows that no left row matched are kept for the end, or dropped, as the kind requires.
4. Rows of one key that do not fit the window are spilled, and read again for each left row that has
   the key.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from emsqrt._kernel import MergeJoiner, join_cross, key_run, null_extend_rows
from emsqrt.external.join_output import (
    FORWARD,
    MARK,
    RIGHT_SEQUENCED,
    HashJoinKind,
    JoinOutput,
    JoinStats,
)
from emsqrt.external.partition import blocks_of
from sennit_core.errors import BadInput, CapTooSmall

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt.spill import Segment, SegmentWriter, SpillManager

MEMORY_BYTES_MIN = 64 << 10
_REST_SHARE = 8
# Why `MergeJoiner.run` returned; in the order of `enum em_merge_stop` (merge_join.h).
_LEFT_ENDED, _MORE_RIGHT, _OUT_FULL, _REST_FULL, _UNSORTED = range(5)

Pieces = Iterator[tuple[int, int]]


class MergeJoin:
    """Joins sorted rows in the order of the left side; unmatched right rows are written last.

    Args:
        memory: memory for the window over the right side, and for unmatched right rows.
        spill: the spill manager for keys with more rows than the window, and unmatched right rows.
        how: inner, left, right, full, semi or anti.
        name: the name of the segments.
        row_bytes_max: the longest right row, if it may be more than an eighth of the memory.
        right_numbered: whether right payloads begin with the row's number.
        check: called often; an exception that it raises ends the work.

    Raises:
        CapTooSmall: the memory is below `MEMORY_BYTES_MIN`, or two right blocks do not fit it.
        BadInput: an input is not sorted by its keys; rows with a NULL in the key may be anywhere.
    """

    def __init__(  # noqa: PLR0913 - settings, all but three by keyword
        self,
        memory: memoryview,
        spill: SpillManager,
        how: HashJoinKind,
        *,
        name: str = "merge-join",
        row_bytes_max: int = 0,
        right_numbered: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        if len(memory) < MEMORY_BYTES_MIN:
            raise CapTooSmall(
                cap_bytes=len(memory), needed_bytes=MEMORY_BYTES_MIN, because="a join works in it"
            )
        self.stats = JoinStats()
        #     | window over the right side: rows not passed yet → | unmatched right rows → |
        #       `_window`, `_filled` bytes                          `_rest`, `_rest_filled` bytes
        split = len(memory) - max(len(memory) // _REST_SHARE, row_bytes_max)
        self._window, self._rest = memory[:split], memory[split:]
        self._spill = spill
        self._numbers = RIGHT_SEQUENCED if right_numbered else 0
        self._flags = FORWARD[how].flags | self._numbers
        self._name = name
        self._check = check
        self._joiner = MergeJoiner(self._flags)
        self._filled = 0  # bytes in the window
        self._rest_filled = 0
        self._rest_writer: SegmentWriter | None = None
        self._right: Iterator[Buffer] = iter(())
        self._right_ended = False
        self._pending: memoryview | None = None  # rest of a right block that did not fit the window
        # A key with more rows than the window has: they are in a segment, read for each left row.
        self._long: tuple[bytes, Segment] | None = None
        # The last keys seen, of the left and of the right side: a smaller one means unsorted input.
        self._left_key = self._right_key = b""
        self._gone_key = b""  # the last key whose rows were spilled and removed

    def blocks(self, left: Iterable[Buffer], right: Iterable[Buffer], joined: JoinOutput) -> Pieces:
        """Join blocks of sorted rows; a block is no longer used when the next one is requested.

        Yields:
            (bytes, rows) of joined rows at the start of the memory of `joined`.
        """
        self.begin(right)
        for block in left:
            with memoryview(block) as rows:
                if (yield from self.join(rows, joined)) < len(rows):
                    raise _unsorted("left")
        yield from self.finish(joined)

    def finish(self, joined: JoinOutput) -> Pieces:
        """End the left side: yield unmatched right rows, and the rows that `joined` still has."""
        if self._flags & MARK:
            yield from self._write_rest(joined)
        if joined.rows:
            yield joined.flush()

    def begin(self, right: Iterable[Buffer]) -> None:
        """Set the right side, before the first left block is joined."""
        self._right = iter(right)

    def join(self, rows: memoryview, joined: JoinOutput) -> Generator[tuple[int, int], None, int]:
        """Join a left block; yield the rows of `joined` each time it is full.

        Returns:
            The position of the first row that is out of order, the block's length if there is none.
            The rows before it are joined.
        """
        self._check()
        # Checked before the kernel sees the block: joining must not begin with a key that went by.
        if not self._may_come(rows, 0, self._left_key):
            return 0
        self._joiner.next_left()
        end = yield from self._join(rows, joined)
        self._left_key = _key(rows, self._joiner.left_last) or self._left_key
        return end

    def abandon(self) -> tuple[bytes, Segment | None]:
        """End the merge because the left side is out of order.

        Returns:
            The last left key that was joined, and the unmatched right rows before it.
        """
        if self._rest_filled:
            self._spill_rest()
        rest = None if self._rest_writer is None else self._rest_writer.finish()
        self._rest_writer = None
        return self._left_key, rest

    def close(self) -> None:
        """Remove the spilled rows."""
        self._drop_long()
        self._pending = None
        if self._rest_writer is not None:
            self._rest_writer.abort()
            self._rest_writer = None

    def _join(self, rows: memoryview, joined: JoinOutput) -> Generator[tuple[int, int], None, int]:
        while True:
            if self._long is not None:
                key = self._long[0]
                yield from self._join_long(rows, *self._long, joined)
                at = self._joiner.left_at
                self._gone_key = key
                if at == len(rows) or not self._may_come(rows, at, key):
                    return at
                self._drop_long()
                self._append_pending()
            rest = self._rest[self._rest_filled :]
            why, filled, wrote, kept, _ = self._joiner.run(
                rows, self._window[: self._filled], joined.room(), rest, self._right_ended
            )
            joined.wrote(filled, wrote)
            self._rest_filled += kept
            if why == _LEFT_ENDED:
                return len(rows)
            if why == _OUT_FULL:
                yield joined.flush()
            elif why == _REST_FULL:
                if not self._rest_filled:
                    raise CapTooSmall(
                        cap_bytes=len(rest),
                        needed_bytes=2 * len(rest),
                        because="a row of the join is longer than an eighth of its memory",
                    )
                self._spill_rest()
            elif why == _UNSORTED:
                at = self._joiner.left_at
                # The kernel does not say which side is out of order: if the left row follows the
                # one before it, it is the right side.
                if not _follows(rows, at, _key(rows, self._joiner.left_last)):
                    return at
                raise _unsorted("right")
            else:
                self._extend(_key(rows, self._joiner.left_at))

    def _may_come(self, rows: memoryview, at: int, last: bytes) -> bool:
        """Return whether the next left row with a key is in order and its matches are available."""
        at = key_run(rows, at, b"")
        # A left row with a key whose right rows were removed cannot be matched any more, although
        # it is not smaller than the one before it.
        is_gone = self._gone_key and _key(rows, at) == self._gone_key
        if is_gone and (self._long is None or at > 0):
            return False
        return _follows(rows, at, last)

    def _extend(self, key: bytes) -> None:
        """Move the window to the next right block; all rows that it keeps have this key."""
        self._check()
        start = self._joiner.right_at
        self._right_key = _key(self._window, self._joiner.right_last) or self._right_key
        self._filled -= start
        # Rows before `right_at` are joined with all left rows that they match; the rest moves to
        # the front.
        self._window[: self._filled] = self._window[start : start + self._filled]
        self._joiner.moved()
        self._pull()
        if self._pending is None:
            return
        if self._filled + len(self._pending) <= len(self._window):
            self._append_pending()
        # All rows in the window have the key of the current left row, and the next block does not
        # fit next to them.
        elif self._filled:
            self._spill_long(key)
        else:
            raise CapTooSmall(
                cap_bytes=len(self._window),
                needed_bytes=len(self._pending),
                because="a block of a sorted input is longer than the join's memory",
            )

    def _pull(self) -> None:
        block = next(self._right, None)
        self._pending = None if block is None else memoryview(block)
        self._right_ended = block is None

    def _append_pending(self) -> None:
        """Copy pending right rows, which were read but not joined yet, into the window."""
        if self._pending is None:
            return
        if not self._filled and not _follows(self._pending, 0, self._right_key):
            raise _unsorted("right")
        end = self._filled + len(self._pending)
        self._window[self._filled : end] = self._pending
        self._filled, self._pending = end, None

    def _spill_long(self, key: bytes) -> None:
        """Spill the window, whose rows all have this key, and all further right rows with it."""
        self.stats.nested_loops += 1
        with self._spill.create(f"{self._name}.key") as writer:
            # Only blocks are read back, one after another, so their numbers of rows are not needed.
            writer.append(self._window[: self._filled], 0)
            self._filled = 0
            while self._pending is not None:
                end = key_run(self._pending, 0, key)
                writer.append(self._pending[:end], 0)
                self._pending = self._pending[end:]
                # A right row with another key: the spilled key is complete.
                if len(self._pending):
                    break
                self._pull()
            self._long = key, writer.finish()
        self.stats.spilled_bytes += self._long[1].raw_bytes
        self._right_key = key

    def _join_long(
        self, rows: memoryview, key: bytes, segment: Segment, joined: JoinOutput
    ) -> Pieces:
        """Join each left row that has this key with all rows of the segment."""
        at = self._joiner.left_at
        end = key_run(rows, at, key)
        while at < end:
            (row_bytes,) = struct.unpack_from("<I", rows, at)
            one = rows[at : at + row_bytes]
            # One left row at a time, as the output is in the order of the left side.
            for others, _ in blocks_of(segment, self._spill, self._window):
                self._check()
                left_at = right_at = 0
                while left_at < row_bytes:
                    left_at, right_at, *wrote = join_cross(
                        one, left_at, others, right_at, joined.room(), self._numbers
                    )
                    joined.wrote(*wrote)
                    if left_at < row_bytes:
                        yield joined.flush()
            at += row_bytes
        self._joiner.skip_left(end)
        self._left_key = key

    def _drop_long(self) -> None:
        if self._long is not None:
            self._spill.remove(self._long[1])
            self._long = None

    def _write_rest(self, joined: JoinOutput) -> Pieces:
        """Write the unmatched right rows: those kept so far, and all that were not read yet."""
        if self._long is not None:
            self._drop_long()
            self._append_pending()
        # The rows of the last group have matched, even if no left row came after it.
        start = max(self._joiner.right_at, self._joiner.group_end)
        self._keep(self._window[start : self._filled])
        while True:
            self._pull()
            if self._pending is None:
                break
            self._check()
            self._keep(self._pending)
        if self._rest_writer is None:
            yield from self._write_null_extended(self._rest[: self._rest_filled], joined)
            return
        self._spill_rest()
        segment, self._rest_writer = self._rest_writer.finish(), None
        try:
            for rows, _ in blocks_of(segment, self._spill, self._window):
                yield from self._write_null_extended(rows, joined)
        finally:
            self._spill.remove(segment)

    def _write_null_extended(self, rows: memoryview, joined: JoinOutput) -> Pieces:
        at = 0
        while at < len(rows):
            at, *wrote, _ = null_extend_rows(rows, at, joined.room(), True, self._numbers)
            joined.wrote(*wrote)
            if at < len(rows):
                yield joined.flush()

    def _keep(self, rows: memoryview) -> None:
        """Keep right rows for the end, in memory while there is room."""
        end = self._rest_filled + len(rows)
        if self._rest_writer is None and end <= len(self._rest):
            self._rest[self._rest_filled : end] = rows
            self._rest_filled = end
        # Once some rows are spilled, all are: they must stay in the order of the right side.
        elif len(rows):
            self._spill_rest()
            assert self._rest_writer is not None, "`_spill_rest` creates it"
            self._rest_writer.append(rows, 0)
            self.stats.spilled_bytes += len(rows)

    def _spill_rest(self) -> None:
        if self._rest_writer is None:
            self._rest_writer = self._spill.create(f"{self._name}.rest")
        self._rest_writer.append(self._rest[: self._rest_filled], 0)
        self.stats.spilled_bytes += self._rest_filled
        self._rest_filled = 0


def _follows(rows: memoryview, at: int, last: bytes) -> bool:
    """Return whether the row at `at` may follow this key; a NULL key may be anywhere."""
    key = _key(rows, at)
    return not key or key >= last


def _key(rows: memoryview, at: int) -> bytes:
    """Return the key of the row at `at`; empty if there is no row, or a NULL in its key."""
    if at < 0 or at >= len(rows):
        return b""
    (key_bytes,) = struct.unpack_from("<I", rows, at + 4)
    return bytes(rows[at + 8 : at + 8 + key_bytes])


def _unsorted(side: str) -> BadInput:
    return BadInput(
        what=f"the {side} input of a merge join",
        reason="a key follows a greater one",
        hint="sort the input by its keys, or use a hash join",
    )
