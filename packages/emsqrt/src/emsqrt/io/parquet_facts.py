"""What a Parquet footer says of the values in a row group."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeAlias

from emsqrt.io.pruning import ColumnFacts, Condition

UNTOLD = (UnicodeDecodeError, ValueError, OverflowError, NotImplementedError)
"""What a bound raises that was cut within a character, or is beyond Python's dates."""

Span: TypeAlias = tuple[int, int]
"""The least and the largest of some integers."""
_INTEGERS = ("INT32", "INT64")


def stored_spans(metadata: Any, groups: Iterable[int], columns: Collection[str]) -> dict[str, Span]:
    """Return between which integers the values of columns lie, as they are stored.

    Args:
        metadata: a `pyarrow.parquet.FileMetaData`.
        groups: the row groups that matter; a column of which one does not tell is left out.
        columns: names of columns at the top.
    """
    spans: dict[str, Span] = {}
    untold: set[str] = set()
    for index in groups:
        group = metadata.row_group(index)
        for at in range(group.num_columns):
            chunk = group.column(at)
            name = chunk.path_in_schema
            if name not in columns or name in untold or chunk.physical_type not in _INTEGERS:
                continue
            found = chunk.statistics
            if found is not None and found.has_min_max:
                least, most = spans.get(name, (found.min_raw, found.max_raw))
                spans[name] = min(least, found.min_raw), max(most, found.max_raw)
            else:
                untold.add(name)
    return {name: span for name, span in spans.items() if name not in untold}


def joined_spans(parts: Sequence[dict[str, Span]]) -> dict[str, Span]:
    """Return the spans of columns of several files, of which all tell them."""
    common = set.intersection(*map(set, parts)) if parts else set()
    return {
        name: (min(part[name][0] for part in parts), max(part[name][1] for part in parts))
        for name in sorted(common)
    }


def group_facts(group: Any, conditions: Sequence[Condition]) -> dict[str, ColumnFacts]:
    """Return the statistics of those columns of a row group that conditions name.

    Args:
        group: its `pyarrow.parquet.RowGroupMetaData`.
        conditions: what they are wanted for.
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
        except UNTOLD:
            low = high = None
    return ColumnFacts(low, high, nulls, row_count)
