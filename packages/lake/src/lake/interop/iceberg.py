"""Publish a snapshot as an Apache Iceberg table (format version 2), whose data files are the shards.

    <folder>/metadata/<snapshot>-m<spec>.avro                  the files, with their statistics
    <folder>/metadata/snap-<snapshot>.avro                     the list of manifests: one a partition spec
    <folder>/metadata/v<version>-<snapshot>.metadata.json      the table
    <folder>/metadata/version-hint.text                        the newest metadata

The table is a derived view of one snapshot, written anew for each (design 0101). It names the shards
where they are; deleting the dataset deletes them. Field ids are those of the columns, which the
shards have too (`lake.catalog.file_schemas`); readers find columns in nested data and in files of earlier
versions by a name mapping.

Specification: iceberg.apache.org/spec, "Table Metadata", "Manifests", "Column Projection".
"""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.catalog.file_schemas import column_ids, file_schemas_of, with_own_names
from lake.catalog.snapshots import Manifest
from lake.interop.avro import container
from lake.interop.iceberg_layout import PartitionSpec, Specs, sort_orders
from lake.objects.durable import storage_errors, write_whole
from lake.objects.store import ObjectStore
from sennit_core.errors import Denied, Unsupported
from sennit_core.hashing import canonical_json
from sennit_core.private_files import make_private_folder
from sennit_core.records import ShardInfo, SnapshotInfo
from sennit_core.schema import DataType

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["publish_iceberg"]

_NESTED_IDS = 1_000_000
"""Ids of the fields within columns begin here: the lake numbers columns only."""
_SCHEMA_ID = 0
_NAMESPACE = uuid.UUID("5f7f1d0a-6a0a-5b1c-9d0e-5e4417000102")  # of the uuids made from dataset ids
_TYPES = {
    "Bool": "boolean", "Int8": "int", "Int16": "int", "Int32": "int", "UInt8": "int",
    "UInt16": "int", "UInt32": "long", "Int64": "long", "Float32": "float", "Float64": "double",
    "Utf8": "string", "Binary": "binary", "Date": "date", "Time": "time",
}  # fmt: skip
_UTC = ("UTC", "+00:00", "Etc/UTC")


def publish_iceberg(
    lake: Lake, dataset: str, *, version: int | None = None, folder: Path | None = None
) -> Path:
    """Write the metadata of a snapshot; return the path of the table's metadata file.

    Args:
        lake: Its files are read where they are, by the path that it was opened with.
        dataset: Id or name.
        version: The snapshot's number; None for the newest.
        folder: The table's folder, which may have metadata of other snapshots; by default one in
            the lake's folder.

    Raises:
        NotFound: There is no such dataset or version.
        Corrupt: The snapshot is damaged.
        Denied: The dataset is encrypted.
        Unsupported: Iceberg has no such type, or could not distinguish two columns of older files.
    """
    if version is None:
        manifest = lake.catalog.manifest(dataset)
    else:
        manifest = lake.catalog.manifest_at(dataset, version=version)
    if lake.catalog.get(dataset).encrypted:
        raise Denied("publish the files of an encrypted dataset", hint="query it instead")
    lake.catalog.check_shards(manifest.snapshot)
    own = lake.folder / "lake" / "iceberg" / manifest.snapshot.dataset
    return _publish(manifest, lake.objects, folder or own)


def _publish(manifest: Manifest, objects: ObjectStore, folder: Path) -> Path:
    snapshot = with_own_names(manifest.snapshot)
    columns = _Columns(snapshot)
    number = _number(snapshot.id)
    metadata = folder.absolute() / "metadata"
    with storage_errors(metadata, 0):
        make_private_folder(metadata)
    specs = Specs(snapshot)
    listed = metadata / f"snap-{snapshot.id}.avro"
    table = metadata / f"v{snapshot.version:06}-{snapshot.id}.metadata.json"
    schema = columns.to_json()
    manifests = []
    for spec, shards in specs.shards():
        part = replace(snapshot, shards=tuple(shards))
        files = metadata / f"{snapshot.id}-m{spec.id}.avro"
        entries = _entries(part, columns, objects, spec)
        written = container(_entry(spec), _manifest_header(schema, spec), entries)
        write_whole(files, written)
        manifests.append(_listed(files, len(written), part, number, spec))
    write_whole(listed, container(_MANIFEST, {}, manifests))
    document = _table(manifest, schema, columns, folder.absolute(), listed, number)
    document |= _layout(snapshot, specs)
    # Last, and the hint after it: a reader finds the old table, or the new one whole.
    write_whole(table, canonical_json(document))
    write_whole(metadata / "version-hint.text", table.name.encode())
    return table


