"""Snapshot manifests: the state of a dataset as one immutable object.

The object is canonical JSON: `{"v": 1, "snapshot": SnapshotInfo, "ingest": …, "createdAt": …,
"name": …}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lake.objects import ObjectStore
from sennit_core.errors import Corrupt, NotFound
from sennit_core.hashing import canonical_json
from sennit_core.records import ShardInfo, SnapshotInfo

__all__ = ["Manifest", "overall_stats", "read_manifest", "renumbered", "write_manifest"]

_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """The manifest of a snapshot.

    Args:
        snapshot: The snapshot.
        created_at: Unix seconds.
        ingest: How its newest data was read (`source`, `report`); None for computed data.
        name: The dataset's name at the commit, to identify it if its catalog row is damaged; None
            in manifests of versions that did not store it.
    """

    snapshot: SnapshotInfo
    created_at: float
    ingest: Mapping[str, Any] | None = None
    name: str | None = None

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.snapshot.shards)

    @property
    def bytes(self) -> int:
        """Stored bytes of all shards."""
        return sum(shard.bytes for shard in self.snapshot.shards)


def write_manifest(objects: ObjectStore, manifest: Manifest) -> str:
    """Store the manifest; return its object id."""
    document = {
        "v": _VERSION,
        "snapshot": manifest.snapshot.to_json(),
        "createdAt": manifest.created_at,
        "ingest": manifest.ingest,
        "name": manifest.name,
    }
    return objects.put_bytes(canonical_json(document)).object


def read_manifest(objects: ObjectStore, name: str) -> Manifest:
    """Read a manifest and verify its bytes.

    Raises:
        Corrupt: It is missing, damaged, or not a manifest of this version.
    """
    try:
        # `objects.read` verifies each chunk, so damaged bytes are not parsed.
        document = json.loads(b"".join(objects.read(name)))
        if document.get("v") != _VERSION:
            raise Corrupt(f"manifest {name}", expected=f"v {_VERSION}", found=str(document)[:40])
        return Manifest(
            snapshot=SnapshotInfo.from_json(document["snapshot"]),
            created_at=document["createdAt"],
            ingest=document["ingest"],
            name=document.get("name"),
        )
    except NotFound as error:
        raise Corrupt(f"manifest {name}", expected="an object", found="none") from error
    except Corrupt:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # The bytes are intact, but they are not a manifest.
        raise Corrupt(f"manifest {name}", expected="a manifest", found=str(error)) from error


def renumbered(shards: tuple[ShardInfo, ...]) -> tuple[ShardInfo, ...]:
    """Return the shards with `first_row` set from their order."""
    numbered, rows = [], 0
    for shard in shards:
        numbered.append(replace(shard, first_row=rows))
        rows += shard.rows
    return tuple(numbered)


def overall_stats(shards: Iterable[ShardInfo]) -> dict[str, Any]:
    """Return each column's null count over all shards; minima and maxima stay per shard."""
    nulls: dict[str, int] = {}
    for shard in shards:
        for name, stats in shard.stats.items():
            nulls[name] = nulls.get(name, 0) + int(stats.get("nulls", 0))
    return {name: {"nulls": count} for name, count in nulls.items()}
