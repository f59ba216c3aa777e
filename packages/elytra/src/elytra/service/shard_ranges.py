"""Whether the shards of a snapshot share values of a column, by the bounds in their manifests.

If they do not, all rows of a window's partition are in one shard, so the window runs at the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from elytra.service.shard_pruning import column_facts
from elytra.service.work import Shard
from elytra.shard_joins import KeyRanges
from sennit_core.schema import Schema

__all__ = ["key_ranges"]


def key_ranges(shards: Sequence[Shard], schema: Schema, column: str) -> KeyRanges | None:
    """Return how the values of a column are spread over shards; None if two may share one.

    Args:
        shards: Of one snapshot, in order.
        schema: Its columns.
        column: One of these.
    """
    kind = schema.field(column).type
    # Bounds say nothing of NaN, and columns of a file may have other types than the dataset's.
    if kind.is_float or any(shard.columns is not None for shard in shards):
        return None
    ranges, holds_nulls = [], []
    for shard in shards:
        facts = column_facts(shard.info, column, kind)
        if facts.null_count is None:
            return None
        holds_nulls.append(facts.null_count > 0)
        if facts.null_count == facts.row_count:
            continue
        if facts.low is None or facts.high is None:
            return None
        ranges.append((facts.low, facts.high))
    ordered = sorted(ranges)
    if any(one[1] >= other[0] for one, other in pairwise(ordered)) or sum(holds_nulls) > 1:
        return None
    # NULL is the last value in the order of a window's rows.
    is_ascending = ranges == ordered and not any(holds_nulls[:-1])
    return "ascending" if is_ascending else "disjoint"