@dataclass
class _Columns:
    """The columns of a snapshot as fields of Iceberg."""

    snapshot: SnapshotInfo
    fields: list[dict[str, Any]] = field(init=False)
    mapping: list[dict[str, Any]] | None = field(init=False)

    def __post_init__(self) -> None:
        self._nested = count(_NESTED_IDS)
        ids = column_ids(self.snapshot)
        self.fields = [
            self._field(each.name, each.type, column, required=not each.nullable)
            for each, column in zip(self.snapshot.schema, ids, strict=True)
        ]
        names = self._names()
        has_nested = any(isinstance(each["type"], dict) for each in self.fields)
        used = [name for each in names.values() for name in each]
        is_ambiguous = len(used) != len(set(used))
        if is_ambiguous and has_nested:
            raise Unsupported(
                "Iceberg metadata of nested columns, where a name has been that of two columns",
                hint="create a new dataset: CREATE TABLE … AS SELECT * FROM …",
            )
        shown = {each["id"]: each for each in self.fields}
        self.mapping = None
        if not is_ambiguous:
            self.mapping = [_mapped(shown[id_], sorted(names[id_])) for id_ in ids]

    @property
    def last_id(self) -> int:
        """The greatest id of a field."""
        own = max((*column_ids(self.snapshot), self.snapshot.last_column), default=0)
        following = next(self._nested)
        return own if following == _NESTED_IDS else following - 1

    def to_json(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "struct", "schema-id": _SCHEMA_ID, "fields": self.fields}

    def _names(self) -> dict[int, set[str]]:
        """Return the names that each column has in any file, and those of columns that are gone."""
        names: dict[int, set[str]] = {}
        schemas = [(each.schema, each.columns) for each in file_schemas_of(self.snapshot)]
        for schema, ids in (*schemas, (self.snapshot.schema, column_ids(self.snapshot))):
            for each, column in zip(schema, ids, strict=True):
                names.setdefault(column, set()).add(each.name)
        return names

    def _field(self, name: str, kind: DataType, id_: int, *, required: bool) -> dict[str, Any]:
        return {"id": id_, "name": name, "required": required, "type": self._type(kind, name)}

    def _type(self, kind: DataType, name: str) -> Any:
        if kind.name == "Decimal":
            return f"decimal({kind.precision}, {kind.scale})"
        if kind.name == "Timestamp" and kind.unit != "ns" and kind.zone in (None, *_UTC):
            return "timestamp" if kind.zone is None else "timestamptz"
        if kind.name == "List":
            assert kind.item is not None
            id_ = next(self._nested)
            element = {"element-id": id_, "element": self._type(kind.item, name)}
            return {"type": "list", "element-required": False, **element}
        if kind.name == "Struct":
            fields = [
                self._field(each.name, each.type, next(self._nested), required=not each.nullable)
                for each in kind.fields
            ]
            return {"type": "struct", "fields": fields}
        if kind.name not in _TYPES:
            raise Unsupported(
                f"column {name!r} of type {kind} in Iceberg",
                hint="change its type, or create a dataset with CAST(… AS …) for Iceberg",
            )
        return _TYPES[kind.name]


