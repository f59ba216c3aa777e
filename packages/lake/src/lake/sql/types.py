"""DuckDB's names of the column types."""

from __future__ import annotations

from sennit_core.schema import DataType, Schema

__all__ = ["column_types", "literal", "quoted", "shard_types"]

_PLAIN = {
    "Bool": "BOOLEAN",
    "Int8": "TINYINT",
    "Int16": "SMALLINT",
    "Int32": "INTEGER",
    "Int64": "BIGINT",
    "UInt8": "UTINYINT",
    "UInt16": "USMALLINT",
    "UInt32": "UINTEGER",
    "UInt64": "UBIGINT",
    "Float32": "FLOAT",
    "Float64": "DOUBLE",
    "Utf8": "VARCHAR",
    "Binary": "BLOB",
    "Date": "DATE",
    "Time": "TIME",
    "Duration": "INTERVAL",
}
_TIMESTAMPS = {"s": "TIMESTAMP_S", "ms": "TIMESTAMP_MS", "us": "TIMESTAMP", "ns": "TIMESTAMP_NS"}
# What DuckDB reads from Parquet, which has no such types.
_IN_SHARDS = {"TIMESTAMP_S": "TIMESTAMP", "TIMESTAMP_MS": "TIMESTAMP", "INTERVAL": "BIGINT"}


def column_types(schema: Schema) -> dict[str, str]:
    """Return the type of each column, as of Arrow data."""
    return {field.name: _name(field.type) for field in schema}


def shard_types(schema: Schema) -> dict[str, str]:
    """Return the type that each column has when it is read from a shard."""
    return {name: _IN_SHARDS.get(kind, kind) for name, kind in column_types(schema).items()}


def literal(text: str) -> str:
    """Return a text as a string constant in SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Return a name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _name(kind: DataType) -> str:
    if kind.item is not None:
        return f"{_name(kind.item)}[]"
    match kind.name:
        case "Decimal":
            return f"DECIMAL({kind.precision},{kind.scale})"
        case "Struct":
            fields = ", ".join(f"{quoted(each.name)} {_name(each.type)}" for each in kind.fields)
            return f"STRUCT({fields})"
        case "Timestamp":
            assert kind.unit is not None, "every Timestamp has a unit"
            if kind.zone is None:
                return _TIMESTAMPS[kind.unit]
            return "TIMESTAMPTZ_NS" if kind.unit == "ns" else "TIMESTAMP WITH TIME ZONE"
        case plain:
            return _PLAIN[plain]
