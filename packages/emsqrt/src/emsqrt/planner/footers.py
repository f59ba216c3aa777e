"""Column statistics from Parquet footers: exact rows, NULLs and extremes, estimates of the rest.

The header of a dictionary page contains the number of its values; those of a few row groups
together lead to the number for the column. A dictionary that was abandoned halfway is only a
lower bound; the estimate is then the mean of that and of the rows for which the error is the same
either way, as in GEE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from emsqrt.io.file_facts import known_fact
from emsqrt.io.parquet_facts import UNREADABLE_BOUND
from emsqrt.io.parquet_footer import read_footer
from emsqrt.io.parquet_pages import dictionary_values
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.planner.distinct import guess_from_groups
from emsqrt.planner.statistics import (
    HISTOGRAM_BOUNDS,
    ColumnStats,
    SourceStats,
    equal_parts,
    typical_bytes,
)
from sennit_core.schema import DataType, Schema

GROUPS_MAX = 8
"""Row groups whose dictionaries are read, spread over the files."""
_SPREADS_MAX, _SPREADS_MIN = 8192, 16
"""Row groups whose extremes are kept: of all columns together, and of one at least."""
# Indexes may be this many times as large as computed before a chunk counts as having plain values.
_SLACK = 1.5
_STATS_BYTES, _BOUND_BYTES = 1 << 10, 128
"""Memory of a column's statistics, and of each bound of its histogram."""
_PAGES_BYTES = 16 << 10
"""Size of a page apart from the indexes into a dictionary: levels, headers."""


class _Dictionary(NamedTuple):
    """The dictionary of a column chunk: its values, their bytes, and the chunk's sizes."""

    value_count: int
    size_bytes: int
    rows: int
    """Values of the row group that are not NULL."""
    plain_bytes: int
    """Bytes of the column in it."""

    @property
    def was_abandoned(self) -> bool:
        """Whether some values are stored outside the dictionary, by the pages' sizes."""
        indices = self.rows * max(1, self.value_count.bit_length()) / 8
        return self.plain_bytes > self.size_bytes + _SLACK * indices + _PAGES_BYTES


class _Column:
    """The statistics of a column, over the row groups of all files.

    Args:
        spreads_max: the most row groups whose extremes are kept.
    """

    def __init__(self, spreads_max: int) -> None:
        self.plain_bytes = self.nulls = 0
        self.has_all_extremes = True
        """Whether every row group with values has extremes."""
        self.low = self.high = None
        self.dictionaries: list[_Dictionary] = []
        self.spreads: list[tuple[Any, Any, int]] = []
        """(least, largest, rows that are not NULL) of row groups spaced evenly over the files."""
        self.known = 0
        """The number of row groups with extremes."""
        # Every `_step`-th row group is in `spreads`; when there are too many, every second one is
        # dropped.
        self._step, self._spreads_max = 1, spreads_max

    def add(self, facts: Any, rows: int, dictionary: tuple[int, int] | None) -> None:
        """Add a column chunk: its entry in the footer, its rows, its dictionary if one was read."""
        stats = facts.statistics
        nulls = 0 if stats is None or not stats.has_null_count else int(stats.null_count or 0)
        self.plain_bytes += facts.total_uncompressed_size
        self.nulls += nulls
        if dictionary is not None:
            size = facts.total_uncompressed_size
            self.dictionaries.append(_Dictionary(*dictionary, rows - nulls, size))
        # The leaves of a nested column have values of several types, which do not compare.
        spread = None if "." in facts.path_in_schema else _spread(stats)
        if spread is None:
            self.has_all_extremes = self.has_all_extremes and nulls == rows
            return
        self.low = spread[0] if self.known == 0 else min(self.low, spread[0])
        self.high = spread[1] if self.known == 0 else max(self.high, spread[1])
        if self.known % self._step == 0:
            self.spreads.append((*spread, rows - nulls))
        self.known += 1
        if len(self.spreads) > self._spreads_max:
            self.spreads = self.spreads[::2]
            self._step *= 2


def _spread(stats: Any) -> tuple[Any, Any] | None:
    if stats is None or not stats.has_min_max:
        return None
    try:
        return stats.min, stats.max
    except UNREADABLE_BOUND:
        return None


def measure_parquet(paths: Sequence[Path], size: int, schema: Schema) -> SourceStats:
    """Return the statistics of Parquet files from their footers.

    Args:
        paths: the files.
        size: their total size.
        schema: the columns to describe.
    """
    sources = [open_source(path) for path in paths]
    return known_fact(
        sources, ("stats", schema), lambda: _measured(sources, size, schema), _bytes_of
    )


def _bytes_of(stats: SourceStats) -> int:
    return sum(_STATS_BYTES + _BOUND_BYTES * len(each.histogram) for each in stats.columns.values())


