"""How much each dataset stores: the distinct shards of all its kept versions."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lake.compaction import small_runs
from sennit_core.errors import Corrupt
from sennit_core.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lake.catalog import Catalog
    from lake.snapshots import Manifest
    from sennit_core.records import DatasetInfo

__all__ = ["DatasetUsage", "StoredBytes", "unmeasured"]


@dataclass(frozen=True, slots=True)
class DatasetUsage(Record):
    """What one dataset stores.

    Args:
        id: Its id.
        name: Its name.
        owner: Its owner.
        rows: Rows of the newest version.
        bytes: Bytes of the newest version.
        stored_bytes: Bytes of the distinct shards of all kept versions.
        reclaimable_bytes: Those that only earlier versions without a tag need: what their expiry
            gives back, if no other dataset has the same content.
        shards: Shards of the newest version.
        small_shards: Those of them that a compaction would write anew.
        versions: Kept versions.
        damaged: What is damaged; None if nothing is known to be.
    """

    id: str
    name: str
    owner: str
    rows: int = 0
    bytes: int = 0
    stored_bytes: int = 0
    reclaimable_bytes: int = 0
    shards: int = 0
    small_shards: int = 0
    versions: int = 0
    damaged: str | None = None


@dataclass(slots=True)
class _Counted:
    """The shards of the manifests of a dataset that were read: sizes by object."""

    manifests: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)


class StoredBytes:
    """Counts what datasets store; remembers what it has read, as manifests do not change.

    Args:
        catalog: Knows the datasets.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._counted: dict[str, _Counted] = {}

    def sizes(self, info: DatasetInfo) -> Mapping[str, int]:
        """Return the size of each shard of a dataset's kept versions, by object.

        Raises:
            Corrupt: A manifest is damaged.
        """
        if info.head is None:
            return {}
        rows = self._catalog.rewriter.manifests_of(info)
        with self._lock:
            counted = self._counted.setdefault(info.id, _Counted())
            if not counted.manifests <= rows.keys():  # versions have expired
                counted = self._counted[info.id] = _Counted()
            for manifest_id in rows.keys() - counted.manifests:
                manifest: Manifest = rows[manifest_id]()
                counted.sizes.update({each.object: each.bytes for each in manifest.snapshot.shards})
                counted.manifests.add(manifest_id)
            return dict(counted.sizes)

    def owned_by(self, owner: str) -> int:
        """Return the bytes of all datasets of a user."""
        owned = [info for info in self._catalog.list() if info.owner == owner and not info.damaged]
        return sum(sum(self.sizes(info).values()) for info in owned)

    def distinct(self) -> dict[str, int]:
        """Return the size of each shard of any dataset that can be read, by object."""
        found: dict[str, int] = {}
        for info in self._catalog.list():
            with suppress(Corrupt):
                found |= self.sizes(info)
        return found

    def of(self, info: DatasetInfo) -> DatasetUsage:
        """Return what a dataset stores; reads the manifests of its versions that were not read before.

        Raises:
            Corrupt: A manifest is damaged.
        """
        if info.head is None:
            return unmeasured(info)
        sizes = self.sizes(info)
        shards = self._catalog.manifest(info.id).snapshot.shards
        kept = {shard.object for shard in shards}
        for tagged in set(self._catalog.tags(info.id).values()) - {info.head}:
            kept |= {
                each.object for each in self._catalog.manifest(info.id, tagged).snapshot.shards
            }
        return replace(
            unmeasured(info),
            stored_bytes=sum(sizes.values()),
            reclaimable_bytes=sum(size for name, size in sizes.items() if name not in kept),
            small_shards=sum(map(len, small_runs(shards))),
            versions=len(self._catalog.rewriter.manifests_of(info)),
        )


def unmeasured(info: DatasetInfo) -> DatasetUsage:
    """Return what a dataset's record alone says of what it stores."""
    return DatasetUsage(
        info.id, info.name, info.owner, rows=info.rows, bytes=info.bytes, shards=info.shards
    )
