"""What executors need to leave out shards of a query: bounds and partitions of the columns that it names.

Only these columns are sent, and only for datasets with enough shards: for ten thousand shards, a column is
about as long as their paths.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Any

from lake.catalog.file_schemas import column_ids, file_schemas_of, with_own_names
from lake.catalog.layouts import described, field_of_key
from sennit_core.records import ShardInfo, SnapshotInfo
from sennit_core.schema import DataType

__all__ = ["FLOAT_TYPES", "PRUNED_MIN", "ShardStatistics", "unmeasured_shards"]

FLOAT_TYPES = ("Float32", "Float64")

PRUNED_MIN = 8
"""The fewest shards of a dataset that are worth a choice: fewer are opened in about the same time."""
_BOUNDS_KEPT = 200_000
"""Bounds of shards that are kept, at about 300 bytes each."""
_FILTERS = ("where", "join", "merge")
_NAN = "nan"


class ShardStatistics:
    """The bounds of shards by column, for the snapshots that were queried last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, dict[str, dict[str, Any]]] = OrderedDict()

    def of(
        self,
        snapshot: SnapshotInfo,
        text: str,
        *,
        is_filter: bool = False,
        part: Hashable = None,
    ) -> dict[str, Any]:
        """Return the members of a dataset in an executor request, for pruning.

        Args:
            snapshot: Its shards.
            text: The statement, in lower case; a column of another name is not in its filters.
            is_filter: Whether the text is a condition.
            part: Identifies its shards, if they are not those of the snapshot: their statistics are
                always returned.
        """
        shards = snapshot.shards
        has_filter = is_filter or any(word in text for word in _FILTERS)
        if part is None and (len(shards) < PRUNED_MIN or not has_filter):
            return {}
        named = [each for each in snapshot.schema.names if each.casefold() in text]
        with self._lock:
            kept = self._kept.setdefault((snapshot.id, part), {})
            self._kept.move_to_end((snapshot.id, part))
            while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > _BOUNDS_KEPT:
                self._kept.popitem(last=False)
        missing = [name for name in named if name not in kept]
        if missing:
            own = with_own_names(snapshot).shards
            found = {name: _column(snapshot, own, name) for name in missing}
            with self._lock:
                kept |= found
        if not named and part is None:
            return {}
        columns = {name: kept[name] for name in named}
        return {"statistics": {"rows": [shard.rows for shard in shards], "columns": columns}}


def unmeasured_shards(snapshot: SnapshotInfo) -> list[list[int]]:
    """Return the numbers of the shards that lack statistics of a column, each as a run of its own.

    An earlier version of Sennit may have written them; each shard of today has all that there are.
    """
    measured = [
        {each.name: each.type.name in FLOAT_TYPES for each in file.schema if _is_flat(each.type)}
        for file in file_schemas_of(snapshot)
    ]
    return [
        [number]
        for number, shard in enumerate(snapshot.shards)
        if shard.rows
        and any(
            "nulls" not in (found := shard.stats.get(name, {}))
            or (is_float and "nans" not in found)
            for name, is_float in measured[shard.file_schema].items()
        )
    ]


def _is_flat(kind: DataType) -> bool:
    return kind.item is None and not kind.fields


def _size(columns: dict[str, dict[str, Any]]) -> int:
    return sum(len(column["nulls"]) for column in columns.values())


def _column(snapshot: SnapshotInfo, shards: Sequence[ShardInfo], name: str) -> dict[str, Any]:
    """Return the bounds of a column as text, its NULLs, and its buckets; None for what is unknown."""
    index = snapshot.schema.names.index(name)
    column = column_ids(snapshot)[index]
    kinds = [
        dict(zip(each.columns, each.schema.fields, strict=True)).get(column)
        for each in file_schemas_of(snapshot)
    ]
    # A file that was written before the column became one of floats has no NaN.
    floats = [kind is not None and kind.type.name in FLOAT_TYPES for kind in kinds]
    stats = [(shard.stats.get(name, {}), floats[shard.file_schema]) for shard in shards]
    found: dict[str, Any] = {
        "min": [_text(each.get("min")) for each, _ in stats],
        # NaN is greater than all numbers, and Parquet's bounds leave it out.
        "max": [
            _NAN if is_float and each.get("nans", 1) else _text(each.get("max"))
            for each, is_float in stats
        ],
        "nulls": [each.get("nulls") for each, _ in stats],
    }
    return found | _partitions(snapshot, column)


def _partitions(snapshot: SnapshotInfo, column: int) -> dict[str, Any]:
    """Return how the column is partitioned, and each shard's bucket of its newest bucket field."""
    fields = [each for each in snapshot.partitioning if each.column == column]
    keys = {key for shard in snapshot.shards for key in shard.partition}
    used = [field for field in map(field_of_key, sorted(keys)) if field.column == column]
    name = snapshot.schema.names[column_ids(snapshot).index(column)]
    each_once = dict.fromkeys((*fields, *used))
    found: dict[str, Any] = {"partitions": [described(field, name) for field in each_once]}
    bucketed = [each for each in (*fields, *used) if each.transform == "bucket"]
    if bucketed:
        field = bucketed[0]
        kinds = [
            dict(zip(each.columns, each.schema.fields, strict=True)).get(column)
            for each in file_schemas_of(snapshot)
        ]
        now = dict(zip(column_ids(snapshot), snapshot.schema.fields, strict=True))[column]
        # The hash of a value depends on its type, which may have changed since.
        same = [each is not None and each.type == now.type for each in kinds]
        found["bucketCount"] = field.buckets
        found["buckets"] = [
            shard.partition.get(field.key) if same[shard.file_schema] else None
            for shard in snapshot.shards
        ]
        found["bucketKnown"] = [
            # Of an encrypted dataset it is a text, the hash of the bucket.
            field.key in shard.partition
            and not isinstance(shard.partition[field.key], str)
            and same[shard.file_schema]
            for shard in snapshot.shards
        ]
    return found


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
