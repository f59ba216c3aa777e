"""Dates and timestamps as text, including years that Arrow's own calendar cannot format."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
_DAY_SECONDS = 86_400
STEPS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Ticks per second of each unit."""
_ARROW_DAYS = 11_000_000
"""Arrow counts years in 16 bits, so it is right up to this many days from 1970."""


def exceeds_arrow_years(column: Any) -> bool:
    """Return whether a date or timestamp is in a year that Arrow cannot represent."""
    ends = pc.min_max(column)
    return any(end.is_valid and abs(end.value) > _far_ticks(column) for end in ends.values())


def datetime_texts(column: Any) -> Any:
    """Return dates or timestamps as ISO 8601 text, with as many digits as the year needs."""
    text = column.cast(pa.string())
    if not exceeds_arrow_years(column):
        return text
    ticks = column.cast(pa.int32() if pa.types.is_date(column.type) else pa.int64())
    numbers = ticks.cast(pa.int64()).fill_null(0).to_numpy()
    limit = _far_ticks(column)
    far = pa.array((numbers > limit) | (numbers < -limit))
    return pc.replace_with_mask(text, far, _far_texts(column.filter(far)))


def _far_ticks(column: Any) -> int:
    return _ARROW_DAYS * _day_ticks(column)


def _day_ticks(column: Any) -> int:
    return 1 if pa.types.is_date(column.type) else _DAY_SECONDS * STEPS[column.type.unit]


def _far_texts(column: Any) -> Any:
    """Return `datetime_texts` of values without a NULL, in Arrow's calendar or not."""
    if pa.types.is_date(column.type):
        days = column.cast(pa.int32()).to_numpy().astype(np.int64)
        return pa.array(_dates(days))
    ticks = column.cast(pa.int64()).to_numpy()
    days = ticks // _day_ticks(column)
    clock = pa.array(ticks - days * _day_ticks(column)).cast(column.type).cast(pa.string())
    behind = len("1970-01-01")
    return pa.array(
        [date + text[behind:] for date, text in zip(_dates(days), clock.to_pylist(), strict=True)]
    )


def _dates(days: Integers) -> list[str]:
    civil = zip(*(part.tolist() for part in to_civil(days)), strict=True)
    return [f"{year:0{4 + (year < 0)}d}-{month:02d}-{day:02d}" for year, month, day in civil]


def to_civil(days: Integers) -> tuple[Integers, Integers, Integers]:
    """Return year, month and day of days since 1970-01-01 (proleptic Gregorian).

    By Howard Hinnant's "chrono-compatible low-level date algorithms".
    """
    shifted = days + 719_468
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted_month + 2) // 5 + 1
    month = np.where(shifted_month < 10, shifted_month + 3, shifted_month - 9)
    return year_of_era + era * 400 + (month <= 2), month, day
