"""The columns of a dataset, and those of the files that its shards were written with.

A column has an id, which stays when its name, type or place changes, and which is its field id in the
Parquet files. A change of the columns changes no file: `SnapshotInfo.file_schemas` lists what the files
have, and each shard says which of them. DuckDB finds columns by field id, and EM-√ by the names that
`FileColumns` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sennit_core.records import FileSchema, Record, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.plan import Files, Plan

__all__ = [
    "FileColumns",
    "column_ids",
    "columns_of_files",
    "defaults_of",
    "file_schemas_of",
    "overall_stats",
    "rows_of_files",
    "stats_with",
    "with_new_shards",
    "with_own_names",
]


@dataclass(frozen=True, slots=True)
class FileColumns(Record):
    """How the columns of files become those of their dataset.

    Args:
        schema: The columns in the files.
        sources: For each column of the dataset, the index of the file's column that it is; -1 if the
            files do not have it, so that it is NULL.
    """

    schema: Schema
    sources: tuple[int, ...]


def column_ids(snapshot: SnapshotInfo) -> tuple[int, ...]:
    """Return the id of each column."""
    return snapshot.columns or tuple(range(1, len(snapshot.schema) + 1))


def defaults_of(snapshot: SnapshotInfo) -> dict[str, str]:
    """Return the expression of each column that has a default, by its name."""
    names = dict(zip(column_ids(snapshot), snapshot.schema.names, strict=True))
    return {names[each.column]: each.sql for each in snapshot.defaults}


def file_schemas_of(snapshot: SnapshotInfo) -> tuple[FileSchema, ...]:
    """Return what the indexes in the snapshot's shards mean."""
    own = FileSchema(snapshot.schema, column_ids(snapshot))
    return snapshot.file_schemas or (own,)


def columns_of_files(snapshot: SnapshotInfo) -> tuple[FileColumns, ...]:
    """Return how each of the file schemas is read; empty if all files have the dataset's columns."""
    wanted = column_ids(snapshot)
    found = []
    for each in snapshot.file_schemas:
        places = {column: index for index, column in enumerate(each.columns)}
        sources = tuple(places.get(column, -1) for column in wanted)
        found.append(FileColumns(each.schema, sources))
    return tuple(found)


def with_new_shards(
    snapshot: SnapshotInfo, shards: Sequence[ShardInfo]
) -> tuple[SnapshotInfo, tuple[ShardInfo, ...]]:
    """Return the snapshot and new shards, with the columns of the dataset as one file schema.

    Args:
        snapshot: Its columns are those of the new files.
        shards: Described as if there were no other schemas.
    """
    known = snapshot.file_schemas
    if not known:
        return snapshot, tuple(shards)
    own = FileSchema(snapshot.schema, column_ids(snapshot))
    if own not in known:
        known = (*known, own)
    index = known.index(own)
    numbered = tuple(replace(shard, file_schema=index) for shard in shards)
    return replace(snapshot, file_schemas=known), numbered


def with_own_names(snapshot: SnapshotInfo) -> SnapshotInfo:
    """Return the snapshot with its shards' statistics by the dataset's names of the columns."""
    if not snapshot.file_schemas:
        return snapshot
    files = columns_of_files(snapshot)
    shards = tuple(
        replace(shard, stats=_own_stats(shard, files[shard.file_schema], snapshot.schema))
        for shard in snapshot.shards
    )
    return replace(snapshot, shards=shards)


def overall_stats(snapshot: SnapshotInfo) -> dict[str, dict[str, int]]:
    """Return each column's null count over all shards; minima and maxima stay per shard."""
    nulls: dict[str, int] = {}
    for shard in with_own_names(snapshot).shards:
        for name, stats in shard.stats.items():
            nulls[name] = nulls.get(name, 0) + int(stats.get("nulls", 0))
    return {name: {"nulls": count} for name, count in nulls.items()}


def stats_with(before: SnapshotInfo, added: SnapshotInfo) -> dict[str, dict[str, int]]:
    """Return `overall_stats` of a snapshot with shards after its own.

    Args:
        before: The snapshot, whose own shards need not be known.
        added: The state with the same columns and only the added shards.
    """
    new = overall_stats(added)
    return {
        name: {
            "nulls": sum(int(part.get(name, {}).get("nulls", 0)) for part in (before.stats, new))
        }
        for name in (*before.stats, *(name for name in new if name not in before.stats))
    }


def rows_of_files(
    files: Files,
    target: Schema,
    columns: FileColumns | None,
    wanted: tuple[str, ...] | None = None,
) -> Plan:
    """Return a plan for the rows of shards that have the same columns.

    Args:
        files: The shards.
        target: The dataset's columns.
        columns: Those of the files; None if they are the same.
        wanted: The columns to read; None for all.
    """
    from emsqrt.expr import Cast, Column, Expr, Literal
    from emsqrt.plan import Project, Scan

    if columns is None:
        return Scan(files, target, wanted)
    named: list[tuple[str, Expr]] = []
    for field, place in zip(target, columns.sources, strict=True):
        if wanted is not None and field.name not in wanted:
            continue
        if place < 0:
            named.append((field.name, Cast(Literal(None, None), field.type)))
            continue
        source = columns.schema.fields[place]
        value = Column(source.name)
        named.append((field.name, value if source.type == field.type else Cast(value, field.type)))
    return Project(Scan(files, columns.schema), tuple(named))


def _own_stats(shard: ShardInfo, columns: FileColumns, schema: Schema) -> dict[str, Any]:
    names = columns.schema.names
    found: dict[str, Any] = {}
    for field, place in zip(schema, columns.sources, strict=True):
        if place < 0:
            found[field.name] = {"nulls": shard.rows}
        elif names[place] in shard.stats:
            found[field.name] = shard.stats[names[place]]
    return found
