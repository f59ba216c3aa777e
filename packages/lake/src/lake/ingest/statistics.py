"""Read the null count, minimum and maximum of a shard's columns from the Parquet footer."""

from __future__ import annotations

import datetime
import decimal
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

__all__ = ["column_stats"]

_TEXT_MAX = 128
# JSON readers in JavaScript parse numbers as doubles, which are exact below this.
_EXACT_INTEGER = 2**53


def column_stats(path: Path) -> dict[str, Any]:
    """Return `nulls`, `min` and `max` of each column; the last two only if they are exact.

    Values are JSON: integers beyond 2^53 and decimals are strings, dates and times ISO 8601. Nested
    columns have no statistics.
    """
    with pq.ParquetFile(path) as file:
        groups = file.metadata
        flat = [
            (index, groups.schema.column(index).path)
            for index in range(groups.num_columns)
            if groups.schema.column(index).max_repetition_level == 0
            and "." not in groups.schema.column(index).path
        ]
        found = {}
        for index, name in flat:
            columns = [
                groups.row_group(group).column(index).statistics
                for group in range(groups.num_row_groups)
            ]
            found[name] = _merged(columns)
    return found


def _merged(columns: list[Any]) -> dict[str, Any]:
    # A bound over some of the row groups would be wrong for the whole, so all or nothing.
    if not columns or any(column is None or not column.has_null_count for column in columns):
        return {}
    merged: dict[str, Any] = {"nulls": sum(column.null_count for column in columns)}
    # Row groups with NULLs alone have no bounds, and do not need any.
    valued = [column for column in columns if column.num_values]
    if valued and all(column.has_min_max for column in valued):
        low, high = _bounds(valued)
        if low is not None and high is not None:
            merged |= {"min": low, "max": high}
    return merged


def _bounds(valued: list[Any]) -> tuple[Any, Any]:
    try:
        low, high = min(each.min for each in valued), max(each.max for each in valued)
    except (ValueError, OverflowError):  # nanoseconds, or a year outside of Python's range
        return None, None
    return _plain(low), _plain(high)


def _plain(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return value if abs(value) < _EXACT_INTEGER else str(value)
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value if len(value) <= _TEXT_MAX else None
        case decimal.Decimal():
            return str(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case _:
            return None
