"""Values of a buffer's rows as Arrow arrays: those of a block, and those picked by row number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from emsqrt.external.window_buffer import WindowBlock, WindowBuffer
from emsqrt.operators.window_frames import Rows


class PieceTooLarge(Exception):
    """These rows' values need more than a batch may hold; the caller retries with fewer."""


def viewed(block: WindowBlock, column: int, kind: Any) -> Any:
    """Return a column of a block as a view into its slot."""
    return _array(block, column, kind, pa.py_buffer)


def copied(block: WindowBlock, column: int, kind: Any) -> Any:
    """Return a column of a block, copied out of the slot."""
    return _array(block, column, kind, lambda view: pa.py_buffer(bytes(view)))


def _array(block: WindowBlock, column: int, kind: Any, held: Any) -> Any:
    validity, values, ends = block.views(column)
    buffers = [None if validity is None else held(validity), held(values)]
    if ends is not None:
        buffers.insert(1, held(ends))
    return pa.Array.from_buffers(kind, block.rows, buffers, block.nulls[column])


class PickedRows:
    """Values of one column at non-decreasing row numbers; -1 is NULL.

    The last value is kept, so that a value that many rows share (the first of a partition) does not
    pin the buffer.

    Args:
        buffer: the rows.
        column: its index in the buffer.
        kind: its Arrow type.
    """

    def __init__(self, buffer: WindowBuffer, column: int, kind: Any) -> None:
        self._cursor = buffer.cursor()
        self._column = column
        self._kind = kind
        self._last = -1
        self._value = pa.nulls(1, kind)

    def __call__(self, index: Rows, bytes_max: int) -> Any:
        """Return the values.

        Raises:
            PieceTooLarge: there is more than one value, and they need more than `bytes_max`.
        """
        picked = index[index >= 0]
        parts = []
        # The first `same` rows are the one picked last, whose block may be gone.
        same = int(np.searchsorted(picked, self._last, "right"))
        if same and self._value.nbytes * same > bytes_max and len(index) > 1:
            raise PieceTooLarge
        if same:
            parts.append(self._value.take(pa.array(np.zeros(same, np.int64))))
        room = bytes_max - sum(part.nbytes for part in parts)
        while True:
            if room < 0 and len(index) > 1:
                raise PieceTooLarge
            if same == len(picked):
                break
            part = self._pick(picked[same:], room, alone=len(index) == 1)
            parts.append(part)
            same += len(part)
            room -= part.nbytes
        if len(picked):
            self._last = int(picked[-1])
            # A copy of one value: a slice would keep the block's whole array.
            self._value = parts[-1].take(pa.array([len(parts[-1]) - 1]))
        return self._spread(index, parts)

    def mark(self) -> Callable[[], None]:
        """Return a function that restores the current state."""
        # Cursors may go back only to here: blocks after it are still held, as nothing was dropped.
        where = self._cursor.number, self._cursor.first, self._last, self._value

        def back() -> None:
            self._cursor.number, self._cursor.first, self._last, self._value = where

        return back

    def need_from(self, row: int, block: WindowBlock) -> None:
        """Release all rows before `row`, except for the last one that was picked."""
        self._cursor.need_from(row, block)

    def _pick(self, picked: Rows, room: int, *, alone: bool) -> Any:
        """Return the values of those rows that are in the first one's block."""
        block = self._cursor.block_of(int(picked[0]))
        assert block is not None, "row numbers are in the buffer"
        count = int(np.searchsorted(picked, block.end))
        places = picked[:count] - block.first
        _, _, ends = block.views(self._column)
        if ends is not None and not alone:
            text = np.frombuffer(ends, np.int32)
            if int((text[places + 1] - text[places]).sum(dtype=np.int64)) > room:
                raise PieceTooLarge
        return viewed(block, self._column, self._kind).take(pa.array(places))

    def _spread(self, index: Rows, parts: list[Any]) -> Any:
        values = parts[0] if len(parts) == 1 else pa.concat_arrays(parts) if parts else None
        if values is not None and len(values) == len(index):
            return values
        if values is None:
            return pa.nulls(len(index), self._kind)
        present = index >= 0
        # NULL where there is no row; elsewhere the next picked value.
        places = np.cumsum(present) - 1
        return values.take(pa.array(places, mask=~present))
