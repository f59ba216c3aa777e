"""How each column of a Parquet file is encoded, judged by its first rows.

A dictionary that outgrows its page is thrown away halfway, after it has cost the most; one of
values that hardly repeat makes the file larger. Integers that lie near their neighbours, or in a
narrow range, are smaller as differences: packed so, they need hardly any compression, which is
what else would cost the most. All three are told by counting.
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
"""Arrow's table of 16384 distinct values takes 1.5 MiB; one more value makes it four times that."""
_TEXT_HEAD_BYTES = 4
_WORTHWHILE = 16
"""Compression is left out where it saves less than one part in so many."""
_BLOCK, _MINIBLOCK, _BLOCK_HEAD_BYTES = 128, 32, 8
"""Differences that share a least one, and a width; what a block says of itself (Encodings.md)."""
_INT_BITS = 32
_SHORT_DIGITS, _NARROW_DIGITS = 9, 18
"""Decimals of so many are stored in four and in eight bytes."""


class Encodings(NamedTuple):
    """What columns are written with, as Arrow's writer takes it.

    Args:
        dictionary: columns that get one; True for all of them.
        others: the encoding of further columns, where it is not the plain one.
        compression: of all columns, or of each.
        told: columns whose least and largest values are told.
    """

    dictionary: bool | list[str]
    others: dict[str, str]
    compression: str | dict[str, str]
    told: bool | list[str] = True


def choose_encodings(
    table: Any, limit_bytes: int, compression: str, *, delta_share: float = 1.0
) -> Encodings:
    """Choose what makes the columns of a file small; dictionaries for all where some are nested.

    Args:
        table: the first row group.
        limit_bytes: a dictionary larger than this is given up.
        compression: the codec of columns that it makes smaller.
        delta_share: differences are chosen where they take less than this share of a dictionary's
            bytes; below 1 it favours the dictionary, which readers can filter without decoding.
    """
    if any(pa.types.is_nested(kind) for kind in table.schema.types):
        return Encodings(dictionary=True, others={}, compression=compression)
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
    told = [name for name in table.schema.names if not has_long_texts(table.column(name))]
    return Encodings(coded, others, codecs, len(told) == table.num_columns or told)


def _shrinks(name: str, column: Any, encoding: str | None, compression: str) -> bool:
    """Tell whether compression is worth its time once a column is encoded: packed bits seldom are.

    Args:
        name: the column's.
        column: its first rows.
        encoding: a dictionary when None.
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
    """A file that nobody reads."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return memoryview(data).nbytes


class _Costs:
    """Bytes of a row group's column in each encoding.

    Args:
        column: its first rows.
        rows: of the row group.
        limit_bytes: of a dictionary.
    """

    def __init__(self, column: Any, rows: int, limit_bytes: int) -> None:
        width = _width(column)
        self.plain = 0.75 * rows * width  # it is compressed as well as others, and at hand
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
    """Return how many different values so many rows have, when more come as they came before.

    By sorting: Arrow's own count takes 27 MiB for 65,536 integers.
    """
    if len(values) < 2:
        return len(values)
    order = pc.sort_indices(values)
    ordered = values.take(order)
    steps = pc.not_equal(ordered.slice(1), ordered.slice(0, len(values) - 1))
    firsts = np.flatnonzero(np.concatenate(([True], steps.to_numpy(zero_copy_only=False))))
    half = len(values) // 2
    late = int((np.minimum.reduceat(order.to_numpy(), firsts) >= half).sum())
    return len(firsts) + late * max(rows - len(values), 0) // (len(values) - half)


def _integers(values: Any) -> Any:
    """Return values that Parquet stores as integers as such; None for others."""
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
