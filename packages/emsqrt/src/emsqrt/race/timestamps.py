"""Normalize dates and timestamps in text, which engines spell in several ways.

`2024-01-31T05:06:07Z`, `2024-01-31 05:06:07.000` and `2024-01-31 07:06:07+02` are the same time. An
engine that guesses types parses such text as a timestamp and writes it in its own spelling, so
answers are compared by value. Text without a zone counts as UTC, and a date as its first second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_TIMESTAMP = (
    r"^(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<clock>\d\d:\d\d)(?P<seconds>:\d\d)?(?:\.(?P<fraction>\d+))?"
    r" ?(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?)?$"
)
_FORMAT = "%Y-%m-%d %H:%M:%S"


def normalize_timestamps(column: pa.Array) -> pa.Array:
    """Return text with dates and timestamps as `2024-01-31 05:06:07.5`, in UTC.

    Other texts are unchanged. Normalized texts sort chronologically.

    Args:
        column: text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.extract_regex(column, _TIMESTAMP)
    if found.null_count == len(found):
        return column
    day, clock, seconds, fraction, zone = (each.cast(pa.string()) for each in found.flatten())
    clock = pc.if_else(pc.equal(clock, ""), "00:00", clock)
    seconds = pc.if_else(pc.equal(seconds, ""), ":00", seconds)
    text = pc.binary_join_element_wise(day, pc.binary_join_element_wise(clock, seconds, ""), " ")
    local = pc.strptime(text, format=_FORMAT, unit="s", error_is_null=True)
    instant = pc.subtract(local.cast(pa.int64()), _offset_seconds(zone)).cast(pa.timestamp("s"))
    fraction = pc.utf8_rtrim(fraction, "0")
    point = pc.if_else(pc.equal(fraction, ""), "", ".")
    spelled = pc.binary_join_element_wise(pc.strftime(instant, _FORMAT), point, fraction, "")
    return pc.coalesce(spelled.cast(column.type), column)


def _offset_seconds(zone: pa.Array) -> pa.Array:
    """Return the offset from UTC in seconds of zones such as `+02`, `-0330` and `+05:45`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    digits = pc.replace_substring_regex(zone, "[^0-9]", "")
    hours, minutes = (
        pc.utf8_slice_codeunits(pc.utf8_rpad(digits, 4, "0"), start, start + 2).cast(pa.int64())
        for start in (0, 2)
    )
    size = pc.add(pc.multiply(hours, 3600), pc.multiply(minutes, 60))
    return pc.if_else(pc.starts_with(zone, "-"), pc.negate(size), size)
