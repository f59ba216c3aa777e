"""Convert record schemas from and to numpy dtypes, Arrow schemas and `sennit_core` schemas.

A type that a slot cannot store exactly is refused by name; a block ring carries every Arrow type.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from sennit_core.errors import Unsupported, UsageError
from strand.schema import StrandField, StrandSchema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sennit_core.schema import Schema
    from strand.schema import Order, Version

__all__ = [
    "NULLS",
    "NUMPY_CODES",
    "arrow_type",
    "from_arrow",
    "from_core",
    "from_numpy",
    "to_arrow",
    "to_core",
    "to_numpy",
]

NULLS = "_nulls"
"""The null bitmap's name in the numpy dtype; bit i is 1 when nullable field i has a value."""

NUMPY_CODES = {
    "i32": "<i4",
    "u32": "<u4",
    "i64": "<i8",
    "f32": "<f4",
    "f64": "<f8",
    "u16": "<u2",
    "u8": "|u1",
    "bool8": "|b1",
    "utf8_ref": "<u4",
}
_FROM_CODES = {code: name for name, code in NUMPY_CODES.items() if name != "utf8_ref"}
_TYPE_KEY, _ORDER_KEY = b"strand.type", b"strand.order"


def to_numpy(schema: StrandSchema, version: Version = 6) -> np.dtype[Any]:
    """Return the structured dtype of one slot: see `StrandSchema.to_numpy`."""
    import numpy as np

    layout = schema.layout(version)
    if NULLS in schema.index:
        raise UsageError(
            f"a field named {NULLS!r} hides the null bitmap", hint="give the field another name"
        )
    pointer = {"names": ["offset", "length"], "formats": ["<u8", "<u4"], "itemsize": 16}
    if version == 5:
        pointer = {"names": ["offset", "length"], "formats": ["<u4", "<u2"], "itemsize": 6}
    names = list(schema.names)
    formats: list[Any] = [
        pointer if field.kind.heap else NUMPY_CODES[field.type] for field in schema.fields
    ]
    offsets = list(layout.offsets)
    if layout.bitmap_bytes:
        names.insert(0, NULLS)
        formats.insert(0, ("u1", (layout.bitmap_bytes,)))
        offsets.insert(0, 0)
    facts = {"names": names, "formats": formats, "offsets": offsets, "itemsize": layout.stride}
    dtype: np.dtype[Any] = np.dtype(cast("Any", facts))
    return dtype


def from_numpy(dtype: Any) -> StrandSchema:
    """Return the schema of a structured dtype: see `StrandSchema.from_numpy`."""
    import numpy as np

    record = np.dtype(dtype)
    if record.names is None or record.fields is None:
        raise UsageError(f"a schema needs a dtype with named fields, not {record}")
    fields = []
    for name in record.names:
        kind = record.fields[name][0]
        found = _FROM_CODES.get(kind.newbyteorder("<").str)
        if found is None:
            raise Unsupported(
                f"field {name!r} has the numpy type {kind}, which no field type can store",
                hint="build the schema by hand: strings, bytes and arrays are heap fields",
            )
        fields.append(StrandField(name, found))
    return StrandSchema(tuple(fields))


@cache
def arrow_type(name: str, *, interned: bool = True) -> pa.DataType:
    """Return the Arrow type of a field type; handles are uint32 if `interned` is false."""
    import pyarrow as pa

    if name == "utf8_ref":
        return pa.dictionary(pa.int32(), pa.string()) if interned else pa.uint32()
    return {
        "i32": pa.int32(),
        "u32": pa.uint32(),
        "i64": pa.int64(),
        "f32": pa.float32(),
        "f64": pa.float64(),
        "u16": pa.uint16(),
        "u8": pa.uint8(),
        "bool8": pa.bool_(),
        "utf8": pa.string(),
        "json": pa.string(),
        "bytes": pa.binary(),
        "i32_array": pa.list_(pa.int32()),
        "f32_array": pa.list_(pa.float32()),
    }[name]


def to_arrow(schema: StrandSchema, *, interned: bool = True) -> pa.Schema:
    """Return the Arrow schema: see `StrandSchema.to_arrow`."""
    import pyarrow as pa

    fields = []
    for field in schema.fields:
        metadata = {}
        if field.type == "json" or (field.type == "utf8_ref" and not interned):
            metadata[_TYPE_KEY] = field.type.encode()
        if field.order:
            metadata[_ORDER_KEY] = field.order.encode()
        kind = arrow_type(field.type, interned=interned)
        fields.append(pa.field(field.name, kind, field.nullable, metadata or None))
    return pa.schema(fields)


def from_arrow(schema: pa.Schema) -> StrandSchema:
    """Return the record schema of an Arrow schema: see `StrandSchema.from_arrow`."""
    return StrandSchema(tuple(_field_from_arrow(field) for field in schema))


def to_core(schema: StrandSchema) -> Schema:
    """Return the `sennit_core` schema: see `StrandSchema.to_core`."""
    from sennit_core.schema import Schema

    return Schema.from_strand((f.name, f.type, f.nullable) for f in schema.fields)


def from_core(schema: Schema) -> StrandSchema:
    """Return the record schema of a `sennit_core` schema: see `StrandSchema.from_core`."""
    return StrandSchema(tuple(StrandField(*facts) for facts in schema.to_strand()))


def _field_from_arrow(field: pa.Field) -> StrandField:
    metadata: Mapping[bytes, bytes] = field.metadata or {}
    named = metadata.get(_TYPE_KEY, b"").decode()
    found = named or _type_from_arrow(field.type)
    if found is None or (named and not _may_be(field.type, named)):
        raise Unsupported(
            f"column {field.name!r} has the Arrow type {field.type}"
            f"{f', marked as {named}' if named else ''}, which no field type can store",
            hint="cast the column, or open the ring with strand.BLOCKS: blocks carry every type",
        )
    order = cast("Order | None", metadata.get(_ORDER_KEY, b"").decode() or None)
    return StrandField(field.name, found, field.nullable, order)


def _type_from_arrow(kind: pa.DataType) -> str | None:
    """Return the field type of an Arrow type, ignoring differences of layout only; or None."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return "utf8_ref" if _type_from_arrow(kind.value_type) == "utf8" else None
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "utf8"
    if (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    ):
        return "bytes"
    if (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    ):
        return {pa.int32(): "i32_array", pa.float32(): "f32_array"}.get(kind.value_type)
    plain = {arrow_type(name): name for name in NUMPY_CODES if name != "utf8_ref"}
    return plain.get(kind)


def _may_be(kind: pa.DataType, named: str) -> bool:
    """Whether a column of this Arrow type can be the field type in its metadata."""
    plain = _type_from_arrow(kind)
    if named == "utf8_ref":
        return plain in ("utf8_ref", "u32")
    return plain == ("utf8" if named == "json" else named)
