"""Choose the encoding of each column of a Parquet file, from its first rows.

A dictionary that exceeds its page is discarded halfway, after most of its cost; a dictionary of
values that hardly repeat makes the file larger. Integers that are close to their neighbours, or in
a narrow range, are smaller as differences (delta encoding): these hardly need compression, which is
the most expensive step. All three cases are detected by counting.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from emsqrt.io.parquet_dictionaries import first_values, has_long_texts

_SAMPLE_BYTES = 1 << 18
_SAMPLE_ROWS = 1 << 14
"""Arrow's table of 16384 distinct values needs 1.5 MiB; one more value makes it four times that."""
_FEW_ROWS = 64
"""So few rows are written plain: choosing takes a millisecond, and saves less than a footer has."""
_TEXT_HEAD_BYTES = 4
_WORTHWHILE = 16
"""Compression is not used if it saves less than 1 / 16."""
_BLOCK, _MINIBLOCK, _BLOCK_HEAD_BYTES = 128, 32, 8
"""Differences that share a minimum and a bit width; bytes of a block's head (Encodings.md)."""
_INT_BITS = 32
_SHORT_DIGITS, _NARROW_DIGITS = 9, 18
"""The most digits of decimals that are stored in four and in eight bytes."""


class Encodings(NamedTuple):
    """The encodings of columns, as options of Arrow's writer.

    Args:
        dictionary: columns with a dictionary; True for all of them.
        others: the encoding of other columns, if it is not plain.
        compression: the codec of all columns, or of each.
        statistics: columns whose least and largest values are written; True for all of them.
    """

    dictionary: bool | list[str]
    others: dict[str, str]
    compression: str | dict[str, str]
    statistics: bool | list[str] = True


def choose_encodings(
    table: Any, limit_bytes: int, compression: str, *, delta_share: float = 1.0
) -> Encodings:
    """Choose the encodings that make a file small; dictionaries for all columns if any is nested.

    Args:
        table: the first row group.
        limit_bytes: the largest dictionary; larger ones are not used.
        compression: the codec of columns that it makes smaller.
        delta_share: differences are chosen if they need less than this share of a dictionary's
            bytes; below 1 it favours the dictionary, which readers can filter without decoding.
    """
    if any(pa.types.is_nested(kind) for kind in table.schema.types):
        return Encodings(dictionary=True, others={}, compression=compression)
    short = [name for name in table.schema.names if not has_long_texts(table.column(name))]
    statistics = len(short) == table.num_columns or short
    # By rows, not bytes: texts may come as values or as a dictionary, and are written the same.
    if table.num_rows <= _FEW_ROWS:
        return Encodings(False, {}, compression, statistics)
    coded: list[str] = []
    others: dict[str, str] = {}
    codecs = dict.fromkeys(table.schema.names, compression)
    for name in table.schema.names:
        column = first_values(table.column(name), _SAMPLE_ROWS)
        field = pa.field(name, column.type)
        if not len(column) or pa.types.is_boolean(field.type) or pa.types.is_null(field.type):
            continue
        costs = _Costs(column, table.num_rows, limit_bytes)
        if costs.delta < min(costs.plain, delta_share * costs.dictionary):
            others[field.name] = "DELTA_BINARY_PACKED"
        elif costs.dictionary < costs.plain:
            coded.append(field.name)
        elif _is_text(field.type):
            others[field.name] = "DELTA_LENGTH_BYTE_ARRAY"
        is_encoded = compression != "none" and (name in others or name in coded)
        if is_encoded and not _shrinks(name, column, others.get(name), compression):
            codecs[name] = "none"
    return Encodings(coded, others, codecs, statistics)


def _shrinks(name: str, column: Any, encoding: str | None, compression: str) -> bool:
    """Return whether compressing an encoded column pays off; bit-packed values seldom compress.

    Args:
        name: the column's name.
        column: its first rows.
        encoding: its encoding; None for a dictionary.
        compression: the codec.
    """
    written: list[Any] = []
    parquet.write_table(
        pa.table({name: column}),
        pa.PythonFile(_Nowhere(), "w"),
        compression=compression,
        use_dictionary=encoding is None,
        column_encoding=None if encoding is None else {name: encoding},
        store_decimal_as_integer=True,
        store_schema=False,
        metadata_collector=written,
    )
    facts = written[0].row_group(0).column(0)
    saved = facts.total_uncompressed_size - facts.total_compressed_size
    return bool(_WORTHWHILE * saved >= facts.total_uncompressed_size)


