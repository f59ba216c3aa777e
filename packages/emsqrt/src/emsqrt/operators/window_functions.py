"""Window functions, a block of rows at a time: ranks, values of other rows, exact sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt._kernel import Columns, FrameMinMax, FrameSum
from emsqrt.expr.errors import ValueOutOfRange
from emsqrt.expr.nodes import Value
from emsqrt.external.window_buffer import Cursor, WindowBlock, WindowBuffer
from emsqrt.operators.window_frames import FrameBounds, Places, Rows
from emsqrt.operators.window_values import PickedRows
from emsqrt.plan.window import WindowCall
from sennit_core.errors import CapTooSmall
from sennit_core.schema import DataType

# Why the kernel's loop over a frame returned.
_DONE, _NEED_HIGH, _NEED_LOW, _FULL = range(4)
_OPS = {"count": 0, "sum": 1, "avg": 2}
_DECIMAL = 11

Piece = Callable[[int, int, int], Any]
"""Returns the results of rows [start, stop) of the block, within a limit of bytes."""


class Function(Protocol):
    """A window function's state from block to block."""

    def __call__(self, places: Places, block: WindowBlock) -> Piece:
        """Compute the results of a block's rows."""

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Release what only rows of this block, or earlier ones, need."""


@dataclass(frozen=True, slots=True)
class Argument:
    """A function's argument in the buffer.

    Args:
        column: its index in the buffer.
        kind: its kernel kind.
        type: its Arrow type.
        scale: of a decimal.
    """

    column: int
    kind: int
    type: Any
    scale: int = 0


class Ranking:
    """row_number, rank, dense_rank, ntile."""

    def __init__(self, call: WindowCall) -> None:
        self._call = call

    def __call__(self, places: Places, block: WindowBlock) -> Piece:
        """Number the rows of each partition."""
        values = self._values(places)
        return lambda start, stop, _: pa.array(values[start:stop])

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Do nothing: no rows are kept."""

    def _values(self, places: Places) -> Rows:
        match self._call.fn:
            case "row_number":
                return places.index - places.partition + 1
            case "rank":
                return places.peers - places.partition + 1
            case "dense_rank":
                return places.group - places.first_group + 1
        # ntile is the only ranking function that must know the end of the partition.
        rows = places.partition_end() - places.partition
        tiles = min(self._call.number, 1 << 60)
        size, longer = np.divmod(rows, tiles)
        place = places.index - places.partition
        # SQL's ntile: the first `longer` tiles have one row more. `edge` is the first row of the
        # smaller ones.
        edge = longer * (size + 1)
        behind = longer + (place - edge) // np.maximum(size, 1)
        tile: Rows = np.where(place < edge, place // (size + 1), behind) + 1
        return tile


class LagLead:
    """lag and lead: the value a number of rows before or after in the partition."""

    def __init__(
        self, call: WindowCall, argument: Argument, picked: PickedRows, default: Value | None
    ) -> None:
        distance = min(call.number, 1 << 60)
        self._distance = distance if call.fn == "lead" else -distance
        self._picked = picked
        self._default = None if default is None else pa.scalar(default, argument.type)

    def __call__(self, places: Places, block: WindowBlock) -> Piece:
        """Find the rows."""
        index = places.index + self._distance
        if self._distance < 0:
            inside = index >= places.partition
        else:
            inside = index < places.partition_end(places.end + self._distance)
        # -1 is NULL, or the default.
        index = np.where(inside, index, -1)

        def piece(start: int, stop: int, bytes_max: int) -> Any:
            values = self._picked(index[start:stop], bytes_max)
            if self._default is None:
                return values
            return pc.if_else(pa.array(inside[start:stop]), values, self._default)

        return piece

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Release rows that are too far back, or in a partition that has ended."""
        # lag: later rows look this far back, but not past the start of their partition.
        row = max(places.end + self._distance, int(places.partition[-1]))
        self._picked.need_from(row, block)


class FirstLast:
    """first_value and last_value of the frame."""

    def __init__(self, call: WindowCall, frame: FrameBounds, picked: PickedRows) -> None:
        self._is_first = call.fn == "first_value"
        self._needed = 0
        self._frame = frame
        self._picked = picked

    def __call__(self, places: Places, block: WindowBlock) -> Piece:
        """Find the rows."""
        low, high = self._frame(places, block)
        index = np.where(low < high, low if self._is_first else high - 1, -1)
        if not self._is_first:
            self._needed = max(int(low[-1]), int(high[-1]) - 1)
        # Frames whose start moves need the rows from the last start on; it never moves back.
        elif self._frame.slides or index[-1] < 0:
            self._needed = int(low[-1])
        else:
            self._needed = places.end  # the same row, which is kept, or a later one
        return lambda start, stop, room: self._picked(index[start:stop], room)

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Release rows before the start of every later frame."""
        self._picked.need_from(self._needed, block)


class Counted:
    """count(*): how many rows the frame has."""

    def __init__(self, frame: FrameBounds) -> None:
        self._frame = frame

    def __call__(self, places: Places, block: WindowBlock) -> Piece:
        """Compute the sizes of the frames."""
        low, high = self._frame(places, block)
        return lambda start, stop, _: pa.array(high[start:stop] - low[start:stop])

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Do nothing: no rows are kept."""


class Chunks:
    """The column of the block at a cursor, pinned until it is released."""

    def __init__(self, buffer: WindowBuffer, argument: Argument) -> None:
        self._argument = argument
        self.cursor: Cursor = buffer.cursor()
        self.columns: Columns | None = None
        self.first = 0

    def load(self, row: int) -> None:
        """Move to the block that contains `row`."""
        self.release()
        block = self.cursor.block_of(row)
        assert block is not None, "a frame is within the rows"
        self.columns = block.column(self._argument.column, self._argument.kind)
        self.first = block.first
        self.cursor.pinned = True

    def release(self) -> None:
        """Unpin the slot."""
        self.columns = None
        self.cursor.pinned = False


class Summed:
    """count, sum and avg of a frame: adds rows that enter, subtracts rows that leave."""

    def __init__(
        self,
        call: WindowCall,
        argument: Argument,
        result: DataType,
        frame: FrameBounds,
        buffer: WindowBuffer,
    ) -> None:
        self._call = call
        self._frame = frame
        self._sum = FrameSum(_OPS[call.fn], argument.kind, argument.scale)
        self._high = Chunks(buffer, argument)
        self._low = Chunks(buffer, argument) if frame.slides else None
        self._type = result
        self._width = 16 if call.fn == "sum" and argument.kind == _DECIMAL else 8

    def __call__(self, places: Places, block: WindowBlock) -> Piece:
        """Compute the sums.

        Raises:
            ValueOutOfRange: a sum overflows its type.
        """
        low, high = self._frame(places, block)
        # Arrow buffers of the results, filled by the kernel from row `row` on in each call.
        values = np.zeros(places.rows * self._width, np.uint8)
        validity = np.zeros((places.rows + 7) // 8, np.uint8)
        row, why = 0, _DONE
        try:
            while True:
                row, why = self._step(low, high, row, values, validity)
                if why == _DONE:
                    break
                self._more(why)
        finally:
            self._high.release()
            if self._low is not None:
                self._low.release()
        # A count is never NULL.
        counts = self._call.fn == "count"
        buffers = [None if counts else pa.py_buffer(validity), pa.py_buffer(values)]
        array = pa.Array.from_buffers(self._type.to_arrow(), places.rows, buffers)
        return lambda start, stop, _: array.slice(start, stop - start)

    def _step(self, low: Rows, high: Rows, row: int, values: Any, validity: Any) -> tuple[int, int]:
        chunk, behind = self._high, self._low
        return self._sum.run(
            low.data,
            high.data,
            row,
            chunk.columns,
            chunk.first,
            None if behind is None else behind.columns,
            0 if behind is None else behind.first,
            values,
            validity,
        )

    def _more(self, why: int) -> None:
        if why == _NEED_HIGH:
            self._high.load(self._sum.high)
        elif why == _NEED_LOW:
            assert self._low is not None, "only sliding frames lose rows"
            self._low.load(self._sum.low)
        else:
            cast = f'sum a cast: {self._call.arg!s}.cast("Decimal(38,0)")'
            raise ValueOutOfRange(
                str(self._call), f"a sum is out of range for {self._type}", hint=cast
            )

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Release rows before the start of every later frame."""
        self._high.cursor.need_from(self._sum.high, block)
        if self._low is not None:
            self._low.cursor.need_from(self._sum.low, block)


_CANDIDATE_BYTES = 32
"""As `em_candidate` in the kernel, for values of fixed width."""


class Queue(NamedTuple):
    """The candidates of a min or max: a part of the window's memory, one of `share`."""

    memory: memoryview
    share: int


class MinMax:
    """min and max of a frame: finds the row with that value."""

    def __init__(
        self,
        call: WindowCall,
        argument: Argument,
        frame: FrameBounds,
        chunks: Chunks,
        picked: PickedRows,
        queue: Queue,
    ) -> None:
        self._call = call
        self._frame = frame
        self._queue = queue
        self._best = FrameMinMax(queue.memory, argument.kind, call.fn == "max", frame.slides)
        self._chunk = chunks
        self._picked = picked
        self._needed = 0
        self._is_float = pa.types.is_floating(argument.type)

    def __call__(self, places: Places, block: WindowBlock) -> Piece:
        """Find the rows.

        Raises:
            CapTooSmall: a sliding frame has too many candidates for its min or max.
        """
        low, high = self._frame(places, block)
        index = np.zeros(places.rows, np.int64)
        row = 0
        try:
            while True:
                chunk = self._chunk
                row, why = self._best.run(
                    low.data, high.data, row, chunk.columns, chunk.first, index.data
                )
                if why == _DONE:
                    break
                if why == _FULL:
                    first = int(low[row])
                    raise self._too_small(int(high[row]) - first, self._best.high - first)
                chunk.load(self._best.high)
        finally:
            self._chunk.release()
        # Without sliding frames the best row stays, and is kept, or a new one replaces it.
        self._needed = int(low[-1]) if self._frame.slides else self._best.high

        def piece(start: int, stop: int, bytes_max: int) -> Any:
            values = self._picked(index[start:stop], bytes_max)
            # -0.0 equals 0.0; the result is 0.0.
            return pc.add(values, pa.scalar(0.0, values.type)) if self._is_float else values

        return piece

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Release rows that cannot be the best of a later frame."""
        self._picked.need_from(self._needed, block)
        self._chunk.cursor.need_from(self._best.high, block)

    def _too_small(self, rows: int, rows_seen: int) -> CapTooSmall:
        """Return the refusal of a frame of which so many rows filled the queue.

        The queue is full where values come nearly in order, so that hardly a row replaces another:
        the rest of the frame needs as much for each row.
        """
        because = f"{self._call!s} over a frame of {rows} rows keeps every candidate in memory"
        size_bytes = len(self._queue.memory)
        # Extrapolated from how many rows filled the queue.
        whole_bytes = size_bytes * rows // max(rows_seen, 1)
        needed_bytes = max(2 * size_bytes, whole_bytes, _CANDIDATE_BYTES * rows)
        return CapTooSmall(
            cap_bytes=size_bytes * self._queue.share,
            needed_bytes=needed_bytes * self._queue.share,
            because=because,
        )
