"""Rows made comparable across engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

Row = tuple[Any, ...]


def plain(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows with numbers that compare across engines: decimals as floats, NaN as a word."""
    for row in rows:
        yield tuple(_plain(value) for value in row)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return "nan" if value != value else round(value, 9) + 0.0
    return value
