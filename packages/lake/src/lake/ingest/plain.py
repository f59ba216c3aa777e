"""Convert Arrow types to the types that shards use; `docs/types.md` has the table.

Layouts (dictionaries, views, large offsets) are removed, and types with a plain equivalent are
converted: a 16-bit float to 32 bits, a UUID to text, a map to a list of keys and values. Nothing is
rounded: nanosecond values that are not whole microseconds are refused.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sennit_core.errors import BadInput

__all__ = ["check_fields", "is_changed", "plain_array", "plain_schema", "plain_type"]

_UUID_BYTES = 16
_UUID_DASHES = (8, 13, 18, 23)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_DECIMAL_DIGITS_MAX = 38


def plain_schema(schema: pa.Schema, names: list[str]) -> pa.Schema:
    """Return the columns with these names and plain types, without metadata."""
    fields = zip(names, schema, strict=True)
    return pa.schema([pa.field(name, plain_type(field.type)) for name, field in fields])


def plain_type(arrow_type: pa.DataType) -> pa.DataType:
    """Return the type to store; an unsupported type is returned unchanged, and refused later."""
    types = pa.types
    if isinstance(arrow_type, pa.BaseExtensionType):
        if _is_uuid(arrow_type):
            return pa.string()
        return plain_type(arrow_type.storage_type)
    if types.is_dictionary(arrow_type) or types.is_run_end_encoded(arrow_type):
        return plain_type(arrow_type.value_type)
    if types.is_map(arrow_type):
        key = pa.field("key", plain_type(arrow_type.key_type), nullable=False)
        return pa.list_(pa.struct([key, pa.field("value", plain_type(arrow_type.item_type))]))
    if _is_list(arrow_type):
        return pa.list_(plain_type(arrow_type.value_type))
    if types.is_struct(arrow_type):
        return pa.struct([field.with_type(plain_type(field.type)) for field in arrow_type])
    # Parquet has no negative scale: decimal(3, -2), such as 12300, needs five digits and scale 0.
    if types.is_decimal(arrow_type) and arrow_type.scale < 0:
        digits = arrow_type.precision - arrow_type.scale
        return pa.decimal128(digits, 0) if digits <= _DECIMAL_DIGITS_MAX else arrow_type
    return _PLAIN.get(arrow_type, arrow_type)


def is_changed(arrow_type: pa.DataType) -> bool:
    """Whether the stored values are of another kind, which the ingest report must mention."""
    if isinstance(arrow_type, pa.BaseExtensionType) or pa.types.is_map(arrow_type):
        return True
    if pa.types.is_nested(arrow_type):
        return any(map(is_changed, _children(arrow_type)))
    return arrow_type in _REPORTED


def check_fields(name: str, arrow_type: pa.DataType) -> None:
    """Refuse structs whose field names are empty or equal in SQL; `name` is the column's."""
    if pa.types.is_struct(arrow_type):
        names = [field.name.casefold() for field in arrow_type]
        if "" in names:
            raise BadInput(what=f"column {name!r}", reason="a field of its struct has no name")
        # SQL names are case-insensitive, so one of the two fields could not be selected.
        twice = next((each for each in names if names.count(each) > 1), None)
        if twice is not None:
            reason = f"two fields of its struct are called {twice!r}, in one case or another"
            raise BadInput(what=f"column {name!r}", reason=reason)
    for child in _children(arrow_type):
        check_fields(name, child)


def plain_array(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Convert the values to the plain type.

    Raises:
        ArrowInvalid: A value would change.
        ArrowNotImplementedError: There is no conversion between the types.
    """
    # `cast` is safe by default: it raises instead of rounding.
    return (_unwrapped(array) if _is_wrapped(array.type) else array).cast(target)


_PLAIN: dict[pa.DataType, pa.DataType] = {
    pa.null(): pa.string(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.float16(): pa.float32(),
    pa.time64("ns"): pa.time64("us"),
    pa.duration("ns"): pa.duration("us"),
}
_REPORTED = (pa.null(), pa.float16(), pa.time64("ns"), pa.duration("ns"))


def _is_uuid(arrow_type: pa.DataType) -> bool:
    return getattr(arrow_type, "extension_name", "") == "arrow.uuid"


def _is_list(arrow_type: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(arrow_type)
        or types.is_large_list(arrow_type)
        or types.is_fixed_size_list(arrow_type)
        or types.is_list_view(arrow_type)
        or types.is_large_list_view(arrow_type)
    )


def _children(arrow_type: pa.DataType) -> list[pa.DataType]:
    if not pa.types.is_nested(arrow_type):
        return []
    return [arrow_type.field(index).type for index in range(arrow_type.num_fields)]


def _is_wrapped(arrow_type: pa.DataType) -> bool:
    """Whether Arrow's cast fails on the type or is wrong (list views), at any depth."""
    types = pa.types
    if isinstance(arrow_type, pa.BaseExtensionType) or types.is_run_end_encoded(arrow_type):
        return True
    if types.is_list_view(arrow_type) or types.is_large_list_view(arrow_type):
        return True
    if types.is_dictionary(arrow_type):
        return _is_wrapped(arrow_type.value_type)
    return any(map(_is_wrapped, _children(arrow_type)))


def _unwrapped(array: pa.Array) -> pa.Array:
    """Return the values without extension types, views and runs, at any depth."""
    types, found = pa.types, array.type
    if isinstance(found, pa.BaseExtensionType):
        return _uuid_text(array.storage) if _is_uuid(found) else _unwrapped(array.storage)
    if types.is_dictionary(found):
        return _unwrapped(array.dictionary_decode())
    if types.is_run_end_encoded(found):
        return _unwrapped(pc.run_end_decode(array))
    if types.is_struct(found):
        # `flatten` applies the struct's own nulls and offset to its children.
        children = [_unwrapped(child) for child in array.flatten()]
        fields = [f.with_type(child.type) for f, child in zip(found, children, strict=True)]
        return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null())
    if types.is_map(found):
        array = array.cast(pa.list_(pa.struct([found.key_field, found.item_field])))
    elif not _is_list(found):
        return array
    # Offsets are computed anew: those of a list view may be in any order, and overlap.
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = _unwrapped(pc.list_flatten(array))
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), values, mask=array.is_null()
    )


def _uuid_text(storage: pa.FixedSizeBinaryArray) -> pa.StringArray:
    """Format UUIDs as `8-4-4-4-12` hex digits (RFC 9562, section 4)."""
    count = len(storage)
    start = storage.offset * _UUID_BYTES
    data = np.frombuffer(storage.buffers()[1] or b"", np.uint8)
    data = data[start : start + count * _UUID_BYTES].reshape(count, _UUID_BYTES)
    # (count, 16) bytes become (count, 32) hexadecimal digits, the high half of each byte first.
    digits = np.stack([_HEX[data >> 4], _HEX[data & 15]], axis=2).reshape(count, 2 * _UUID_BYTES)
    text = np.full((count, 36), ord("-"), np.uint8)
    text[:, [at for at in range(36) if at not in _UUID_DASHES]] = digits
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(36), count, [None, pa.py_buffer(text.tobytes())]
    )
    texts = fixed.cast(pa.binary()).cast(pa.string())
    nothing = pa.scalar(None, pa.string())
    return texts if not storage.null_count else pc.if_else(storage.is_null(), nothing, texts)
