"""Convert typed records from and to Arrow; the C core reads and fills Arrow buffers directly.

Format: Arrow columnar format 1.5, "Physical memory layout".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sennit_core.errors import UnknownColumn, UsageError
from strand.conversions import arrow_type
from strand.sources import (
    BITS,
    FIXED,
    OFFSETS32,
    OFFSETS64,
    Source,
    can_cast,
    check_length,
    intern_handles,
    mismatch,
)

if TYPE_CHECKING:
    from strand import _native
    from strand.fields import StrandField
    from strand.header import StrandMap
    from strand.schema import StrandSchema

__all__ = ["describe_array", "gather", "pieces"]

_OFFSETS_MAX = 2**31 - 1


# ---- writing ------------------------------------------------------------------------------------


def pieces(batch: pa.RecordBatch | pa.Table, schema: StrandSchema) -> Iterator[dict[str, pa.Array]]:
    """Yield the columns of a batch, or of each batch of a table."""
    if not isinstance(batch, (pa.RecordBatch, pa.Table)):
        raise UsageError(f"pass a record batch or a table, not {type(batch).__name__}")
    names = batch.schema.names
    for name in names:
        if name not in schema.index:
            raise UnknownColumn(name, schema.names)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"two columns are named {twice!r}")
    for piece in batch.to_batches() if isinstance(batch, pa.Table) else [batch]:
        yield dict(zip(names, piece.columns, strict=True))


def describe_array(
    map: StrandMap,  # noqa: A002 - the name that all modules use
    field: StrandField,
    array: pa.Array | pa.ChunkedArray,
    mask: np.ndarray[Any, Any] | None = None,
) -> tuple[Source, int]:
    """Return the description of an Arrow array for one field, and its number of rows.

    Args:
        map: the ring, in whose intern table `utf8_ref` strings are looked up.
        field: the field that stores the column.
        array: the column.
        mask: True where the value is null, in addition to the array's nulls; or None.

    Raises:
        UsageError: the type differs from the field's, and a cast would lose information.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    rows = len(array)
    if mask is not None:
        check_length(field, mask, rows)
        array = array.take(pa.array(np.ma.MaskedArray(np.arange(rows), mask)))
    if pa.types.is_null(array.type):
        array = pa.nulls(rows, arrow_type(field.type, interned=False))
    if field.facts.kind == "handle":
        array = _to_handles(map, field, array)
        return _describe_fixed(array), rows
    if pa.types.is_dictionary(array.type) or pa.types.is_run_end_encoded(array.type):
        array = array.cast(array.type.value_type)
    if field.facts.kind == "array":
        return _describe_lists(field, array), rows
    if field.facts.heap:
        return _describe_payloads(field, array), rows
    if field.facts.kind == "boolean":
        if not pa.types.is_boolean(array.type):
            raise mismatch(field, array.type)
        validity, values = array.buffers()
        return (BITS, values, None, array.offset, *_validity(array, validity)), rows
    return _describe_fixed(_cast(field, array, arrow_type(field.type))), rows


def _describe_fixed(array: pa.Array) -> Source:
    validity, values = array.buffers()
    return (FIXED, values or b"", None, array.offset, *_validity(array, validity))


def _describe_payloads(field: StrandField, array: pa.Array) -> Source:
    """Describe strings, JSON text or bytes."""
    types, kind = pa.types, array.type
    if field.facts.kind == "bytes":
        if types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
            array = array.cast(pa.large_binary())
        fits = types.is_binary(array.type) or types.is_large_binary(array.type)
    else:
        if types.is_string_view(kind):
            array = array.cast(pa.large_string())
        fits = types.is_string(array.type) or types.is_large_string(array.type)
    if not fits:
        raise mismatch(field, kind)
    large = types.is_large_string(array.type) or types.is_large_binary(array.type)
    validity, offsets, data = array.buffers()
    form = OFFSETS64 if large else OFFSETS32
    return (form, data, offsets, array.offset, *_validity(array, validity))


def _describe_lists(field: StrandField, array: pa.Array) -> Source:
    """Describe lists of numbers: their offsets count the items of one child array."""
    types, kind = pa.types, array.type
    want = arrow_type(field.type).value_type
    if types.is_fixed_size_list(kind) or types.is_list_view(kind) or types.is_large_list_view(kind):
        array = array.cast(pa.large_list(kind.value_type))
    if not (types.is_list(array.type) or types.is_large_list(array.type)):
        raise mismatch(field, kind)
    items = array.values
    if items.null_count and array.flatten().null_count:
        raise mismatch(field, f"{kind} with nulls inside its lists")
    items = _cast(field, items, want)
    validity, offsets = array.buffers()[:2]
    data = items.buffers()[1]
    if data is not None:
        size = field.facts.item_bytes
        data = data.slice(items.offset * size, len(items) * size)
    form = OFFSETS64 if types.is_large_list(array.type) else OFFSETS32
    return (form, data, offsets, array.offset, *_validity(array, validity))