def _measured(sources: Sequence[ByteSource], size: int, schema: Schema) -> SourceStats:
    footers = [read_footer(source) for source in sources]
    rows = sum(footer.row_count for footer in footers)
    total = sum(len(footer.group_rows) for footer in footers)
    # At equal distances, so that a table sorted by the column is seen from end to end.
    looked_at = {total * at // GROUPS_MAX for at in range(GROUPS_MAX)}
    spreads_max = max(_SPREADS_MIN, _SPREADS_MAX // max(1, len(schema)))
    columns = {name: _Column(spreads_max) for name in schema.names}
    number = 0
    for source, footer in zip(sources, footers, strict=True):
        # Footers are read in pieces of row groups (design/0086): one piece is in memory at a time.
        with source.open_ranges() as read_at:
            for piece in footer.pieces:
                metadata = footer.metadata(piece)
                for index in range(piece.group_count):
                    group = metadata.row_group(index)
                    for place in range(group.num_columns):
                        facts = group.column(place)
                        column = columns.get(facts.path_in_schema.partition(".")[0])
                        if column is not None:
                            looked = number in looked_at
                            found = dictionary_values(read_at, facts) if looked else None
                            column.add(facts, group.num_rows, found)
                    number += 1
    stats = {each.name: _column(columns[each.name], each.type, rows) for each in schema}
    return SourceStats(float(rows), size, stats, exact=True)


def _column(column: _Column, kind: DataType, rows: int) -> ColumnStats:
    size = max(typical_bytes(kind), column.plain_bytes / max(1, rows))
    share = column.nulls / max(1, rows)
    present = float(rows - column.nulls)
    if kind.name in ("List", "Struct"):
        return ColumnStats(size, share)
    distinct = _distinct(column.dictionaries, present)
    if not column.known or not column.has_all_extremes:
        return ColumnStats(size, share, distinct)
    low: Any = column.low
    high: Any = column.high
    if distinct is not None:
        apart = _apart([(least, most) for least, most, _ in column.spreads])
        looked = len(column.spreads)
        if looked < column.known:  # extrapolate to the row groups that were skipped
            apart = 1 + (apart - 1) * (column.known - 1) / (looked - 1)
        # The dictionaries estimate the values of a group's range; `apart` says how many such ranges
        # there are.
        distinct = min(present, distinct * apart)
    # Not more values than there are integers between the extremes.
    if kind.is_integer:
        distinct = min(present if distinct is None else distinct, present, float(high - low + 1))
    if low == high:
        distinct = 1.0
    return ColumnStats(size, share, distinct, low, high, _histogram(column.spreads))


def _distinct(dictionaries: Sequence[_Dictionary], present: float) -> float | None:
    """Estimate the distinct values of a column from the dictionaries of some row groups."""
    if not dictionaries:
        return None
    if any(each.was_abandoned for each in dictionaries):
        # The least is the dictionary, the most is every row: the geometric mean has the same factor
        # of error on both sides.
        return math.sqrt(max(each.value_count for each in dictionaries) * present)
    groups = [(float(each.rows), float(each.value_count)) for each in dictionaries]
    return guess_from_groups(groups, present)


def _apart(spreads: Sequence[tuple[Any, Any]]) -> float:
    """Return the union of row groups' ranges over the mean range: 1 when all are equal."""
    steps = [(_number(low), _number(high)) for low, high in spreads]
    if any(low is None or high is None for low, high in steps):
        return 1.0
    bounds = sorted((float(low or 0), float(high or 0)) for low, high in steps)
    covered, end = 0.0, bounds[0][0]
    for low, high in bounds:
        covered += max(0.0, high - max(low, end))
        end = max(end, high)
    mean = sum(high - low for low, high in bounds) / len(bounds)
    # Each group has one value: count these.
    if mean == 0:
        return float(len({low for low, _ in bounds}))
    return max(1.0, covered / mean)


def _histogram(groups: Sequence[tuple[Any, Any, int]]) -> tuple[Any, ...]:
    """Return bounds of equal shares, assuming evenly spaced values in each row group's range.

    If all groups have about the same range, this is no better than a straight line.
    """
    total = sum(rows for *_, rows in groups)
    points = []
    for low, high, rows in groups:
        count = max(1, round(4 * HISTOGRAM_BOUNDS * rows / max(1, total)))
        inner = [_between(low, high, (at + 0.5) / count) for at in range(count)]
        if any(value is None for value in inner):
            return ()
        points += inner
    least, most = min(low for low, *_ in groups), max(high for _, high, _ in groups)
    return equal_parts([least, *sorted(points), most])


def _number(value: Any) -> float | None:
    match value:
        case bool() | str() | bytes():
            return None
        case datetime():
            return value.timestamp()
        case date():
            return float(value.toordinal())
        case int() | float() | Decimal():
            return float(value)
    return None


def _between(low: Any, high: Any, share: float) -> Any:
    match low:
        case bool():
            return None
        case int():
            return low + round((high - low) * share)
        case float():
            return low + (high - low) * share
        case Decimal():
            return low + (high - low) * Decimal(share)
        case datetime() | date():
            return low + timedelta(seconds=(high - low).total_seconds() * share)
    return None
