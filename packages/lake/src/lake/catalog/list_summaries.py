"""Summaries of lists of shards: what all shards of a list have in common, for pruning.

A summary has one description for each schema of the files of a list, as if their shards were one: the sum of
the rows, the least and the greatest value of each column, its NULLs and NaNs, and the partition values that all of
them share. Whatever leaves out a shard by its description leaves out a list by its summary.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from lake.catalog.file_schemas import file_schemas_of
from sennit_core.records import ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

__all__ = ["SUMMARIZED_MIN", "summary_of"]

SUMMARIZED_MIN = 256
"""The fewest shards of a list with a summary. Smaller ones become parts of larger ones soon, and there are few:
each would cost its commit one more file to sync."""

_COMPARED: Mapping[str, Callable[[Any], Any]] = {
    "Boolean": bool,
    "Utf8": str,
    "Date": datetime.date.fromisoformat,
    "Time": datetime.time.fromisoformat,
    "Timestamp": datetime.datetime.fromisoformat,
    "Decimal": Decimal,
}


def summary_of(snapshot: SnapshotInfo, shards: Sequence[ShardInfo]) -> tuple[ShardInfo, ...]:
    """Return the summary of a list.

    Args:
        snapshot: Its columns; its shards do not matter.
        shards: Those of the list.
    """
    schemas = file_schemas_of(snapshot)
    groups: dict[int, list[ShardInfo]] = defaultdict(list)
    for shard in shards:
        groups[shard.file_schema].append(shard)
    return tuple(
        _merged(found, schemas[number].schema, number) for number, found in sorted(groups.items())
    )


def _merged(shards: Sequence[ShardInfo], schema: Schema, number: int) -> ShardInfo:
    stats = {}
    for field in schema.fields:
        found = _column(shards, field.name, _order(field.type.name))
        if found:
            stats[field.name] = found
    first, *others = [dict(shard.partition) for shard in shards]
    partition = {
        key: value
        for key, value in first.items()
        if all(key in each and each[key] == value for each in others)
    }
    return ShardInfo(
        "",
        sum(shard.rows for shard in shards),
        sum(shard.bytes for shard in shards),
        partition,
        stats,
        file_schema=number,
    )


def _order(kind: str) -> Callable[[Any], Any] | None:
    """Return what makes bounds of a type comparable: they are JSON, with large integers as text."""
    if kind.startswith(("Int", "UInt")):
        return int
    if kind.startswith("Float"):
        return float
    return next((of for name, of in _COMPARED.items() if kind.startswith(name)), None)


def _column(
    shards: Iterable[ShardInfo], name: str, order: Callable[[Any], Any] | None
) -> dict[str, Any]:
    """Return the statistics of a column over shards; without what is not known of one of them."""
    stats = [(shard.rows, shard.stats.get(name, {})) for shard in shards]
    if any("nulls" not in found for _, found in stats):
        return {}
    merged: dict[str, Any] = {"nulls": sum(found["nulls"] for _, found in stats)}
    if all("nans" in found for _, found in stats):
        merged["nans"] = sum(found["nans"] for _, found in stats)
    # A shard with NULLs alone has no bounds, and needs none.
    valued = [found for rows, found in stats if found["nulls"] < rows]
    if order is None or not valued or any("min" not in f or "max" not in f for f in valued):
        return merged
    try:
        low = min((found["min"] for found in valued), key=order)
        high = max((found["max"] for found in valued), key=order)
    except (ValueError, TypeError, ArithmeticError):
        return merged
    return merged | {"min": low, "max": high}
