"""Convert the fields of records from and to numpy dtypes, Arrow schemas and `sennit_core` schemas.

A type that a slot cannot store exactly is refused by name; a block ring carries every Arrow type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from sennit_core.errors import Unsupported, UsageError
from strand.fields import ELEMENTS, FIELD_TYPES, FieldType, Order, SlotLayout, StrandField

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sennit_core.schema import Schema

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


def _numpy_code(facts: FieldType) -> str:
    """Return a type's numpy code by kind and size, as `<i8`.

    Not the `struct` code: `q` is C's long long, which numpy keeps apart from `int64` although both
    are equal, where a long has 64 bits too.
    """
    if facts.kind == "boolean":
        return "?"
    if facts.limits is None:
        return f"<f{facts.item_bytes}"
    least, _ = facts.limits
    return f"<{'i' if least < 0 else 'u'}{facts.item_bytes}"


NUMPY_CODES = {name: _numpy_code(facts) for name, facts in FIELD_TYPES.items()}
"""The numpy code of the number in the slot, or of an item of the payload."""

_TYPE_KEY, _ORDER_KEY = b"strand.type", b"strand.order"

# Types of the other systems for the kinds whose element does not say it.
_ARROW_TYPES = {"boolean": "bool_", "text": "string", "json": "string", "bytes": "binary"}
_CORE_TYPES = {
    "boolean": "Bool",
    "handle": "Utf8",
    "text": "Utf8",
    "json": "Utf8",
    "bytes": "Binary",
}
_SECOND_KINDS = ("handle", "json")  # other systems' types become a type of another kind


def to_numpy(fields: Sequence[StrandField], layout: SlotLayout) -> np.dtype[Any]:
    """Return the structured dtype of one slot: see `StrandSchema.to_numpy`."""
    import numpy as np

    names = [field.name for field in fields]
    if NULLS in names:
        raise UsageError(
            f"a field named {NULLS!r} hides the null bitmap", hint="give the field another name"
        )
    pointer = {"names": ["offset", "length"], "formats": ["<u8", "<u4"], "itemsize": 16}
    if layout.version == 5:
        pointer = {"names": ["offset", "length"], "formats": ["<u4", "<u2"], "itemsize": 6}
    formats: list[Any] = [
        pointer if field.facts.heap else NUMPY_CODES[field.type] for field in fields
    ]
    offsets = list(layout.offsets)
    if layout.bitmap_bytes:
        names.insert(0, NULLS)
        formats.insert(0, ("u1", (layout.bitmap_bytes,)))
        offsets.insert(0, 0)
    facts = {"names": names, "formats": formats, "offsets": offsets, "itemsize": layout.stride}
    dtype: np.dtype[Any] = np.dtype(cast("Any", facts))
    return dtype


def from_numpy(dtype: Any) -> tuple[StrandField, ...]:
    """Return the fields of a structured dtype: see `StrandSchema.from_numpy`."""
    import numpy as np

    known = {
        np.dtype(NUMPY_CODES[facts.name]): facts.name for facts in _first_types() if not facts.heap
    }
    record = np.dtype(dtype)
    if record.names is None or record.fields is None:
        raise UsageError(f"a schema needs a dtype with named fields, not {record}")
    fields = []
    for name in record.names:
        kind = record.fields[name][0]
        found = known.get(kind.newbyteorder("="))
        if found is None:
            raise Unsupported(
                f"field {name!r} has the numpy type {kind}, which no field type can store",
                hint="build the schema by hand: strings, bytes and arrays are heap fields",
            )
        fields.append(StrandField(name, found))
    return tuple(fields)


@cache
def arrow_type(name: str, *, interned: bool = True) -> pa.DataType:
    """Return the Arrow type of a field type; handles are uint32 if `interned` is false."""
    import pyarrow as pa

    facts = FIELD_TYPES[name]
    if facts.kind == "handle" and interned:
        return pa.dictionary(pa.int32(), pa.string())
    made: pa.DataType = getattr(pa, _ARROW_TYPES.get(facts.kind) or ELEMENTS[facts.code])()
    return pa.list_(made) if facts.kind == "array" else made


def to_arrow(fields: Sequence[StrandField], *, interned: bool = True) -> pa.Schema:
    """Return the Arrow schema: see `StrandSchema.to_arrow`."""
    import pyarrow as pa

    columns = []
    for field in fields:
        metadata = {}
        if field.type == "json" or (field.type == "utf8_ref" and not interned):
            metadata[_TYPE_KEY] = field.type.encode()
        if field.order:
            metadata[_ORDER_KEY] = field.order.encode()
        kind = arrow_type(field.type, interned=interned)
        columns.append(pa.field(field.name, kind, field.nullable, metadata or None))
    return pa.schema(columns)


def from_arrow(schema: pa.Schema) -> tuple[StrandField, ...]:
    """Return the fields for the columns of an Arrow schema: see `StrandSchema.from_arrow`."""
    return tuple(_field_from_arrow(field) for field in schema)


def to_core(fields: Sequence[StrandField]) -> Schema:
    """Return the `sennit_core` schema: see `StrandSchema.to_core`."""
    from sennit_core.schema import DataType, Field, Schema

    return Schema(
        tuple(Field(f.name, DataType.parse(_core_type(f.facts)), f.nullable) for f in fields)
    )


def from_core(schema: Schema) -> tuple[StrandField, ...]:
    """Return the fields for the columns of a `sennit_core` schema: see `StrandSchema.from_core`."""
    known = {_core_type(facts): facts.name for facts in _first_types()}
    fields = []
    for column in schema.fields:
        found = known.get(str(column.type))
        if found is None:
            raise Unsupported(
                f'a Strand slot cannot hold column "{column.name}" of type {column.type}',
                hint="send it through a block ring, which carries Arrow batches",
            )
        fields.append(StrandField(column.name, found, column.nullable))
    return tuple(fields)


def _first_types() -> list[FieldType]:
    """Return the types to which types of other systems are converted, one for each."""
    return [facts for facts in FIELD_TYPES.values() if facts.kind not in _SECOND_KINDS]


def _core_type(facts: FieldType) -> str:
    """Return the `sennit_core` type of a field type, as text."""
    element = ELEMENTS[facts.code].capitalize().replace("Uint", "UInt")
    if facts.kind == "array":
        return f"List({element})"
    return _CORE_TYPES.get(facts.kind, element)


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
        kind = pa.list_(kind.value_type)
    return {arrow_type(known.name): known.name for known in _first_types()}.get(kind)


def _may_be(kind: pa.DataType, named: str) -> bool:
    """Whether a column of this Arrow type can be the field type in its metadata."""
    plain = _type_from_arrow(kind)
    if named == "utf8_ref":
        return plain in ("utf8_ref", "u32")
    return plain == ("utf8" if named == "json" else named)
