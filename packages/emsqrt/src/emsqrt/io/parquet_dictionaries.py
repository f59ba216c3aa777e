"""Tables with dictionaries, as a Parquet file takes them: the bytes that plain values would make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


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
