"""Take shards that an executor has written into the object store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lake.objects.store import ObjectStore
from sennit_core.hashing import ObjectDigest
from sennit_core.records import ShardInfo

__all__ = ["adopt_shards", "files_of"]


def files_of(reports: Iterable[Mapping[str, Any]]) -> list[tuple[str, Path]]:
    """Return for each shard of an executor's response the object that it will be, and its file."""
    return [(each["object"], Path(each["file"])) for each in reports]


def adopt_shards(
    objects: ObjectStore,
    reports: Iterable[dict[str, Any]],
    source: str | None = None,
    after_first: Callable[[], object] = lambda: None,
) -> tuple[ShardInfo, ...]:
    """Move an executor's files into the store; until a commit, only a lease keeps them.

    Args:
        objects: The store.
        reports: The executor's reports, `lake.ingest.shards.Shard.to_json`.
        source: The object of the file that they were read from, if it is kept.
        after_first: Called between the first and the second shard, for crash tests.
    """
    shards = []
    for index, report in enumerate(reports):
        digest = ObjectDigest(
            object=report["object"],
            size=report["bytes"],
            chunk_bytes=report["chunkBytes"],
            chunks=tuple(report["chunks"]),
        )
        objects.adopt(Path(report["file"]), digest)
        if index == 0:
            after_first()
        shards.append(
            ShardInfo(
                object=report["object"],
                rows=report["rows"],
                bytes=report["bytes"],
                partition=report.get("partition") or {},
                stats=report["stats"],
                source_object=source,
                byte_start=report["byteStart"],
                byte_end=report["byteEnd"],
            )
        )
    return tuple(shards)
