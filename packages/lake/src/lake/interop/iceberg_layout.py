"""The layout of a snapshot as partition specs and a sort order of Apache Iceberg.

Files keep the partition values that they were written with, so a table has one spec for each layout that
its files have (iceberg.apache.org/spec, "Partition Evolution"), and the newest is its default.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lake.catalog.file_schemas import column_ids, file_schemas_of
from lake.catalog.layouts import field_of_key
from sennit_core.records import PartitionField, ShardInfo, SnapshotInfo
from sennit_core.schema import DataType

__all__ = ["PartitionSpec", "Specs", "sort_orders"]

_FIRST_ID = 1000  # the specification's, for fields of partitions
_DATE = {"type": "int", "logicalType": "date"}
_IDENTITY: dict[str, Any] = {
    "Bool": "boolean", "Int8": "int", "Int16": "int", "Int32": "int", "UInt8": "int",
    "UInt16": "int", "UInt32": "long", "Int64": "long", "Utf8": "string", "Date": _DATE,
}  # fmt: skip
"""Types in Avro. Decimals, which are numbers of bytes there, are left out of specs: a spec with fewer fields
says less, and nothing wrong."""
_EPOCH = datetime.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class PartitionSpec:
    """A partition spec: its number, and its fields as (name, id, field, type in Avro)."""

    id: int
    fields: tuple[tuple[str, int, PartitionField, Any], ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the fields."""
        return [
            {
                "name": name,
                "field-id": id_,
                "source-id": each.column,
                "transform": f"bucket[{each.buckets}]" if each.buckets else each.transform,
            }
            for name, id_, each, _ in self.fields
        ]

    def record(self) -> dict[str, Any]:
        """Return the type of the partition of a file, in Avro."""
        fields = [
            {"name": name, "type": ["null", kind], "default": None, "field-id": id_}
            for name, id_, _, kind in self.fields
        ]
        return {"type": "record", "name": "r102", "fields": fields}

    def values(self, shard: ShardInfo) -> dict[str, Any]:
        """Return the partition of a shard."""
        return {
            name: _value(shard.partition[each.key], kind) for name, _, each, kind in self.fields
        }


@dataclass
class Specs:
    """The specs of a snapshot's shards."""

    snapshot: SnapshotInfo
    # By the set of keys: a manifest has a shard's keys in the order of JSON.
    specs: dict[frozenset[str], PartitionSpec] = field(default_factory=dict)
    _ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own = column_ids(self.snapshot)
        self._fields = dict(zip(own, self.snapshot.schema.fields, strict=True))
        self._written = [
            {id_: each.type for id_, each in zip(file.columns, file.schema, strict=True)}
            for file in file_schemas_of(self.snapshot)
        ]
        now = {column: each.type for column, each in self._fields.items()}
        keys = [each.key for each in self.snapshot.partitioning]
        self.default = self._spec(tuple(key for key in keys if self._is_valid(key, now)))

    def shards(self) -> list[tuple[PartitionSpec, list[ShardInfo]]]:
        """Return the shards of each spec that has any."""
        found: dict[int, tuple[PartitionSpec, list[ShardInfo]]] = {}
        for shard in self.snapshot.shards:
            written = self._written[shard.file_schema]
            valid = tuple(key for key in shard.partition if self._is_valid(key, written))
            spec = self._spec(valid)
            found.setdefault(spec.id, (spec, []))[1].append(shard)
        return list(found.values())

    @property
    def last_id(self) -> int:
        """The greatest id of a field."""
        return _FIRST_ID - 1 + len(self._ids)

    def _is_valid(self, key: str, written: Mapping[int, DataType]) -> bool:
        """Whether a field's column exists, and has the type that its values are of."""
        found = field_of_key(key)
        now = self._fields.get(found.column)
        if now is None or written.get(found.column) != now.type:
            return False
        return found.transform != "identity" or now.type.name in _IDENTITY

    def _spec(self, keys: tuple[str, ...]) -> PartitionSpec:
        found = self.specs.get(frozenset(keys))
        if found is None:
            found = PartitionSpec(len(self.specs), tuple(self._field(key) for key in keys))
            self.specs[frozenset(keys)] = found
        return found

    def _field(self, key: str) -> tuple[str, int, PartitionField, Any]:
        found = field_of_key(key)
        column = self._fields[found.column]
        id_ = self._ids.setdefault(key, _FIRST_ID + len(self._ids))
        if found.transform == "identity":
            return column.name, id_, found, _IDENTITY[column.type.name]
        count = f"_{found.buckets}" if found.buckets else ""
        name = f"{column.name}_{found.transform}{count}"
        while name in self.snapshot.schema.names:
            name += "_"
        return name, id_, found, _DATE if found.transform == "day" else "int"


def sort_orders(snapshot: SnapshotInfo) -> list[dict[str, Any]]:
    """Return the sort orders of a table, the current one last."""
    unsorted: dict[str, Any] = {"order-id": 0, "fields": []}
    if not snapshot.sort_order:
        return [unsorted]
    fields = [
        {
            "transform": "identity",
            "source-id": each.column,
            "direction": "desc" if each.descending else "asc",
            "null-order": "nulls-first" if each.nulls_first else "nulls-last",
        }
        for each in snapshot.sort_order
    ]
    return [unsorted, {"order-id": 1, "fields": fields}]


def _value(value: Any, kind: Any) -> Any:
    if value is not None and kind is _DATE and isinstance(value, str):
        return (datetime.date.fromisoformat(value) - _EPOCH).days
    return int(value) if value is not None and kind in ("int", "long") else value
