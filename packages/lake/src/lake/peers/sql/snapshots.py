"""Tables of the planner from snapshots: shards with their bounds, and the bucket of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lake.catalog.file_schemas import column_ids, file_schemas_of, with_own_names
from lake.peers.sql.tables import Bounds, BucketKey, Column, Shard, Table
from lake.sql.types import shard_types
from lake.statements.shard_statistics import FLOAT_TYPES
from sennit_core.records import PartitionField, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

__all__ = ["arrived_table", "sharded_table"]

_NAN = "nan"
_VALUE_BYTES = 4
"""A guess: rows arrive compressed, and are not counted before they are read."""


def arrived_table(name: str, schema: Schema, size: int) -> Table:
    """Return a table that the coordinator alone has, of some bytes."""
    columns = tuple(Column(column, kind) for column, kind in shard_types(schema).items())
    rows = max(1, size // (_VALUE_BYTES * max(1, len(columns))))
    return Table(name, columns, (Shard(f"arrived {name}", rows, size, nodes=(0,)),))


def sharded_table(
    name: str,
    snapshot: SnapshotInfo,
    nodes: Mapping[str, Sequence[int]],
    readers: tuple[int, ...] = (),
    sql: str | None = None,
) -> Table:
    """Return a dataset whose shards may be on different nodes.

    Args:
        name: Its name in the query.
        snapshot: Its snapshot.
        nodes: The numbers of the nodes that hold each shard, by its object id.
        readers: As of `Table`.
        sql: The query; bounds of columns whose names do not occur in it are left out. None for all bounds.

    Its partition key is the first `bucket` field whose value is known of every shard, by the hash of the
    column's type of today. Shards that were written before the layout have no bucket, and then there is
    no key.
    """
    field = _key_field(snapshot)
    names = snapshot.schema.names
    text = None if sql is None else sql.casefold()
    used = frozenset(n for n in names if text is None or n.casefold() in text)
    shards = tuple(
        Shard(
            shard.object,
            shard.rows,
            shard.bytes,
            _bounds(snapshot, shard, used),
            None if field is None else shard.partition[field.key],
            tuple(nodes.get(shard.object, ())),
        )
        for shard in with_own_names(snapshot).shards
        if shard.rows  # a dataset of no rows has one such shard, in no bucket
    )
    key = None
    if field is not None:
        column = snapshot.schema.names[column_ids(snapshot).index(field.column)]
        key = BucketKey(column, field.buckets)
    return Table(name, _columns(snapshot), shards, key, readers)


def _columns(snapshot: SnapshotInfo) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for name, kind in shard_types(snapshot.schema).items())


def _key_field(snapshot: SnapshotInfo) -> PartitionField | None:
    ids = column_ids(snapshot)
    now = dict(zip(ids, snapshot.schema.fields, strict=True))
    files = [
        dict(zip(each.columns, each.schema.fields, strict=True))
        for each in file_schemas_of(snapshot)
    ]
    for field in snapshot.partitioning:
        if field.transform != "bucket" or field.column not in now:
            continue
        kind = now[field.column].type
        if all(
            field.key in shard.partition
            and field.column in files[shard.file_schema]
            and files[shard.file_schema][field.column].type == kind
            for shard in snapshot.shards
            if shard.rows
        ):
            return field
    return None


def _bounds(snapshot: SnapshotInfo, shard: ShardInfo, used: frozenset[str]) -> dict[str, Bounds]:
    floats = {each.name for each in snapshot.schema if each.type.name in FLOAT_TYPES}
    found = {}
    for name, stats in shard.stats.items():
        if name not in used:
            continue
        # NaN is greater than all numbers, and Parquet's bounds leave it out.
        has_nan = name in floats and bool(stats.get("nans", 1))
        high = _NAN if has_nan else _text(stats.get("max"))
        found[name] = Bounds(_text(stats.get("min")), high, stats.get("nulls"))
    return found


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