class _Nowhere(io.RawIOBase):
    """A file that discards what is written."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return memoryview(data).nbytes


class _Costs:
    """Estimated bytes of a row group's column in each encoding.

    Args:
        column: its first rows.
        rows: the rows of the row group.
        limit_bytes: the largest dictionary.
    """

    def __init__(self, column: Any, rows: int, limit_bytes: int) -> None:
        width = _width(column)
        self.plain = 0.75 * rows * width  # preferred: it compresses as well, at less cost
        self.dictionary = self.delta = float("inf")
        sample = column.slice(0, max(int(_SAMPLE_BYTES / width), 1))
        values = pa.concat_arrays([chunk.drop_null() for chunk in sample.chunks])
        integers = _integers(values)
        distinct = _distinct(values if integers is None else pa.array(integers), rows)
        if distinct * width <= limit_bytes:
            self.dictionary = distinct * width + rows * distinct.bit_length() / 8
        if integers is not None:
            self.delta = _delta_bytes(integers) * rows / len(sample)


def _distinct(values: Any, rows: int) -> int:
    """Estimate the distinct values of `rows` rows, if new values appear at the rate of the sample.

    Counts by sorting: Arrow's own count needs 27 MiB for 65,536 integers.
    """
    if len(values) < 2:
        return len(values)
    order = pc.sort_indices(values)
    ordered = values.take(order)
    steps = pc.not_equal(ordered.slice(1), ordered.slice(0, len(values) - 1))
    firsts = np.flatnonzero(np.concatenate(([True], steps.to_numpy(zero_copy_only=False))))
    half = len(values) // 2
    in_second_half = int((np.minimum.reduceat(order.to_numpy(), firsts) >= half).sum())
    return len(firsts) + in_second_half * max(rows - len(values), 0) // (len(values) - half)


def _integers(values: Any) -> Any:
    """Return values that Parquet stores as integers as integers; None for other types."""
    kind = values.type
    if pa.types.is_decimal(kind):
        if kind.precision > _NARROW_DIGITS:
            return None
        words = np.frombuffer(values.buffers()[1], np.int64)
        step = kind.byte_width // 8
        return words[step * values.offset :: step][: len(values)]
    if pa.types.is_integer(kind) or pa.types.is_temporal(kind):
        wide = pa.int32() if kind.bit_width == _INT_BITS else pa.int64()
        return (values.view(wide) if pa.types.is_temporal(kind) else values).to_numpy()
    return None


def _delta_bytes(values: Any) -> float:
    """Return the bytes of integers packed as differences."""
    steps = np.diff(values.astype(np.int64))
    blocks = -(-len(steps) // _BLOCK)
    if not blocks:
        return float(_BLOCK_HEAD_BYTES)
    steps = np.pad(steps, (0, blocks * _BLOCK - len(steps)), "edge").reshape(blocks, _BLOCK)
    above = (steps - steps.min(axis=1, keepdims=True)).view(np.uint64)
    largest = above.reshape(-1, _MINIBLOCK).max(axis=1)
    bits = np.frexp(largest.astype(np.float64))[1]
    return float(bits.sum() * _MINIBLOCK / 8 + blocks * _BLOCK_HEAD_BYTES)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _width(column: Any) -> float:
    """Return the mean bytes of a value in a page."""
    kind = column.type
    if _is_text(kind):
        text = pc.sum(pc.binary_length(column)).as_py() or 0
        return _TEXT_HEAD_BYTES + float(text) / len(column)
    if pa.types.is_decimal(kind) and kind.precision <= _SHORT_DIGITS:
        return _INT_BITS / 8
    return float(max(min(kind.bit_width, 64) / 8, 1))
