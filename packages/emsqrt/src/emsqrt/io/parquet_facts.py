"""Statistics of a row group's values from the Parquet footer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeAlias

from emsqrt.io.pruning import ColumnFacts, Condition

UNREADABLE_BOUND = (UnicodeDecodeError, ValueError, OverflowError, NotImplementedError)
"""Errors of reading a bound that was truncated in a character, or is beyond Python's dates."""

Span: TypeAlias = tuple[int, int]
"""The least and the largest of some integers."""
_INTEGERS = ("INT32", "INT64")


def stored_spans(metadata: Any, groups: Iterable[int], columns: Collection[str]) -> dict[str, Span]:
    """Return the least and the largest stored integer of each column.

    Args:
        metadata: a `pyarrow.parquet.FileMetaData`.
        groups: the row groups to include; columns without statistics in any of them are left out.
        columns: names of top-level columns.
    """
    spans: dict[str, Span] = {}
    unknown: set[str] = set()
    for index in groups:
        group = metadata.row_group(index)
        for at in range(group.num_columns):
            chunk = group.column(at)
            name = chunk.path_in_schema
            if name not in columns or name in unknown or chunk.physical_type not in _INTEGERS:
                continue
            found = chunk.statistics
            if found is not None and found.has_min_max:
                least, most = spans.get(name, (found.min_raw, found.max_raw))
                spans[name] = min(least, found.min_raw), max(most, found.max_raw)
            else:
                unknown.add(name)
    return {name: span for name, span in spans.items() if name not in unknown}


def joined_spans(parts: Sequence[dict[str, Span]]) -> dict[str, Span]:
    """Return the spans of several files, for columns that have a span in every file."""
    common = set.intersection(*map(set, parts)) if parts else set()
    return {
        name: (min(part[name][0] for part in parts), max(part[name][1] for part in parts))
        for name in sorted(common)
    }


def group_facts(group: Any, conditions: Sequence[Condition]) -> dict[str, ColumnFacts]:
    """Return the statistics of a row group for the columns of conditions.

    Args:
        group: its `pyarrow.parquet.RowGroupMetaData`.
        conditions: the conditions.
    """
    wanted = {condition.column for condition in conditions}
    facts: dict[str, ColumnFacts] = {}
    for index in range(group.num_columns if wanted else 0):
        chunk = group.column(index)
        if chunk.path_in_schema in wanted and chunk.is_stats_set:
            facts[chunk.path_in_schema] = _facts_of(chunk.statistics, group.num_rows)
    return facts


def _facts_of(statistics: Any, row_count: int) -> ColumnFacts:
    nulls = statistics.null_count if statistics.has_null_count else None
    low = high = None
    if statistics.has_min_max:
        try:
            low, high = statistics.min, statistics.max
        except UNREADABLE_BOUND:
            low = high = None
    return ColumnFacts(low, high, nulls, row_count)
