"""Bounds of each row's peers, partition and frame, as row numbers of a buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emsqrt._kernel import Columns, RangeBound
from emsqrt.expr import SortKey
from emsqrt.external.window_buffer import NEW_PARTITION, NEW_PEERS, WindowBlock, WindowBuffer
from emsqrt.plan.window import Frame

if TYPE_CHECKING:
    from typing_extensions import Buffer

Rows = NDArray[np.int64]
_FAR = 1 << 60
"""Greater than every row number; distances are clipped to it."""


class Boundaries:
    """Finds the start of the next partition, or of the next peers, after a row."""

    def __init__(self, buffer: WindowBuffer, bit: int) -> None:
        self._buffer = buffer
        self._cursor = buffer.cursor()
        self._bit = bit
        # `_found` ≤ `_seen`:  rows up to `_seen` were searched
        self._found = 0  # the last boundary found; there is no other before `_seen`
        self._seen = 0

    def after(self, row: int, reach: int = _FAR) -> int:
        """Return the first boundary at or after `row`, or the number of all rows.

        Args:
            row: not less than in the previous call.
            reach: a boundary farther away need not be found; then any row from there up to it is
                returned.
        """
        # Consecutive blocks of one partition ask for the same boundary, which is searched for once.
        if self._found >= row:
            return self._found
        self._seen = max(self._seen, row)
        while self._seen < reach:
            block = self._cursor.block_of(self._seen)
            if block is None:
                assert self._buffer.rows is not None
                self._found = self._seen = self._buffer.rows
                return self._found
            flags = np.frombuffer(block.flags_view(), np.uint8)[self._seen - block.first :]
            # argmax is the first one that is not zero; 0 if there is none.
            marked = flags & self._bit
            at = int(marked.argmax())
            if marked[at]:
                self._found = self._seen + at
                self._seen = self._found + 1
                return self._found
            self._seen = block.end
        return self._seen

    def pass_block(self, block: WindowBlock) -> None:
        """Search only after this block from now on."""
        self._cursor.need_from(block.end, block)


class Places:
    """The rows of one block, with the bounds of their partitions and peers."""

    def __init__(self, block: WindowBlock, before: Places | None, ahead: Ahead) -> None:
        """Find the starts.

        Args:
            block: the rows.
            before: the places of the previous block.
            ahead: searches for ends after the block.
        """
        self.first, self.end, self.rows = block.first, block.end, block.rows
        self._ahead = ahead
        flags = np.frombuffer(block.flags_view(), np.uint8).copy()
        self.index: Rows = np.arange(self.first, self.end, dtype=np.int64)
        self._new_partition = (flags & NEW_PARTITION) != 0
        self._new_peers = (flags & NEW_PEERS) != 0
        # Carried from block to block: start of partition, start of peers, number of peer groups,
        # and of the partition's first group.
        last = (0, 0, 0, 0) if before is None else before.last
        self.partition = _carried(self.index, self._new_partition, last[0])
        self.peers = _carried(self.index, self._new_peers, last[1])
        self.group = last[2] + np.cumsum(self._new_peers, dtype=np.int64)
        groups = np.where(self._new_partition, self.group, 0)
        groups[0] = groups[0] or last[3]
        self.first_group: Rows = np.maximum.accumulate(groups)
        self.last: tuple[int, int, int, int] = (
            int(self.partition[-1]),
            int(self.peers[-1]),
            int(self.group[-1]),
            int(self.first_group[-1]),
        )
        self._ends: Rows | None = None
        self._peer_ends: Rows | None = None

    def partition_end(self, reach: int = _FAR) -> Rows:
        """Return the end of each row's partition, as far as `reach` rows ahead."""
        if self._ends is not None:
            return self._ends
        behind = self._ahead.partitions.after(self.end, reach)
        ends = _ends(self.index, self._new_partition, behind)
        # An end within `reach` only is no end to remember.
        if reach == _FAR:
            self._ends = ends
        return ends

    def peers_end(self) -> Rows:
        """Return the end of each row's peers."""
        if self._peer_ends is None:
            behind = self._ahead.peers.after(self.end)
            self._peer_ends = _ends(self.index, self._new_peers, behind)
        return self._peer_ends


class Ahead:
    """Searches ahead of a block."""

    def __init__(self, buffer: WindowBuffer) -> None:
        self.partitions = Boundaries(buffer, NEW_PARTITION)
        self.peers = Boundaries(buffer, NEW_PEERS)

    def pass_block(self, block: WindowBlock) -> None:
        """Search only after this block from now on."""
        self.partitions.pass_block(block)
        self.peers.pass_block(block)


def _carried(index: Rows, begins: NDArray[np.bool_], before: int) -> Rows:
    """Return for each row the last start at or before it."""
    places = np.where(begins, index, 0)
    # The running maximum of starts is the last start: row numbers only rise.
    places[0] = index[0] if begins[0] else before
    carried: Rows = np.maximum.accumulate(places)
    return carried


