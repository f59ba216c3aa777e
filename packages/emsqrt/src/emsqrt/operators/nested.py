"""Pack lists and structs into bytes that a packed row can carry, and unpack them, by column.

A struct's value is the packed row (rows.h, without a key) of its fields. A list's value is the
packed rows of its items, one after the other, each of one field. The kernel packs all items of a
batch into one block; since rows are adjacent, a list is the span between two row ends. Deeper
nested values are packed first and are then a field of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emsqrt._kernel import Columns, KeySpec, pack_join_rows, unpack_rows
from emsqrt.external.layout import KINDS
from emsqrt.operators import columns as flat
from sennit_core.schema import DataType, Field, Schema

# Example: lists of integers as bytes
#
#     lists      [1, 2]    NULL    [3]
#     offsets    0         2       2       3     numbers of items, as Arrow has them
#     block      row(1) row(2) row(3)            packed by the kernel
#     ends       0         2 rows  2 rows  3     the offsets as bytes of the block
_NO_KEY = KeySpec([])
_HEAD_BYTES = 8  # of a row
_FIELD_BYTES = (1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 16, 4, 4)  # of each kind, as in pack.h

Offsets = NDArray[np.int64]


def carried_kinds(schema: Schema) -> list[int]:
    """Return the kernel's kinds of columns in packed rows; lists and structs are bytes."""
    return [KINDS[_flat(field).type.name] for field in schema]


def carried_type(of: DataType) -> DataType:
    """Return the type of a column in a packed row."""
    return DataType("Binary") if is_nested(of) else of


def to_columns(
    arrays: Sequence[Any],
    fields: Sequence[Field],
    rows: int,
) -> Columns:
    """Return arrays in the kernel's form, as `columns.to_columns`, but of any type."""
    return flat.to_columns(flattened(arrays, fields), [_flat(field) for field in fields], rows)


def unpack_batch(block: memoryview, rows: int, schema: Schema, arrow_schema: Any) -> Any:
    """Return the batch of a block's rows, as `columns.unpack_batch`, but of any type."""
    if not any(is_nested(field.type) for field in schema):
        return flat.unpack_batch(block, rows, schema, arrow_schema)
    packed = Schema(tuple(_flat(field) for field in schema))
    batch = flat.unpack_batch(block, rows, packed, packed.to_arrow())
    return pa.RecordBatch.from_arrays(restored(batch.columns, schema), schema=arrow_schema)


def restored(arrays: Sequence[Any], fields: Iterable[Field]) -> list[Any]:
    """Return columns in their original types, after they were carried in rows."""
    return [
        unpack_nested(array, field.type) if is_nested(field.type) else array
        for array, field in zip(arrays, fields, strict=True)
    ]


def pack_nested(array: Any, of: DataType) -> Any:
    """Return lists or structs as an array of bytes, NULL where they are NULL.

    Args:
        array: of type `of`, with any offset.
        of: a List or a Struct.
    """
    wanted = of.to_arrow()
    array = array if array.type == wanted else array.cast(wanted)
    if of.name == "Struct":
        children = [array.field(at) for at in range(len(of.fields))]
        rows: Any = np.arange(len(array) + 1)
        if array.null_count:  # NULL has no bytes
            valid = array.is_valid()
            children = [child.filter(valid) for child in children]
            # Row n of the struct ends where its number of present rows before it does.
            rows = np.concatenate([[0], np.cumsum(valid.to_numpy(zero_copy_only=False))])
        block, starts = _pack(children, of.fields, int(rows[-1]))
        ends = starts[rows]
    else:
        assert of.item is not None, "a list has items"
        spans = array.offsets.to_numpy() if len(array) else np.zeros(1, np.int32)
        # The items of a sliced array begin in the middle of its values.
        first = int(spans[0])
        items = array.values.slice(first, int(spans[-1]) - first)
        block, ends = _pack([items], [Field("item", of.item)], len(items))
        ends = ends[spans.astype(np.int64) - first]
    offsets = pa.py_buffer(ends.astype(np.int32))
    bitmap = _bits(array.is_valid()) if array.null_count else None
    buffers = [bitmap, offsets, pa.py_buffer(block)]
    return pa.Array.from_buffers(pa.binary(), len(array), buffers, array.null_count)


