"""Rows cut into pieces by what they hold, never by the batches they come in.

The same rows give the same pieces however they were batched, so a file made of pieces has the same
bytes at any memory cap. A piece ends after the row with which it reaches its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PIECE_BYTES = 512 << 10
PIECE_ROWS = 1 << 14


class Pieces:
    """Gathers batches of one schema without dictionaries, and gives pieces of one size.

    Args:
        bytes_max: a piece ends once its rows have so many bytes.
        rows_max: or so many rows.
    """

    def __init__(self, bytes_max: int = PIECE_BYTES, rows_max: int = PIECE_ROWS) -> None:
        self._bytes_max, self._rows_max = bytes_max, rows_max
        self._held: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, batch: Any) -> Iterator[tuple[Any, int]]:
        """Take a batch; yield each piece that is full, as one batch, and its bytes."""
        ends = row_ends(batch)
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
                yield self._take()

    def finish(self) -> Iterator[tuple[Any, int]]:
        """Yield the rest, when there is any."""
        if self._held:
            yield self._take()

    def _take(self) -> tuple[Any, int]:
        piece, size = pa.concat_batches(self._held), self._bytes
        self._held, self._rows, self._bytes = [], 0, 0
        return piece, size


def row_ends(batch: Any) -> Any:
    """Return, for each row, the bytes of all rows up to and with it.

    A fixed-width value counts its width, a bool one byte, a text its bytes and four, a list its
    items and four; NULL counts as zero, or as an empty text.
    """
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        sizes += _sizes(column)
    return np.cumsum(sizes)


def _sizes(column: Any) -> Any:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return 1
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pc.fill_null(pc.binary_length(column), 0).to_numpy() + np.int64(4)
    if pa.types.is_list(kind):
        return _list_sizes(column)
    if pa.types.is_struct(kind):
        parts = [_sizes(part) for part in column.flatten()]
        return sum(parts, start=np.zeros(len(column), np.int64))
    return max(kind.bit_width // 8, 1)


def _list_sizes(column: Any) -> Any:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    items = column.flatten()  # without those under a NULL
    sizes = np.broadcast_to(np.asarray(_sizes(items), np.int64), len(items))
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    ends = np.cumsum(lengths)
    return before[ends] - before[ends - lengths] + 4
