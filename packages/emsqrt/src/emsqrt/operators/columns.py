"""Convert Arrow batches to the kernel's representation, without copying values, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from emsqrt._kernel import Columns, KeySpec, decode_keys, unpack_rows
from emsqrt.external.layout import KINDS, kind_of
from sennit_core.errors import BadInput
from sennit_core.schema import Field, Schema

_TEXT = (12, 13)
_ALIGNMENT_BYTES = 64
_ROW_BITS = (2, 9, 17, 33, 65, 9, 17, 33, 65, 33, 65, 129, 33, 33)
"""Bits of a value in an array apart from its text, validity included, by kind."""
_FIELD_BYTES = (1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 16, 4, 4)
"""Bits of a value in a packed row, likewise."""


class Narrow(NamedTuple):
    """Integers or decimals that are packed in fewer bytes than their type has.

    Args:
        kind: the kernel's kind.
        bytes: width of each packed value: 1, 2, 4 or 8.
        least: subtracted from each value; 0 with 8 bytes.
    """

    kind: int
    bytes: int
    least: int


PackedKind: TypeAlias = int | Narrow
"""The representation of a column in packed rows."""


def row_kinds(schema: Schema, doing: str) -> list[int]:
    """Return the kernel's kinds of all columns."""
    return [kind_of(field.type, doing) for field in schema]


def to_columns(
    arrays: Sequence[Any],
    fields: Sequence[Field],
    rows: int,
) -> Columns:
    """Return arrays in the kernel's representation.

    Args:
        arrays: Arrow arrays, each of `rows` values.
        fields: their types, which arrays that are dictionary-encoded or have 64-bit offsets are
            cast to.
        rows: the number of values of each.
    """
    kinds = [KINDS[field.type.name] for field in fields]
    return packed_columns(arrays, [field.type.to_arrow() for field in fields], rows, kinds)


def packed_columns(
    arrays: Sequence[Any], types: Sequence[Any], rows: int, kinds: Sequence[PackedKind]
) -> Columns:
    """Return arrays in the kernel's representation, for rows that are unpacked with these kinds.

    Args:
        arrays: Arrow arrays, each of `rows` values.
        types: as `fields` of `to_columns`.
        rows: the number of values of each.
        kinds: how each is packed.

    Raises:
        BadInput: a value is out of range for its narrow kind.
    """
    parts = [
        _parts(array, wanted, kind)
        for array, wanted, kind in zip(arrays, types, kinds, strict=True)
    ]
    try:
        return Columns(rows, parts)
    except OverflowError as error:
        raise BadInput("a column", reason=str(error)) from error


def _parts(array: Any, wanted: Any, kind: PackedKind) -> tuple[PackedKind, int, Any, Any, Any]:
    # Dictionary arrays and 64-bit offsets become what the kernel reads.
    if array.type != wanted:
        array = array.cast(wanted)
    validity, *rest = array.buffers()
    if not array.null_count:
        validity = None
    if kind in _TEXT:
        ends, values = rest
        return kind, array.offset, validity, values, ends
    return kind, array.offset, validity, rest[0], None


def packed_bytes_max(block_bytes: int, rows: int, column_count: int) -> int:
    """Return the most bytes that unpacking a block of rows needs.

    Args:
        block_bytes: size of the packed rows.
        rows: their number.
        column_count: the number of columns.
    """
    # Validity bits, text ends and values of each column, each buffer aligned.
    each_column = (rows // 8 + 4 * (rows + 1) + 8 * rows) + 8 * _ALIGNMENT_BYTES
    return block_bytes + column_count * each_column


def unpack_batch(block: memoryview, rows: int, schema: Schema, arrow_schema: Any) -> Any:
    """Return the batch whose columns are the payloads of a block's rows.

    Args:
        block: whole rows, packed by a `RowStore` from columns of `schema`.
        rows: their number.
        schema: the columns.
        arrow_schema: the same, as an Arrow schema.
    """
    kinds = [KINDS[field.type.name] for field in schema]
    arrays = unpack_arrays(block, rows, kinds, arrow_schema.types)
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema)


def unpack_arrays(
    block: memoryview, rows: int, kinds: Sequence[PackedKind], types: Sequence[Any]
) -> list[Any]:
    """Return the columns in the payloads of a block's rows.

    Args:
        block: whole rows.
        rows: their number.
        kinds: how each column was packed.
        types: the Arrow type of each column.
    """
    if not kinds:
        return []
    # What is not of fixed width is text, and the unpacked texts need as many bytes as the packed
    # ones.
    fixed_bytes = rows * ((len(kinds) + 7) // 8 + sum(map(field_bytes, kinds)))
    room = _room_for(kinds, rows, len(block) - fixed_bytes)
    done, _, filled = unpack_rows(block, 0, rows, kinds, memoryview(room))
    return _arrays(room, rows, done, filled, types)


def key_arrays(block: memoryview, rows: int, keys: KeySpec, fields: Sequence[Field]) -> list[Any]:
    """Return the columns that are encoded in the keys of a block's rows.

    Args:
        block: whole rows.
        rows: their number.
        keys: the sort order.
        fields: the key columns.
    """
    kinds = [KINDS[field.type.name] for field in fields]
    room = _room_for(kinds, rows, len(block))
    done, _, filled = decode_keys(block, 0, rows, kinds, memoryview(room), keys)
    return _arrays(room, rows, done, filled, [field.type.to_arrow() for field in fields])


def field_bytes(kind: PackedKind) -> int:
    """Return the bytes of a field in a packed row."""
    return kind.bytes if isinstance(kind, Narrow) else _FIELD_BYTES[kind]


def _row_bits(kind: PackedKind) -> int:
    return _ROW_BITS[kind.kind if isinstance(kind, Narrow) else kind]


def _room_for(kinds: Sequence[PackedKind], rows: int, text_bytes: int) -> Any:
    """Allocate the most that arrays need if all of them together hold this much text."""
    size = (len(kinds) + 1) * 4 * _ALIGNMENT_BYTES + rows * sum(map(_row_bits, kinds)) // 8
    if any(kind in _TEXT for kind in kinds):
        size += max(text_bytes, 0)
    return pa.allocate_buffer(size, resizable=True)


def _arrays(room: Any, rows: int, done: int, filled: Any, types: Sequence[Any]) -> list[Any]:
    # All columns are slices of one buffer: one allocation per batch, freed as a whole.
    assert done == rows, "the buffer was measured"
    return [array_in(room, rows, part, kind) for part, kind in zip(filled, types, strict=True)]


def array_in(room: Any, rows: int, part: tuple[Any, ...], kind: Any) -> Any:
    """Return one column that `unpack_rows` wrote.

    Args:
        room: the Arrow buffer that it wrote to.
        rows: the number of values.
        part: the offsets of the column in it.
        kind: the Arrow type.
    """
    _, nulls, validity, values, ends = part
    buffers = [
        None if not nulls else room.slice(validity[0], validity[1] - validity[0]),
        room.slice(values[0], values[1] - values[0]),
    ]
    if ends is not None:
        buffers.insert(1, room.slice(ends[0], ends[1] - ends[0]))
    return pa.Array.from_buffers(kind, rows, buffers, nulls)
