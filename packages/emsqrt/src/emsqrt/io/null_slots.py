"""Zero the slots of NULL values before a batch leaves the process.

Arrow leaves the value of a NULL slot undefined, and DuckDB does not write it at all after a failed
TRY_CAST: the slot contains earlier contents of that memory, such as rows that the reader of this
batch must not see. Padding and the unused ends of buffers are safe: Arrow's writer cuts each buffer
to the rows written and pads with zeros.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds
from numpy.typing import NDArray

__all__ = ["clear_null_slots"]

Mask = NDArray[np.bool_]


def clear_null_slots(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with zeros in the slots under NULL; columns without NULL are not copied."""
    columns = [_cleared(column, None) for column in batch.columns]
    if all(new is old for new, old in zip(columns, batch.columns, strict=True)):
        return batch
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _cleared(column: pa.Array, above: Mask | None) -> pa.Array:
    """Clear a column; `above` is which rows' enclosing values are valid, None when all are."""
    kind = column.type
    if not len(column):
        return column
    if kinds.is_struct(kind) or kinds.is_fixed_size_list(kind):
        return _cleared_parent(column, above)
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_map(kind):
        return _cleared_list(column)
    if kinds.is_dictionary(kind):
        return _cleared_dictionary(column, above)
    valid = _valid(column)
    written = _both(above, valid)
    if written is None or not _has_slots(kind):
        return column
    truths = kinds.is_boolean(kind)
    values = _truths(column, written) if truths else _values(column, written)
    return pa.Array.from_buffers(kind, len(column), [_bitmap(valid), pa.py_buffer(values)])


def _cleared_parent(column: pa.Array, above: Mask | None) -> pa.Array:
    """Clear the fields of structs or the items of fixed-size lists, whose parent may be NULL."""
    kind = column.type
    valid = _valid(column)
    written = _both(above, valid)
    if kinds.is_struct(kind):
        old = [column.field(index) for index in range(kind.num_fields)]
    else:
        size = kind.list_size
        old = [column.values.slice(column.offset * size, len(column) * size)]
        written = None if written is None else np.repeat(written, size)
    new = [_cleared(child, written) for child in old]
    if all(one is two for one, two in zip(new, old, strict=True)):
        return column
    return pa.Array.from_buffers(kind, len(column), [_bitmap(valid)], children=new)


def _cleared_list(column: pa.Array) -> pa.Array:
    """Clear the items; their number and the offsets stay."""
    old = column.values
    new = _cleared(old, None)
    if new is old:
        return column
    own = column.buffers()[:2]
    return pa.Array.from_buffers(
        column.type, len(column), own, offset=column.offset, children=[new]
    )


def _cleared_dictionary(column: pa.DictionaryArray, above: Mask | None) -> pa.Array:
    """Clear the indices; the dictionary itself was written by the producer of the batch."""
    old = column.indices
    new = _cleared(old, above)
    if new is old:
        return column
    return pa.DictionaryArray.from_arrays(
        new, column.dictionary, ordered=column.type.ordered, safe=False
    )


def _has_slots(kind: pa.DataType) -> bool:
    """Return whether a row has a slot of its own: NULL texts and bytes have length 0."""
    if kinds.is_fixed_size_binary(kind):
        return bool(kind.byte_width)
    return bool(kinds.is_primitive(kind) or kinds.is_decimal(kind))


def _valid(column: pa.Array) -> Mask | None:
    if not column.null_count:
        return None
    valid: Mask = column.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _both(one: Mask | None, two: Mask | None) -> Mask | None:
    if one is None or two is None:
        return two if one is None else one
    return one & two


def _bitmap(valid: Mask | None) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _truths(column: pa.Array, written: Mask) -> NDArray[np.uint8]:
    truths: Mask = column.fill_null(False).to_numpy(zero_copy_only=False)
    return np.packbits(truths & written, bitorder="little")


def _values(column: pa.Array, written: Mask) -> NDArray[np.uint8]:
    width = column.type.byte_width
    start = column.offset * width
    raw = np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(column) * width]
    unit = next(size for size in (8, 4, 2, 1) if width % size == 0)
    words = raw.view(f"u{unit}")
    if unit != width:
        written = np.repeat(written, width // unit)
    cleared: NDArray[np.uint8] = np.multiply(words, written).view(np.uint8)
    return cleared
