"""Arrow batches as the kernel sees them, and back: no value is copied on the way in."""

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
"""Of a value in an array without its text, by kind; its validity is one of them."""
_FIELD_BYTES = (1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 16, 4, 4)
"""Of a value in a packed row, likewise."""


class Narrow(NamedTuple):
    """The kind of integers or decimals that are packed in fewer bytes than theirs.

    Args:
        kind: the kernel's.
        bytes: of each: 1, 2, 4 or 8.
        least: taken away from each; 0 with 8 bytes.
    """

    kind: int
    bytes: int
    least: int


PackedKind: TypeAlias = int | Narrow
"""How a column lies in packed rows."""


def row_kinds(schema: Schema, doing: str) -> list[int]:
    """Return the kernel's kinds of all columns."""
    return [kind_of(field.type, doing) for field in schema]


def to_columns(
    arrays: Sequence[Any],
    fields: Sequence[Field],
    rows: int,
) -> Columns:
    """Return arrays as the kernel sees them.

    Args:
        arrays: Arrow arrays, each of `rows` values.
        fields: their types, which the arrays are cast to when they come dictionary-encoded or with
            64-bit offsets.
        rows: how many values each has.
    """
    kinds = [KINDS[field.type.name] for field in fields]
    return packed_columns(arrays, [field.type.to_arrow() for field in fields], rows, kinds)


def packed_columns(
    arrays: Sequence[Any], types: Sequence[Any], rows: int, kinds: Sequence[PackedKind]
) -> Columns:
    """Return arrays as the kernel sees them, for rows that are read back with these kinds.

    Args:
        arrays: Arrow arrays, each of `rows` values.
        types: theirs, as of `to_columns`.
        rows: how many values each has.
        kinds: of each.

    Raises:
        BadInput: a value is beyond its narrow kind.
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
    """Return the bytes that unpacking a block of rows takes at most.

    Args:
        block_bytes: of the packed rows.
        rows: how many there are.
        column_count: how many columns each has.
    """
    each_column = (rows // 8 + 4 * (rows + 1) + 8 * rows) + 8 * _ALIGNMENT_BYTES
    return block_bytes + column_count * each_column


def unpack_batch(block: memoryview, rows: int, schema: Schema, arrow_schema: Any) -> Any:
    """Return the batch whose columns are the payloads of a block's rows.

    Args:
        block: whole rows, packed by a `RowStore` from columns of `schema`.
        rows: how many there are.
        schema: the columns.
        arrow_schema: the same, as Arrow has it.
    """
    kinds = [KINDS[field.type.name] for field in schema]
    arrays = unpack_arrays(block, rows, kinds, arrow_schema.types)
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema)


def unpack_arrays(
    block: memoryview, rows: int, kinds: Sequence[PackedKind], types: Sequence[Any]
) -> list[Any]:
    """Return the columns that lie in the payloads of a block's rows.

    Args:
        block: whole rows.
        rows: how many there are.
        kinds: of each column, as it was packed.
        types: the same, as Arrow has them.
    """
    if not kinds:
        return []
    fixed_bytes = rows * ((len(kinds) + 7) // 8 + sum(map(field_bytes, kinds)))
    room = _room_for(kinds, rows, len(block) - fixed_bytes)
    done, _, filled = unpack_rows(block, 0, rows, kinds, memoryview(room))
    return _arrays(room, rows, done, filled, types)


def key_arrays(block: memoryview, rows: int, keys: KeySpec, fields: Sequence[Field]) -> list[Any]:
    """Return the columns that the keys of a block's rows are made of.

    Args:
        block: whole rows.
        rows: how many there are.
        keys: the order.
        fields: what is ordered by.
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
    """Allocate what arrays take at most, when there may be so much text in all of them."""
    size = (len(kinds) + 1) * 4 * _ALIGNMENT_BYTES + rows * sum(map(_row_bits, kinds)) // 8
    if any(kind in _TEXT for kind in kinds):
        size += max(text_bytes, 0)
    return pa.allocate_buffer(size, resizable=True)


def _arrays(room: Any, rows: int, done: int, filled: Any, types: Sequence[Any]) -> list[Any]:
    assert done == rows, "the room was measured"
    return [array_in(room, rows, part, kind) for part, kind in zip(filled, types, strict=True)]


def array_in(room: Any, rows: int, part: tuple[Any, ...], kind: Any) -> Any:
    """Return one column that `unpack_rows` wrote.

    Args:
        room: the Arrow buffer that it wrote to.
        rows: how many values.
        part: where they lie.
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