def unpack_nested(array: Any, of: DataType) -> Any:
    """Return the values that `pack_nested` packed.

    Args:
        array: of bytes.
        of: their original type.
    """
    _, offsets, data = array.buffers()
    start = array.offset
    ends = np.frombuffer(offsets, np.int32)[start : start + len(array) + 1].astype(np.int64)
    block = memoryview(b"" if data is None else data)[int(ends[0]) : int(ends[-1])]
    # Offsets from the start of this block, not of the buffer.
    ends -= ends[0]
    bitmap = _bits(array.is_valid()) if array.null_count else None
    if of.name == "Struct":
        children, _ = _unpack(block, of.fields)
        if array.null_count:
            valid = array.is_valid().to_numpy(zero_copy_only=False)
            places = pa.array(np.cumsum(valid) - 1, mask=~valid)
            children = [child.take(places) for child in children]
        buffers = [bitmap]
    else:
        assert of.item is not None, "a list has items"
        children, starts = _unpack(block, [Field("item", of.item)])
        # The inverse: which row begins at each end.
        buffers = [bitmap, pa.py_buffer(np.searchsorted(starts, ends).astype(np.int32))]
    return pa.Array.from_buffers(
        of.to_arrow(), len(array), buffers, array.null_count, children=children
    )


def _bits(valid: Any) -> Any:
    """Return a bitmap of booleans without NULL, from bit 0 on."""
    packed = np.packbits(valid.to_numpy(zero_copy_only=False), bitorder="little")
    return pa.py_buffer(packed)


def _pack(arrays: Sequence[Any], fields: Sequence[Field], rows: int) -> tuple[Any, Offsets]:
    """Pack columns into rows; also return the start of each row, and the end of the last one."""
    arrays = flattened(arrays, fields)
    starts = _row_starts(arrays, fields, rows)
    block = np.empty(int(starts[-1]), np.uint8)
    columns = flat.to_columns(arrays, [_flat(field) for field in fields], rows)
    at = done = 0
    while done < rows:
        filled, packed_count = pack_join_rows(
            columns, _NO_KEY, tuple(range(len(arrays))), done, block.data[at:]
        )
        at, done = at + filled, done + packed_count
    assert at == len(block), "row lengths were measured"
    return block, starts


def _unpack(block: memoryview, fields: Sequence[Field]) -> tuple[list[Any], Offsets]:
    kinds = [KINDS[_flat(field).type.name] for field in fields]
    # No row is shorter than its fixed part.
    rows_max = len(block) // _fixed_bytes(kinds)
    room = pa.allocate_buffer(
        flat.packed_bytes_max(len(block), rows_max, len(kinds)), resizable=True
    )
    rows, following, filled = unpack_rows(block, 0, rows_max, kinds, memoryview(room))
    assert following == len(block), "the buffer was measured"
    arrays = [
        flat.array_in(room, rows, part, _flat(field).type.to_arrow())
        for part, field in zip(filled, fields, strict=True)
    ]
    starts = _row_starts(arrays, fields, rows)
    return restored(arrays, fields), starts


def flattened(arrays: Sequence[Any], fields: Sequence[Field]) -> list[Any]:
    """Return columns as they are carried in rows: lists and structs as bytes."""
    return [
        pack_nested(array, field.type) if is_nested(field.type) else array
        for array, field in zip(arrays, fields, strict=True)
    ]


def is_nested(of: DataType) -> bool:
    """Return whether values of this type contain other values."""
    return of.name in ("List", "Struct")


def _flat(field: Field) -> Field:
    return Field(field.name, carried_type(field.type))


def _fixed_bytes(kinds: Sequence[int]) -> int:
    return _HEAD_BYTES + (len(kinds) + 7) // 8 + sum(_FIELD_BYTES[kind] for kind in kinds)


def _row_starts(arrays: Sequence[Any], fields: Sequence[Field], rows: int) -> Offsets:
    """Return the start of each of these columns' rows once they are packed, and their end."""
    kinds = [KINDS[_flat(field).type.name] for field in fields]
    lengths = np.full(rows, _fixed_bytes(kinds), np.int64)
    for array, field in zip(arrays, fields, strict=True):
        if _flat(field).type.name in ("Utf8", "Binary"):
            texts = array if array.type in (pa.string(), pa.binary()) else array.cast(pa.binary())
            lengths += _text_bytes(texts)
    starts = np.zeros(rows + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _text_bytes(array: Any) -> Offsets:
    """Return the bytes of each text, 0 for NULL."""
    offsets = array.buffers()[1]
    if not len(array) or offsets is None:
        return np.zeros(len(array), np.int64)
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(ends).astype(np.int64)
    if array.null_count:
        lengths[~array.is_valid().to_numpy(zero_copy_only=False)] = 0
    return lengths
