"""Cut rows into pieces by content, independent of the batches in which they arrive.

The same rows always result in the same pieces, so a file written piece by piece has the same bytes
with any memory cap. A piece ends after the row with which it reaches its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PIECE_BYTES = 256 << 10
PIECE_ROWS = 1 << 14
_HELD_MAX = 64
"""Batches that wait for a piece: even with one row, a batch of 16 columns needs 10 KiB."""
_HEAD_BYTES = 4
"""Bytes that a text or a list counts in addition to its content."""
_BYTE_VALUES = 256
_DECIMAL_BYTES = 16
"""Bytes that a short decimal counts, in any representation."""


class Cutter:
    """Collects batches of one schema, and returns pieces of equal size.

    Dictionary-encoded texts count their full length; all batches have the same dictionary.

    Args:
        bytes_max: a piece ends once its rows have this many bytes.
        rows_max: a piece ends once it has this many rows.
        slices: a piece of one batch may be a slice of it, which keeps the whole batch alive.
            Rows outside of the slice affect the bytes of Arrow IPC, but not of Parquet.
        on_long: called with the length of a row longer than `bytes_max`, before it is copied.
    """

    def __init__(
        self,
        bytes_max: int = PIECE_BYTES,
        rows_max: int = PIECE_ROWS,
        *,
        slices: bool = False,
        on_long: Callable[[int], None] | None = None,
    ) -> None:
        self._on_long = on_long
        self._bytes_max, self._rows_max, self._slices = bytes_max, rows_max, slices
        self._widths: _Widths | None = None
        self._held: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, batch: Any) -> Iterator[tuple[Any, int]]:
        """Add a batch; yield each full piece as one batch, with its bytes."""
        if self._widths is None or not self._widths.schema.equals(batch.schema):
            self._widths = _Widths(batch.schema)
        sizes = _RowSizes(batch, self._widths)
        if (
            sizes.total + self._bytes < self._bytes_max
            and batch.num_rows + self._rows < self._rows_max
        ):
            self._hold(batch)
            self._rows += batch.num_rows
            self._bytes += sizes.total
            return
        ends = sizes.ends()
        if self._on_long is not None and sizes.total > self._bytes_max:
            longest = _longest(ends)
            if longest > self._bytes_max:
                self._on_long(longest)
        start, before = 0, 0
        while start < batch.num_rows:
            room = before + self._bytes_max - self._bytes
            full = int(np.searchsorted(ends[start:], room)) + 1 + start
            end = min(full, start + self._rows_max - self._rows, batch.num_rows)
            self._held.append(batch.slice(start, end - start))
            self._rows += end - start
            self._bytes += int(ends[end - 1]) - before
            start, before = end, int(ends[end - 1])
            if self._bytes >= self._bytes_max or self._rows >= self._rows_max:
                yield self._next_piece()

    def finish(self) -> Iterator[tuple[Any, int]]:
        """Yield the last piece, if there are rows left."""
        if self._held:
            yield self._next_piece()

    def _hold(self, batch: Any) -> None:
        self._held.append(batch)
        if len(self._held) == _HELD_MAX:
            self._held = [pa.concat_batches(self._held)]

    def _next_piece(self) -> tuple[Any, int]:
        held, size = self._held, self._bytes
        piece = held[0] if self._slices and len(held) == 1 else pa.concat_batches(held)
        self._held, self._rows, self._bytes = [], 0, 0
        return piece, size


def longest_row(batch: Any) -> int:
    """Return the bytes of the longest row, counted as `row_ends` does."""
    return _longest(row_ends(batch)) if batch.num_rows else 0


def _longest(ends: Any) -> int:
    return max(int(ends[0]), int(np.diff(ends).max(initial=0)))


def row_ends(batch: Any) -> Any:
    """Return the running sum of the rows' bytes.

    A fixed-width value counts its width, a bool one byte, a text its bytes and four, a list its
    items and four; NULL counts as zero, or as an empty text.
    """
    return _RowSizes(batch, _Widths(batch.schema)).ends()


class _Widths:
    """The fixed bytes of a row of a schema, and the columns that add variable bytes."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.each = 0
        self.texts: list[int] = []
        self.coded: list[int] = []
        self.nested: list[int] = []
        for at, kind in enumerate(schema.types):
            if pa.types.is_string(kind) or pa.types.is_binary(kind):
                self.texts.append(at)
                self.each += _HEAD_BYTES
            elif pa.types.is_dictionary(kind):
                self.coded.append(at)
                self.each += _HEAD_BYTES
            elif pa.types.is_nested(kind):
                self.nested.append(at)
            else:
                self.each += _fixed_bytes(kind)