def _ends(index: Rows, begins: NDArray[np.bool_], behind: int) -> Rows:
    """Return for each row the first start after it."""
    # The same from behind: the running minimum of starts from the right is the next start.
    places = np.full(len(index), behind, np.int64)
    np.copyto(places[:-1], index[1:], where=begins[1:])
    ends: Rows = np.minimum.accumulate(places[::-1])[::-1]
    return np.ascontiguousarray(ends)


class FrameBounds:
    """The frames of rows as row numbers, [low, high); both are non-decreasing from row to row.

    Args:
        frame: the frame clause.
        buffer: the rows.
        key: the order key that distances refer to, and its column and kind in the buffer.
    """

    def __init__(
        self, frame: Frame, buffer: WindowBuffer, key: tuple[SortKey, int, int] | None
    ) -> None:
        self._frame = frame
        self._buffer = buffer
        by_value = frame.unit == "range"
        self._start = _by_value(frame.start, buffer, key, is_end=False) if by_value else None
        self._end = _by_value(frame.end, buffer, key, is_end=True) if by_value else None
        to_peers = by_value and frame.start == 0 and frame.end == 0
        self.slides = frame.start is not None and not to_peers
        """Whether a frame may begin inside the previous one."""
        self._done: tuple[int, Rows, Rows] | None = None

    def __call__(self, places: Places, block: WindowBlock) -> tuple[Rows, Rows]:
        """Return the start and end of the frames of a block's rows."""
        if self._done is None or self._done[0] != places.first:
            low = np.ascontiguousarray(self._low(places, block))
            # An empty frame, not a negative one.
            high = np.maximum(self._high(places, block), low)
            self._done = places.first, low, high
        return self._done[1:]

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Release rows that only this block, or an earlier one, needs."""
        for bound in (self._start, self._end):
            if bound is not None:
                bound.pass_block(places, block)

    def _low(self, places: Places, block: WindowBlock) -> Rows:
        start = self._frame.start
        if start is None:
            return places.partition
        if self._start is not None:
            low = self._start(places, block)
            return np.where(low < 0, places.peers, low)
        if self._frame.unit == "range":
            return places.peers
        low = np.maximum(places.index + _near(start), places.partition)
        # A frame that starts at the row or before needs no search for the end of the partition.
        if start <= 0:
            return low
        return np.minimum(low, places.partition_end(places.end + _near(start)))

    def _high(self, places: Places, block: WindowBlock) -> Rows:
        end = self._frame.end
        if end is None:
            return places.partition_end()
        if self._end is not None:
            high = self._end(places, block)
            return np.where(high < 0, places.peers_end(), high) if (high < 0).any() else high
        if self._frame.unit == "range":
            return places.peers_end()
        high = np.maximum(places.index + (_near(end) + 1), places.partition)
        if end < 0:
            return high
        if end == 0:
            return places.index + 1
        return np.minimum(high, places.partition_end(places.end + _near(end)))


class _ByValue:
    """One frame bound defined by a distance in values: moves along the order key."""

    def __init__(
        self, offset: int, buffer: WindowBuffer, key: tuple[SortKey, int, int], *, is_end: bool
    ) -> None:
        order, self._column, self._kind = key
        self._bound = RangeBound(_near(offset), is_end, order.descending, order.nulls_first)
        self._buffer = buffer
        self._cursor = buffer.cursor()

    def __call__(self, places: Places, block: WindowBlock) -> Rows:
        """Return the bound of each row of a block; -1 where its key is NULL."""
        out = np.zeros(places.rows, np.int64)
        keys = block.column(self._column, self._kind)
        row, first, last = 0, 0, False
        ahead: Columns | None = None
        flags: Buffer = b""
        self._cursor.pinned = False
        while True:
            row, why = self._bound.run(
                keys, places.partition.data, row, ahead, flags, first, last, out.data
            )
            # The bound is compared with a row of another block: the kernel asks for the block with
            # row `at`.
            if not why:
                self._cursor.pinned = False
                return out
            at = self._bound.at
            found = self._cursor.block_of(at)
            ahead = None if found is None else found.column(self._column, self._kind)
            flags = b"" if found is None else found.flags_view()
            first = at if found is None else found.first
            last = found is None
            self._cursor.pinned = found is not None

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Move on to the current partition at least."""
        self._cursor.need_from(max(self._bound.at, int(places.partition[-1])), block)


def _by_value(
    offset: int | None, buffer: WindowBuffer, key: tuple[SortKey, int, int] | None, *, is_end: bool
) -> _ByValue | None:
    if not offset:
        return None
    assert key is not None, "the plan check requires a key"
    return _ByValue(offset, buffer, key, is_end=is_end)


def _near(distance: int) -> int:
    return max(-_FAR, min(_FAR, distance))