def _to_handles(
    map: StrandMap,  # noqa: A002 - see above
    field: StrandField,
    array: pa.Array,
) -> pa.Array:
    """Return u32 handles for strings, for a dictionary of strings, or for handles."""
    if pa.types.is_integer(array.type):
        try:
            return array.cast(pa.uint32())
        except pa.ArrowInvalid as error:
            raise mismatch(field, error) from error
    if not pa.types.is_dictionary(array.type):
        if not _is_text(array.type):
            raise mismatch(field, array.type, "pass strings, a dictionary of strings, or handles")
        array = array.cast(pa.large_string()).dictionary_encode()
    elif not _is_text(array.type.value_type) or array.dictionary.null_count:
        raise mismatch(field, array.type, "pass a dictionary of strings, none of them null")
    used = array.indices.unique().drop_null()
    texts = array.dictionary.take(used).to_pylist()
    handles = np.zeros(max(len(array.dictionary), 1), np.uint32)
    handles[used.to_numpy()] = intern_handles(map, field, texts)
    indices = array.indices.fill_null(0).to_numpy()
    absent = array.indices.is_null().to_numpy(zero_copy_only=False)
    return pa.array(handles[indices], pa.uint32(), mask=absent)


def _cast(field: StrandField, array: pa.Array, want: pa.DataType) -> pa.Array:
    if array.type == want:
        return array
    try:
        source = np.dtype(array.type.to_pandas_dtype())
    except (pa.ArrowNotImplementedError, TypeError):
        source = np.dtype(object)
    if not can_cast(source, np.dtype(want.to_pandas_dtype())):
        raise mismatch(field, array.type, "cast it yourself: column.cast(...)")
    return array.cast(want)


def _validity(array: pa.Array, bits: pa.Buffer | None) -> tuple[pa.Buffer | None, int]:
    return (bits if array.null_count else None), array.offset


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


# ---- reading ------------------------------------------------------------------------------------


def gather(
    consumer: _native.Consumer, schema: StrandSchema, intern: Sequence[str], start: int, stop: int
) -> pa.RecordBatch:
    """Copy readable records into an Arrow batch, in one pass of the C core.

    The types are those of `StrandSchema.to_arrow`; `utf8_ref` fields are plain handles (uint32)
    when there is no intern table.

    Args:
        consumer: a consumer of the ring.
        schema: the ring's.
        intern: the strings that `utf8_ref` handles refer to.
        start: the first record.
        stop: one past the last.

    Raises:
        UsageError: more string data than 32-bit offsets can address; read fewer records.
        Corrupt: a slot has an invalid heap pointer, handle or string.
    """
    rows = stop - start
    heap = [at for at, field in enumerate(schema.fields) if field.facts.heap]
    sizes = dict(zip(heap, consumer._payload_sizes(start, stop, heap), strict=True))  # noqa: SLF001
    targets = [
        _allocate(field, at, rows, sizes.get(at, 0)) for at, field in enumerate(schema.fields)
    ]
    nulls = consumer._gather(start, stop, targets)  # noqa: SLF001 - of one package
    dictionary = pa.array(intern, pa.string()) if intern else None
    arrays = [
        _assemble(field, rows, target, absent, dictionary)
        for field, target, absent in zip(schema.fields, targets, nulls, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow_schema(interned=bool(intern)))


Target = tuple[int, int, Any, Any, Any]


def _allocate(field: StrandField, at: int, rows: int, payload_bytes: int) -> Target:
    """Allocate the buffers of one field: (position, form, values, offsets, validity)."""
    bits = (rows + 7) // 8
    validity = pa.allocate_buffer(bits) if field.nullable else None
    if field.facts.kind == "boolean":
        return at, BITS, pa.allocate_buffer(bits), None, validity
    if not field.facts.heap:
        return at, FIXED, pa.allocate_buffer(rows * field.facts.item_bytes), None, validity
    if payload_bytes > _OFFSETS_MAX:
        raise UsageError(
            f"field {field.name!r} has {payload_bytes} bytes in {rows} records, more than an "
            f"Arrow column of {arrow_type(field.type)} holds",
            hint="read fewer records at a time",
        )
    data, offsets = pa.allocate_buffer(payload_bytes), pa.allocate_buffer((rows + 1) * 4)
    return at, OFFSETS32, data, offsets, validity


def _assemble(
    field: StrandField, rows: int, target: Target, absent: int, dictionary: pa.Array | None
) -> pa.Array:
    """Build an array from the filled buffers."""
    _, _, values, offsets, validity = target
    validity = validity if absent else None
    make = pa.Array.from_buffers
    if field.facts.kind == "handle":
        if dictionary is None:
            return make(pa.uint32(), rows, [validity, values], absent)
        indices = make(pa.int32(), rows, [validity, values], absent)
        return pa.DictionaryArray.from_arrays(indices, dictionary, safe=False)
    kind = arrow_type(field.type)
    if not field.facts.heap:
        return make(kind, rows, [validity, values], absent)
    if field.facts.kind != "array":
        return make(kind, rows, [validity, offsets, values], absent)
    items = make(kind.value_type, values.size // field.facts.item_bytes, [None, values], 0)
    return make(kind, rows, [validity, offsets], absent, children=[items])
