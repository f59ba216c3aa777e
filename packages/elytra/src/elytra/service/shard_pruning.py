"""Leave out shards in which no row can pass a plan's filters, by the statistics of their manifests.

A shard that is left out costs no task, no verification and no opened file. The comparison is EM-√'s own
(`emsqrt.io.pruning`), by which it also leaves out blocks of the shards that are read; SQL's is DuckDB's.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from elytra.service.work import Shard
from emsqrt.io.pruning import ColumnFacts, Condition, conditions_of, may_match
from emsqrt.plan import DatasetRef, Filter, Plan, Scan, scans_of, walk
from sennit_core.records import ShardInfo
from sennit_core.schema import DataType, Schema

__all__ = ["column_facts", "conditions_on_scans", "matching_shards"]

_READ: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("Int8", "Int16", "Int32", "Int64"), int),
    **dict.fromkeys(("UInt8", "UInt16", "UInt32", "UInt64"), int),
    **dict.fromkeys(("Float32", "Float64"), float),
    "Bool": bool,
    "Utf8": str,
    "Decimal": Decimal,
    "Date": datetime.date.fromisoformat,
    "Time": datetime.time.fromisoformat,
    "Timestamp": datetime.datetime.fromisoformat,
}
"""How a value of `lake.ingest.statistics` is read, by the column's type."""


def conditions_on_scans(plan: Plan) -> dict[DatasetRef, tuple[Condition, ...]]:
    """Return the conditions that all rows of a source have to satisfy.

    Only of filters just above a scan, and of sources with one scan: rows of others are needed by another
    branch of the plan.
    """
    scans = Counter(scan.source for scan in scans_of(plan) if isinstance(scan.source, DatasetRef))
    found: dict[DatasetRef, tuple[Condition, ...]] = {}
    for node in walk(plan):
        conditions: tuple[Condition, ...] = ()
        below: Plan = node
        while isinstance(below, Filter):
            conditions += conditions_of(below.predicate)
            below = below.input
        if not isinstance(below, Scan) or not isinstance(below.source, DatasetRef):
            continue
        # Each filter of a stack is visited: the uppermost has the most conditions.
        if scans[below.source] == 1 and len(conditions) > len(found.get(below.source, ())):
            found[below.source] = conditions
    return found


def matching_shards(
    shards: Sequence[Shard], schema: Schema, conditions: Sequence[Condition]
) -> tuple[Shard, ...]:
    """Return the shards that may have rows that satisfy all conditions.

    Args:
        shards: Of one snapshot.
        schema: Its columns.
        conditions: Over these columns.
    """
    wanted = {condition.column for condition in conditions}
    fields = [(index, each) for index, each in enumerate(schema) if each.name in wanted]

    def facts(shard: Shard) -> Mapping[str, ColumnFacts]:
        found = {}
        for index, field in fields:
            name: str | None = field.name
            if shard.columns is not None:  # the file has other columns than the dataset
                place = shard.columns.sources[index]
                own = shard.columns.schema.fields[place] if place >= 0 else None
                name = own.name if own is not None and own.type == field.type else None
            if name is not None:
                found[field.name] = column_facts(shard.info, name, field.type)
        return found

    return tuple(shard for shard in shards if may_match(conditions, facts(shard)))


def column_facts(shard: ShardInfo, name: str, kind: DataType) -> ColumnFacts:
    """Return what a shard's manifest knows of one of its columns."""
    stats = shard.stats.get(name, {})
    return ColumnFacts(
        _value(stats.get("min"), kind),
        _value(stats.get("max"), kind),
        stats.get("nulls"),
        shard.rows,
    )


def _value(bound: Any, kind: DataType) -> Any:
    """Return a bound as a value of its column; None for what is unknown."""
    read = _READ.get(kind.name)
    if bound is None or read is None:
        return None
    try:
        return read(bound)
    except (ValueError, ArithmeticError, TypeError):  # written by another version: reads the shard
        return None
