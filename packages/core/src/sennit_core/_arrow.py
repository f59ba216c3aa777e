"""Convert `sennit_core.schema` types to and from Arrow; like `arrow_ipc`, it imports Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sennit_core.errors import Unsupported
from sennit_core.schema import DataType, Field, Schema

__all__ = ["schema_from_arrow", "schema_to_arrow", "type_from_arrow", "type_to_arrow"]

_PLAIN: dict[str, Any] = {
    "Bool": pa.bool_(),
    "Int8": pa.int8(),
    "Int16": pa.int16(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "UInt8": pa.uint8(),
    "UInt16": pa.uint16(),
    "UInt32": pa.uint32(),
    "UInt64": pa.uint64(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "Utf8": pa.string(),
    "Binary": pa.binary(),
    "Date": pa.date32(),
    "Time": pa.time64("us"),
    "Duration": pa.duration("us"),
}
_FROM_PLAIN = {arrow_type: DataType(name) for name, arrow_type in _PLAIN.items()} | {
    pa.large_string(): DataType("Utf8"),
    pa.string_view(): DataType("Utf8"),
    pa.large_binary(): DataType("Binary"),
    pa.binary_view(): DataType("Binary"),
    pa.date64(): DataType("Date"),
    pa.time32("s"): DataType("Time"),
    pa.time32("ms"): DataType("Time"),
    pa.duration("s"): DataType("Duration"),
    pa.duration("ms"): DataType("Duration"),
}


def type_to_arrow(data_type: DataType) -> Any:
    """Return the Arrow type of a `DataType`."""
    if data_type.name == "Decimal":
        return pa.decimal128(data_type.precision, data_type.scale)
    if data_type.name == "Timestamp":
        return pa.timestamp(data_type.unit, tz=data_type.zone)
    if data_type.item is not None:
        return pa.list_(type_to_arrow(data_type.item))
    if data_type.name == "Struct":
        return pa.struct([_field_to_arrow(field) for field in data_type.fields])
    return _PLAIN[data_type.name]


def type_from_arrow(arrow_type: Any) -> DataType:
    """Return the `DataType` of an Arrow type.

    Raises:
        Unsupported: there is none.
    """
    plain = _FROM_PLAIN.get(arrow_type)
    if plain is not None:
        return plain
    found = _encoded(arrow_type) or _parametric(arrow_type)
    if found is None:
        hint = "cast the column to a supported type first"
        raise Unsupported(f"the Arrow type {arrow_type} is not supported", hint=hint)
    return found


def schema_to_arrow(schema: Schema) -> Any:
    """Return the Arrow schema of a `Schema`."""
    return pa.schema([_field_to_arrow(field) for field in schema])


def schema_from_arrow(arrow_schema: Any) -> Schema:
    """Return the `Schema` of an Arrow schema.

    Raises:
        Unsupported: a column's type has no counterpart; the message names the column.
    """
    return Schema(tuple(_field_from_arrow(field) for field in arrow_schema))


def _encoded(arrow_type: Any) -> DataType | None:
    """Return the value type of an encoding: dictionary, run-end encoded, fixed-size binary."""
    if pa.types.is_dictionary(arrow_type) or pa.types.is_run_end_encoded(arrow_type):
        return type_from_arrow(arrow_type.value_type)
    if pa.types.is_fixed_size_binary(arrow_type):
        return DataType("Binary")
    return None


def _parametric(arrow_type: Any) -> DataType | None:
    is_decimal = pa.types.is_decimal(arrow_type)
    if is_decimal and arrow_type.precision <= 38 and 0 <= arrow_type.scale <= arrow_type.precision:
        return DataType("Decimal", precision=arrow_type.precision, scale=arrow_type.scale)
    if pa.types.is_timestamp(arrow_type):
        return DataType("Timestamp", unit=arrow_type.unit, zone=arrow_type.tz)
    if _is_list(arrow_type):
        return DataType("List", item=type_from_arrow(arrow_type.value_type))
    if pa.types.is_struct(arrow_type) and arrow_type.num_fields:
        return DataType("Struct", fields=tuple(_field_from_arrow(field) for field in arrow_type))
    if pa.types.is_map(arrow_type):
        key = Field("key", type_from_arrow(arrow_type.key_type), nullable=False)
        value = Field("value", type_from_arrow(arrow_type.item_type))
        return DataType("List", item=DataType("Struct", fields=(key, value)))
    return None


def _is_list(arrow_type: Any) -> bool:
    types = pa.types
    return bool(
        types.is_list(arrow_type)
        or types.is_large_list(arrow_type)
        or types.is_fixed_size_list(arrow_type)
        or types.is_list_view(arrow_type)
        or types.is_large_list_view(arrow_type)
    )


def _field_to_arrow(field: Field) -> Any:
    return pa.field(field.name, type_to_arrow(field.type), nullable=field.nullable)


def _field_from_arrow(field: Any) -> Field:
    try:
        data_type = type_from_arrow(field.type)
    except Unsupported as error:
        raise Unsupported(f'column "{field.name}": {error}', hint=error.hint) from error
    return Field(field.name, data_type, field.nullable)
