"""SQL's type names: the type of a cast, and the name of a column's type in a result."""

from __future__ import annotations

import re
from typing import Any

from emsqrt.sql_plan.errors import refuse
from sennit_core.errors import UsageError
from sennit_core.schema import DataType

TYPES = {
    "BOOLEAN": "Bool", "TINYINT": "Int8", "SMALLINT": "Int16", "INT": "Int32", "BIGINT": "Int64",
    "UTINYINT": "UInt8", "USMALLINT": "UInt16", "UINT": "UInt32", "UBIGINT": "UInt64",
    "FLOAT": "Float32", "DOUBLE": "Float64", "VARCHAR": "Utf8", "TEXT": "Utf8", "CHAR": "Utf8",
    "DATE": "Date", "TIMESTAMP": "Timestamp(us)", "TIMESTAMPNTZ": "Timestamp(us)",
    "TIMESTAMP_S": "Timestamp(s)", "TIMESTAMP_MS": "Timestamp(ms)",
    "TIMESTAMP_NS": "Timestamp(ns)", "TIMESTAMPTZ": "Timestamp(us,UTC)", "VARBINARY": "Binary",
    "BLOB": "Binary", "TIME": "Time",
}  # fmt: skip
_MOMENTS = ("TIMESTAMP", "TIMESTAMPNTZ", "TIMESTAMPTZ")
_UNITS = {"0": "s", "3": "ms", "6": "us", "9": "ns"}
_OURS = {
    name.lower(): name for name in ("UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64")
} | {"utf8": "Utf8", "binary": "Binary", "bool": "Bool"}
"""The engine's type names that SQL does not have; except Int8, which in SQL has 8 bytes."""
_SHOWN = {
    "Bool": "boolean", "Int8": "tinyint", "Int16": "smallint", "Int32": "integer",
    "Int64": "bigint", "UInt8": "utinyint", "UInt16": "usmallint", "UInt32": "uinteger",
    "UInt64": "ubigint", "Float32": "float", "Float64": "double", "Utf8": "varchar",
    "Binary": "blob", "Date": "date", "Time": "time", "Duration": "interval",
}  # fmt: skip


def sql_type(node: Any, text: str) -> DataType:
    """Return the type that a cast names.

    Args:
        node: sqlglot's data type.
        text: the statement, for positions in errors.

    Raises:
        Unsupported: a type, or a parameter of one, that the engine does not have.
    """
    name = str(node.this.name)
    parameters = [each.this.name for each in node.expressions] if name != "STRUCT" else []
    if name == "DECIMAL":
        digits = [int(each) for each in parameters] or [18, 3]
        precision, scale = (*digits, 0)[:2]
        return DataType("Decimal", precision=precision, scale=scale)
    if name in _MOMENTS and parameters:
        return _moment(node, text, name, parameters)
    if name == "USERDEFINED" and str(node.args.get("kind")).lower() in _OURS:
        return DataType(_OURS[str(node.args["kind"]).lower()])
    if name not in TYPES:
        refuse(node, text, f"the type {node.sql(dialect='duckdb')}")
    return DataType.parse(TYPES[name])


def _moment(node: Any, text: str, name: str, parameters: list[str]) -> DataType:
    """Return a timestamp of a precision, `TIMESTAMP(3)`, or of a unit, `Timestamp(ms,UTC)`."""
    unit, *zone = parameters
    parameters_text = ",".join((_UNITS.get(unit, unit.lower()), *zone))
    if name == "TIMESTAMPTZ" and not zone:
        parameters_text += ",UTC"
    try:
        return DataType.parse(f"Timestamp({parameters_text})")
    except UsageError as error:
        return refuse(node, text, f"TIMESTAMP({', '.join(parameters)})", error.hint)


def sql_type_name(kind: DataType) -> str:
    """Return SQL's name of a type, in lower case, such as `decimal(9,2)` and `varchar[]`."""
    if kind.name == "Decimal":
        return f"decimal({kind.precision},{kind.scale})"
    if kind.name == "Timestamp":
        if kind.zone is not None:
            return "timestamp with time zone"
        return "timestamp" if kind.unit == "us" else f"timestamp_{kind.unit}"
    if kind.name == "List" and kind.item is not None:
        return f"{sql_type_name(kind.item)}[]"
    if kind.name == "Struct":
        fields = ", ".join(f"{_quoted(f.name)} {sql_type_name(f.type)}" for f in kind.fields)
        return f"struct({fields})"
    return _SHOWN[kind.name]


def _quoted(name: str) -> str:
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'
