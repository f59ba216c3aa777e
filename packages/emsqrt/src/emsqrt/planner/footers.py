"""What Parquet footers tell of columns: rows, NULLs and extremes exactly, the rest by estimates.

A dictionary's page says in its header how many values it has; those of a few row groups together
tell how many the column has. A dictionary that was given up halfway tells only how many there are at
least; then the mean of that and of the rows is taken whose error is the same either way, as GEE does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from emsqrt.io.parquet_facts import UNTOLD
from emsqrt.io.parquet_pages import dictionary_values
from emsqrt.io.parquet_scan import read_metadata
from emsqrt.io.sources import open_source
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
"""Row groups whose dictionaries are looked at, spread over the files."""
_SLACK = 1.5
_PAGES_BYTES = 16 << 10
"""What pages have beside the indices into a dictionary: levels, heads."""


@dataclass(slots=True)
class _Chunk:
    """A column in one row group: its footer entry, its rows and, if it was read, its dictionary."""

    facts: Any
    rows: int
    dictionary: tuple[int, int] | None = None

    @property
    def given_up(self) -> bool:
        """Whether values lie outside the dictionary, by the size of the pages."""
        assert self.dictionary is not None, "it was read"
        count, size = self.dictionary
        indices = (self.rows - self.nulls) * max(1, count.bit_length()) / 8
        return bool(self.facts.total_uncompressed_size > size + _SLACK * indices + _PAGES_BYTES)

    @property
    def spread(self) -> tuple[Any, Any] | None:
        stats = self.facts.statistics
        if stats is None or not stats.has_min_max:
            return None
        try:
            return stats.min, stats.max
        except UNTOLD:
            return None

    @property
    def nulls(self) -> int:
        stats = self.facts.statistics
        return 0 if stats is None or not stats.has_null_count else int(stats.null_count or 0)


def measure_parquet(paths: Sequence[Path], size: int, schema: Schema) -> SourceStats:
    """Tell the rows and columns of Parquet files by their footers.

    Args:
        paths: the files.
        size: of all of them.
        schema: the wanted columns.
    """
    footers = [read_metadata(path) for path in paths]
    rows = sum(footer.num_rows for footer in footers)
    total = sum(footer.num_row_groups for footer in footers)
    looked_at = {total * at // GROUPS_MAX for at in range(GROUPS_MAX)}
    chunks: dict[str, list[_Chunk]] = {name: [] for name in schema.names}
    number = 0
    for path, footer in zip(paths, footers, strict=True):
        with open_source(path).open_ranges() as read_at:
            for index in range(footer.num_row_groups):
                group = footer.row_group(index)
                for place in range(group.num_columns):
                    facts = group.column(place)
                    name = facts.path_in_schema.partition(".")[0]
                    if name in chunks:
                        chunk = _Chunk(facts, group.num_rows)
                        if number in looked_at:
                            chunk.dictionary = dictionary_values(read_at, facts)
                        chunks[name].append(chunk)
                number += 1
    columns = {each.name: _column(chunks[each.name], each.type, rows) for each in schema}
    return SourceStats(float(rows), size, columns, exact=True)


def _column(chunks: Sequence[_Chunk], kind: DataType, rows: int) -> ColumnStats:
    plain = sum(chunk.facts.total_uncompressed_size for chunk in chunks)
    size = max(typical_bytes(kind), plain / max(1, rows))
    nulls = sum(chunk.nulls for chunk in chunks)
    spreads = [(chunk.spread, chunk) for chunk in chunks]
    known = [(spread, chunk) for spread, chunk in spreads if spread is not None]
    present = float(rows - nulls)
    share = nulls / max(1, rows)
    if kind.name in ("List", "Struct"):
        return ColumnStats(size, share)
    distinct = _distinct([chunk for chunk in chunks if chunk.dictionary is not None], present)
    if not known or len(known) + sum(c.nulls == c.rows for c in chunks) < len(chunks):
        return ColumnStats(size, share, distinct)
    low, high = min(spread[0] for spread, _ in known), max(spread[1] for spread, _ in known)
    if distinct is not None:
        apart = _apart([spread for spread, _ in known])
        distinct = min(present, distinct * apart)
    if kind.is_integer:
        distinct = min(present if distinct is None else distinct, present, float(high - low + 1))
    if low == high:
        distinct = 1.0
    histogram = _histogram([(*spread, chunk.rows - chunk.nulls) for spread, chunk in known])
    return ColumnStats(size, share, distinct, low, high, histogram)


def _distinct(chunks: Sequence[_Chunk], present: float) -> float | None:
    """Estimate the different values of a column from the dictionaries of some chunks."""
    counts = [chunk.dictionary[0] for chunk in chunks if chunk.dictionary is not None]
    if not counts:
        return None
    if any(chunk.given_up for chunk in chunks):
        return math.sqrt(max(counts) * present)
    rows = [float(chunk.rows - chunk.nulls) for chunk in chunks]
    groups = list(zip(rows, map(float, counts), strict=True))
    return guess_from_groups(groups, present)


def _apart(spreads: Sequence[tuple[Any, Any]]) -> float:
    """Return in how many row groups' ranges all values would lie: 1 when each has the same range."""
    steps = [(_number(low), _number(high)) for low, high in spreads]
    if any(low is None or high is None for low, high in steps):
        return 1.0
    bounds = sorted((float(low or 0), float(high or 0)) for low, high in steps)
    covered, end = 0.0, bounds[0][0]
    for low, high in bounds:
        covered += max(0.0, high - max(low, end))
        end = max(end, high)
    mean = sum(high - low for low, high in bounds) / len(bounds)
    if mean == 0:
        return float(len({low for low, _ in bounds}))
    return max(1.0, covered / mean)


def _histogram(groups: Sequence[tuple[Any, Any, int]]) -> tuple[Any, ...]:
    """Return bounds of equal parts when values lie evenly between the extremes of each row group.

    Where all groups have about the same range nothing is gained over a straight line.
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