def _mapped(shown: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the entry of a field in the name mapping."""
    entry: dict[str, Any] = {"field-id": shown["id"], "names": names}
    kind = shown["type"]
    if isinstance(kind, dict):
        entry["fields"] = _mapped_children(kind)
    return entry


def _mapped_children(kind: Mapping[str, Any]) -> list[dict[str, Any]]:
    if kind["type"] == "struct":
        return [_mapped(each, [each["name"]]) for each in kind["fields"]]
    return [_mapped({"id": kind["element-id"], "type": kind["element"]}, ["element"])]


def _entries(
    snapshot: SnapshotInfo, columns: _Columns, objects: ObjectStore, spec: PartitionSpec
) -> Iterator[dict[str, Any]]:
    for shard in snapshot.shards:
        yield {
            "status": 1,  # added
            "snapshot_id": _number(snapshot.id),
            "sequence_number": snapshot.version,
            "file_sequence_number": snapshot.version,
            "data_file": {
                "content": 0,  # data
                "file_path": objects.place(shard.object).absolute().as_uri(),
                "file_format": "PARQUET",
                "partition": spec.values(shard),
                "record_count": shard.rows,
                "file_size_in_bytes": shard.bytes,
                **_statistics(shard, columns),
            },
        }


def _statistics(shard: ShardInfo, columns: _Columns) -> dict[str, Any]:
    """Return the counts of a shard's columns, and bounds where the lake has exact ones."""
    nulls, values, lower, upper = [], [], [], []
    for each in columns.fields:
        stats = shard.stats.get(each["name"], {})
        if "nulls" in stats:
            values.append({"key": each["id"], "value": shard.rows})
            nulls.append({"key": each["id"], "value": int(stats["nulls"])})
        form = {"int": "<i", "long": "<q"}.get(each["type"] if "min" in stats else "")
        if form is not None:
            lower.append({"key": each["id"], "value": struct.pack(form, int(stats["min"]))})
            upper.append({"key": each["id"], "value": struct.pack(form, int(stats["max"]))})
    return {
        "value_counts": values,
        "null_value_counts": nulls,
        "lower_bounds": lower,
        "upper_bounds": upper,
    }


def _layout(snapshot: SnapshotInfo, specs: Specs) -> dict[str, Any]:
    """Return the members of the table that say how it is partitioned and sorted."""
    orders = sort_orders(snapshot)
    return {
        "partition-specs": [
            {"spec-id": each.id, "fields": each.to_json()} for each in specs.specs.values()
        ],
        "default-spec-id": specs.default.id,
        "last-partition-id": specs.last_id,
        "sort-orders": orders,
        "default-sort-order-id": orders[-1]["order-id"],
    }


def _manifest_header(schema: Mapping[str, Any], spec: PartitionSpec) -> dict[str, str]:
    return {
        "schema": json.dumps(schema),
        "schema-id": str(_SCHEMA_ID),
        "partition-spec": json.dumps(spec.to_json()),
        "partition-spec-id": str(spec.id),
        "format-version": "2",
        "content": "data",
    }


def _listed(
    path: Path, size: int, snapshot: SnapshotInfo, number: int, spec: PartitionSpec
) -> dict[str, Any]:
    version = snapshot.version
    return {
        "manifest_path": path.as_uri(),
        "manifest_length": size,
        "partition_spec_id": spec.id,
        "content": 0,
        "sequence_number": version,
        "min_sequence_number": version,
        "added_snapshot_id": number,
        "added_files_count": len(snapshot.shards),
        "existing_files_count": 0,
        "deleted_files_count": 0,
        "added_rows_count": sum(shard.rows for shard in snapshot.shards),
        "existing_rows_count": 0,
        "deleted_rows_count": 0,
    }


def _table(
    manifest: Manifest,
    schema: Mapping[str, Any],
    columns: _Columns,
    folder: Path,
    listed: Path,
    number: int,
) -> dict[str, Any]:
    snapshot = manifest.snapshot
    milliseconds = int(manifest.created_at * 1000)
    summary = {
        "operation": "append",
        "total-records": str(manifest.rows),
        "total-data-files": str(len(snapshot.shards)),
        "total-files-size": str(manifest.bytes),
        "sennit.dataset": snapshot.dataset,
        "sennit.snapshot": snapshot.id,
        "sennit.version": str(snapshot.version),
    }
    properties = {}
    if columns.mapping is not None:
        properties["schema.name-mapping.default"] = json.dumps(columns.mapping)
    return {
        "format-version": 2,
        "table-uuid": str(uuid.uuid5(_NAMESPACE, snapshot.dataset)),
        "location": folder.as_uri(),
        "last-sequence-number": snapshot.version,
        "last-updated-ms": milliseconds,
        "last-column-id": columns.last_id,
        "schemas": [schema],
        "current-schema-id": _SCHEMA_ID,
        "properties": properties,
        "current-snapshot-id": number,
        "refs": {"main": {"snapshot-id": number, "type": "branch"}},
        "snapshots": [
            {
                "snapshot-id": number,
                "sequence-number": snapshot.version,
                "timestamp-ms": milliseconds,
                "manifest-list": listed.as_uri(),
                "schema-id": _SCHEMA_ID,
                "summary": summary,
            }
        ],
        "snapshot-log": [{"snapshot-id": number, "timestamp-ms": milliseconds}],
    }


def _number(snapshot: str) -> int:
    """Return a number for a snapshot's id, as Iceberg names snapshots; exact in any JSON reader."""
    return int.from_bytes(uuid.uuid5(_NAMESPACE, snapshot).bytes[:8], "big") >> 11


def _member(name: str, kind: Any, id_: int, *, optional: bool = False) -> dict[str, Any]:
    if optional:
        return {"name": name, "type": ["null", kind], "default": None, "field-id": id_}
    return {"name": name, "type": kind, "field-id": id_}


def _by_column(key: int, value: int, kind: str) -> dict[str, Any]:
    """Return the type of a map from field ids, which Avro has for text only."""
    fields = [_member("key", "int", key), _member("value", kind, value)]
    items = {"type": "record", "name": f"k{key}_v{value}", "fields": fields}
    return {"type": "array", "logicalType": "map", "items": items}


_ENTRY: dict[str, Any] = {
    "type": "record",
    "name": "manifest_entry",
    "fields": [
        _member("status", "int", 0),
        _member("snapshot_id", "long", 1, optional=True),
        _member("sequence_number", "long", 3, optional=True),
        _member("file_sequence_number", "long", 4, optional=True),
        _member(
            "data_file",
            {
                "type": "record",
                "name": "r2",
                "fields": [
                    _member("content", "int", 134),
                    _member("file_path", "string", 100),
                    _member("file_format", "string", 101),
                    _member("partition", {"type": "record", "name": "r102", "fields": []}, 102),
                    _member("record_count", "long", 103),
                    _member("file_size_in_bytes", "long", 104),
                    _member("value_counts", _by_column(119, 120, "long"), 109, optional=True),
                    _member("null_value_counts", _by_column(121, 122, "long"), 110, optional=True),
                    _member("lower_bounds", _by_column(126, 127, "bytes"), 125, optional=True),
                    _member("upper_bounds", _by_column(129, 130, "bytes"), 128, optional=True),
                ],
            },
            2,
        ),
    ],
}


def _entry(spec: PartitionSpec) -> dict[str, Any]:
    """Return the type of an entry of a manifest, whose partition is that of a spec."""
    *others, last = _ENTRY["fields"]
    file = last["type"]
    members = [
        {**each, "type": spec.record()} if each["name"] == "partition" else each
        for each in file["fields"]
    ]
    return {**_ENTRY, "fields": [*others, {**last, "type": {**file, "fields": members}}]}


_MANIFEST = {
    "type": "record",
    "name": "manifest_file",
    "fields": [
        _member("manifest_path", "string", 500),
        _member("manifest_length", "long", 501),
        _member("partition_spec_id", "int", 502),
        _member("content", "int", 517),
        _member("sequence_number", "long", 515),
        _member("min_sequence_number", "long", 516),
        _member("added_snapshot_id", "long", 503),
        _member("added_files_count", "int", 504),
        _member("existing_files_count", "int", 505),
        _member("deleted_files_count", "int", 506),
        _member("added_rows_count", "long", 512),
        _member("existing_rows_count", "long", 513),
        _member("deleted_rows_count", "long", 514),
    ],
}
