"""What a Parquet footer says of the values in a row group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emsqrt.io.pruning import ColumnFacts, Condition

UNTOLD = (UnicodeDecodeError, ValueError, OverflowError, NotImplementedError)
"""What a bound raises that was cut within a character, or is beyond Python's dates."""


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
