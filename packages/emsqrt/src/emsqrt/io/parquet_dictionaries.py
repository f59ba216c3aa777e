"""Which columns of a Parquet file are worth a dictionary, judged by its first row group.

A dictionary that outgrows its page is thrown away halfway, after it has cost the most; one of
values that hardly repeat makes the file larger. Both are told by counting the distinct values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_SAMPLE_BYTES = 1 << 18
_SAMPLE_ROWS = 1 << 14
"""Arrow's table of 16384 distinct values takes 1.5 MiB; one more value makes it four times that."""
_TEXT_HEAD_BYTES = 4


def dictionary_columns(table: Any, limit_bytes: int) -> bool | list[str]:
    """Return the columns to write with a dictionary; True, all of them, where some are nested.

    Args:
        table: the first row group, without dictionaries.
        limit_bytes: a dictionary larger than this is given up.
    """
    if any(pa.types.is_nested(kind) for kind in table.schema.types):
        return True
    return [
        field.name
        for field, column in zip(table.schema, table.columns, strict=True)
        if not pa.types.is_boolean(field.type)
        and not pa.types.is_null(field.type)
        and _pays(column, limit_bytes)
    ]


def plain_table(table: Any) -> Any:
    """Return the table with plain values in the place of dictionaries."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table_as(table, pa.schema(fields))


def table_as(table: Any, schema: Any) -> Any:
    """Return the table with dictionaries where a schema has them, and plain values elsewhere.

    The dictionaries are those that Arrow would make of the plain values, and chunks stay as they are.
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
    """Return a column whose dictionary has the values that it uses, in the order of their first use.

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
    """Search the bytes for each place: those that are used are found soon."""
    raw = used.tobytes()
    found = [(raw.find(place), place) for place in range(count)]
    return np.array([place for first, place in sorted(found) if first >= 0], np.int64)


def _order(used: Any, count: int) -> Any:
    first = np.full(max(count, 1), len(used))
    first[used[::-1]] = np.arange(len(used) - 1, -1, -1)
    return np.argsort(first, kind="stable")[: int((first < len(used)).sum())]


def _pays(column: Any, limit_bytes: int) -> bool:
    """Compare values once and an index for each row with the values as they are."""
    rows = len(column)
    width = _width(column)
    sampled = int(min(rows, _SAMPLE_ROWS, max(_SAMPLE_BYTES // width, 1)))
    distinct = _distinct(column.slice(0, sampled))
    if 2 * distinct > sampled:  # a value comes twice at most, wherever one looks
        distinct = distinct * rows // sampled
    dictionary = distinct * width
    indices = rows * int(distinct).bit_length() / 8
    return bool(dictionary <= limit_bytes and 4 * (dictionary + indices) < 3 * rows * width)


def _distinct(column: Any) -> int:
    """Count different values by sorting: Arrow's own count takes 27 MiB for 65,536 integers."""
    values = pa.concat_arrays([chunk.drop_null() for chunk in column.chunks])
    if not len(values):
        return 0
    values = values.take(pc.sort_indices(values))
    steps = pc.sum(pc.not_equal(values.slice(1), values.slice(0, len(values) - 1)))
    return 1 + (steps.as_py() or 0)


def _width(column: Any) -> float:
    """Return the mean bytes of a value in a page."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        text = pc.sum(pc.binary_length(column)).as_py() or 0
        return _TEXT_HEAD_BYTES + float(text) / len(column)
    return float(max(min(kind.bit_width, 64) / 8, 1))
