"""Snapshot manifests: a dataset's state at one moment, as one immutable object.

The object is canonical JSON: `{"v": 1, "snapshot": SnapshotInfo, "ingest": …, "createdAt": …,
"name": …}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lake.objects import ObjectStore
from sennit_core.errors import Corrupt, NotFound
from sennit_core.hashing import canonical_json
from sennit_core.records import ShardInfo, SnapshotInfo

__all__ = ["Manifest", "read_manifest", "renumbered", "write_manifest"]

_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a snapshot's object says.

    Args:
        snapshot: The snapshot.
        created_at: Unix seconds.
        ingest: How its newest data was read (`source`, `report`), None when it was computed.
        name: The dataset's name when the snapshot was committed, to know it by when its catalog
            row is damaged; None in manifests of versions that did not keep it.
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
    """Store the manifest; returns its object id."""
    document = {
        "v": _VERSION,
        "snapshot": manifest.snapshot.to_json(),
        "createdAt": manifest.created_at,
        "ingest": manifest.ingest,
        "name": manifest.name,
    }
    return objects.put_bytes(canonical_json(document)).object


def read_manifest(objects: ObjectStore, name: str) -> Manifest:
    """Read a manifest, its bytes verified.

    Raises:
        Corrupt: It is missing, damaged, or no manifest of this version.
    """
    try:
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
        # Its bytes are those that were written, or it is no manifest at all.
        raise Corrupt(f"manifest {name}", expected="a manifest", found=str(error)) from error


def renumbered(shards: tuple[ShardInfo, ...]) -> tuple[ShardInfo, ...]:
    """The shards with `first_row` as their order gives it."""
    numbered, rows = [], 0
    for shard in shards:
        numbered.append(replace(shard, first_row=rows))
        rows += shard.rows
    return tuple(numbered)