class _RowSizes:
    """The bytes of a batch's rows: the fixed part, and running sums of the variable parts."""

    def __init__(self, batch: Any, widths: _Widths) -> None:
        self._rows = batch.num_rows
        self._each = widths.each
        self._running: list[tuple[Any, int]] = []
        if not self._rows:
            return
        for at in widths.texts:
            self._add_text(batch.column(at))
        varied = [_coded_bytes(batch.column(at)) for at in widths.coded]
        varied += [_sizes(batch.column(at)) for at in widths.nested]
        if varied:
            self._running.append((np.cumsum(sum(varied, np.zeros(self._rows, np.int64))), 0))

    def _add_text(self, column: Any) -> None:
        """Add a text column, from Arrow's offsets, which are its running sums plus a start."""
        if column.null_count:
            lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy()
            self._running.append((np.cumsum(lengths, dtype=np.int64), 0))
            return
        offsets = np.frombuffer(column.buffers()[1], np.int32, self._rows + 1, 4 * column.offset)
        self._running.append((offsets[1:], int(offsets[0])))

    @property
    def total(self) -> int:
        """The bytes of all rows."""
        running = sum(int(sums[-1]) - base for sums, base in self._running)
        return int(self._each * self._rows + running)

    def ends(self) -> Any:
        """Return the running sum of the rows' bytes."""
        ends = np.arange(1, self._rows + 1, dtype=np.int64) * self._each
        for sums, base in self._running:
            ends += sums
            ends -= base
        return ends


def _coded_bytes(column: Any) -> Any:
    """Return the bytes of each text of a dictionary array, 0 where it is NULL."""
    if not len(column.dictionary):
        return np.zeros(len(column), np.int64)
    lengths = pc.binary_length(column.dictionary).to_numpy()
    if not column.null_count:
        places = column.indices.to_numpy()
        if places.itemsize == 1 and lengths.max() < _BYTE_VALUES:  # many times faster than np.take
            table = lengths[:_BYTE_VALUES].astype(np.uint8).tobytes().ljust(_BYTE_VALUES, b"\0")
            return np.frombuffer(places.tobytes().translate(table), np.uint8)
        return np.take(lengths, places, mode="clip")
    sizes = lengths[pc.fill_null(column.indices, 0).to_numpy()]
    sizes[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return sizes


def least_bytes(kind: Any) -> int:
    """Return the least bytes that a value of a type that is not nested counts."""
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return 1
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _HEAD_BYTES
    return max(int(kind.bit_width) // 8, 1)


def _fixed_bytes(kind: Any) -> int:
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return 1
    return _DECIMAL_BYTES if pa.types.is_decimal64(kind) else max(kind.bit_width // 8, 1)


def _sizes(column: Any) -> Any:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pc.fill_null(pc.binary_length(column), 0).to_numpy() + np.int64(_HEAD_BYTES)
    if pa.types.is_list(kind):
        return _list_sizes(column)
    if pa.types.is_struct(kind):
        parts = [_sizes(part) for part in column.flatten()]
        return sum(parts, start=np.zeros(len(column), np.int64))
    return _fixed_bytes(kind)


def _list_sizes(column: Any) -> Any:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    items = column.flatten()  # without the items of NULL lists
    sizes = np.broadcast_to(np.asarray(_sizes(items), np.int64), len(items))
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    ends = np.cumsum(lengths)
    return before[ends] - before[ends - lengths] + _HEAD_BYTES
