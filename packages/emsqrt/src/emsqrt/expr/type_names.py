"""Parse type names in casts, typed constants and schemas of documents.

Names of other languages are accepted too (`i64`, `bigint`, `string`). Output, and a plan's JSON,
use the engine's own names.
"""

from __future__ import annotations

from sennit_core.schema import DataType
from sennit_core.type_names import OTHER_NAMES

TYPE_NAMES = (
    *("Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
    *("Float32", "Float64", "Decimal", "Utf8", "Binary", "Date", "Timestamp", "Time", "Duration"),
)
_KNOWN = {**OTHER_NAMES, **{name.lower(): name for name in TYPE_NAMES}}


def parse_type(text: str) -> DataType:
    """Return the type of a name: its own name in any case, or an alias.

    A Timestamp without a unit counts microseconds.

    Raises:
        UsageError: there is no such type; the hint names the nearest.
    """
    head, bracket, rest = text.strip().partition("(")
    known = _KNOWN.get(head.strip().lower(), head)
    if known == "Timestamp" and not bracket:
        bracket, rest = "(", "us)"
    return DataType.parse(known + bracket + rest)
