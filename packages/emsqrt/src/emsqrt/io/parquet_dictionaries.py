"""Write dictionary-encoded tables to Parquet with the same bytes as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_SAMPLE_BYTES = 1 << 20
_TEXT_BYTES_MAX = 64 << 10
"""Longer than any dictionary, so that truncated texts do not change the choice of an encoding."""


def first_values(column: Any, count: int) -> Any:
    """Return up to `count` first values of a column, plain, with at most 1 MiB of texts.

    Args:
        column: chunks, dictionary-encoded or plain; texts are truncated to 64 KiB.
        count: the most values.
    """
    kept, left_bytes = [], _SAMPLE_BYTES
    for chunk in column.slice(0, count).chunks:
        values = chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
        if _is_text(values.type):
            values, used_bytes = _first_texts(values, left_bytes)
            left_bytes -= used_bytes
        kept.append(values)
        if left_bytes <= 0:
            break
    return pa.chunked_array(kept, kept[0].type if kept else column.type)


def has_long_texts(column: Any) -> bool:
    """Return whether a column has texts too long for statistics.

    Arrow does not write the least and largest of them, and yet keeps copies of both.
    """
    if not _is_text(column.type):
        return False
    return any(
        (pc.max(pc.binary_length(chunk)).as_py() or 0) > _TEXT_BYTES_MAX for chunk in column.chunks
    )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _first_texts(texts: Any, room_bytes: int) -> tuple[Any, int]:
    """Return the first texts that fit `room_bytes`, and their bytes."""
    lengths = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
    ends = np.cumsum(np.minimum(lengths, _TEXT_BYTES_MAX), dtype=np.int64)
    count = min(int(np.searchsorted(ends, room_bytes)) + 1, len(texts))
    found = texts.slice(0, count)
    if not count or lengths[:count].max() <= _TEXT_BYTES_MAX:
        return found, int(ends[count - 1]) if count else 0
    parts = [
        memoryview(text.as_buffer())[:_TEXT_BYTES_MAX] if text.is_valid else None for text in found
    ]
    return pa.array(parts, pa.binary()).view(texts.type), int(ends[count - 1])


def table_as(table: Any, schema: Any) -> Any:
    """Return the table with dictionaries where a schema has them, and plain values elsewhere.

    The dictionaries are equal to those that Arrow would build from plain values; chunks are kept.
    """
    for at, (field, wanted) in enumerate(zip(table.schema, schema, strict=True)):
        if not pa.types.is_dictionary(field.type):
            continue
        column = table.column(at)
        if pa.types.is_dictionary(wanted.type):
            table = table.set_column(at, wanted, _in_order_of_use(column))
        else:
            chunks = [chunk.dictionary_decode() for chunk in column.chunks]
            table = table.set_column(at, wanted, pa.chunked_array(chunks, wanted.type))
    return table


def _in_order_of_use(column: Any) -> Any:
    """Return a column whose dictionary has only the values used, in the order of their first use.

    Args:
        column: chunks of dictionary arrays over one dictionary.
    """
    values = column.chunk(0).dictionary
    places = pa.concat_arrays([chunk.indices for chunk in column.chunks])
    used = places.drop_null().to_numpy()
    order = _narrow_order(used, len(values)) if used.itemsize == 1 else _order(used, len(values))
    table = np.zeros(max(len(values), 1), used.dtype)
    table[order] = np.arange(len(order))
    moved = pa.array(table).take(places)
    whole = pa.DictionaryArray.from_arrays(moved, values.take(pa.array(order)))
    chunks, start = [], 0
    for chunk in column.chunks:
        chunks.append(whole.slice(start, len(chunk)))
        start += len(chunk)
    return pa.chunked_array(chunks)


def _narrow_order(used: Any, count: int) -> Any:
    """Search the bytes for the first use of each index: used indices are found soon."""
    raw = used.tobytes()
    found = [(raw.find(place), place) for place in range(count)]
    return np.array([place for first, place in sorted(found) if first >= 0], np.int64)


def _order(used: Any, count: int) -> Any:
    first = np.full(max(count, 1), len(used))
    first[used[::-1]] = np.arange(len(used) - 1, -1, -1)
    return np.argsort(first, kind="stable")[: int((first < len(used)).sum())]
