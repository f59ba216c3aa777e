"""Names of the types in SQL, Rust, Python and other engines, for suggestions in errors."""

from __future__ import annotations

__all__ = ["OTHER_NAMES"]

OTHER_NAMES = {
    **{f"i{bits}": f"Int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"UInt{bits}" for bits in (8, 16, 32, 64)},
    "f32": "Float32", "f64": "Float64", "bytes": "Binary", "blob": "Binary", "boolean": "Bool",
    "str": "Utf8", "string": "Utf8", "text": "Utf8", "varchar": "Utf8",
    "tinyint": "Int8", "smallint": "Int16", "int": "Int32", "integer": "Int32", "bigint": "Int64",
    "real": "Float32", "double": "Float64",
}  # fmt: skip
"""Keys are lower case. `int8` is left out: it means 8 bits in some engines, 8 bytes in others."""
