"""How much each dataset stores: the distinct shards of all its kept versions."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from lake.catalog.snapshots import AnyManifest, StoredManifest
from lake.maintenance.compaction import small_runs
from sennit_core.errors import Corrupt
from sennit_core.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from lake.catalog.catalog import Catalog
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


class _Counted:
    """The shards of a dataset's manifests.

    Manifests share most of their lists, so each list is read once and is a part of the count, as are
    the shards of a manifest that are in no list. When versions expire, only their own parts are
    removed, and no manifest is read again.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.bytes = 0
        """The sum of `sizes`."""
        # The parts of each manifest, by its id; the shards of each part; how many manifests have a
        # part; how many parts have a shard.
        self._parts: dict[str, tuple[str, ...]] = {}
        self._shards: dict[str, tuple[str, ...]] = {}
        self._manifests: Counter[str] = Counter()
        self._uses: Counter[str] = Counter()

    @property
    def manifests(self) -> AbstractSet[str]:
        """The ids of the manifests that are counted."""
        return self._parts.keys()

    def has(self, part: str) -> bool:
        """Return whether a list is a part of the count."""
        return part in self._shards

    def add(self, manifest: str, parts: Mapping[str, Callable[[], Mapping[str, int]]]) -> None:
        """Count a manifest; read those of its parts that no other one has brought.

        Raises:
            Corrupt: A part is damaged; the manifest is not counted then.
        """
        read = {part: found() for part, found in parts.items() if part not in self._shards}
        for part, sizes in read.items():
            self._shards[part] = tuple(sizes)
            for shard, size in sizes.items():
                if shard not in self.sizes:
                    self.sizes[shard] = size
                    self.bytes += size
                self._uses[shard] += 1
        self._manifests.update(parts.keys())
        self._parts[manifest] = tuple(parts)

    def remove(self, manifest: str) -> None:
        """Remove a manifest, and the parts and shards that no other one has."""
        for part in self._parts.pop(manifest):
            self._manifests[part] -= 1
            if self._manifests[part]:
                continue
            del self._manifests[part]
            for shard in self._shards.pop(part):
                self._uses[shard] -= 1
                if not self._uses[shard]:
                    del self._uses[shard]
                    self.bytes -= self.sizes.pop(shard)


class StoredBytes:
    """Counts what datasets store; remembers what it has read, as manifests do not change.

    Args:
        catalog: Knows the datasets.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._counted: dict[str, _Counted] = {}

    def sizes(self, info: DatasetInfo) -> dict[str, int]:
        """Return the size of each shard of a dataset's kept versions, by object.

        Raises:
            Corrupt: A manifest is damaged.
        """
        with self._lock:
            return dict(self._current(info).sizes)

    def bytes_of(self, info: DatasetInfo) -> int:
        """Return the bytes of the distinct shards of a dataset's kept versions; as `sizes`."""
        with self._lock:
            return self._current(info).bytes

    def bytes_beyond(self, info: DatasetInfo, manifest: AnyManifest) -> int:
        """Return the bytes of a manifest's shards that no kept version of a dataset has; as `sizes`."""
        shards = {each.object: each.bytes for each in manifest.snapshot.shards}
        with self._lock:
            known = self._current(info)
            if isinstance(manifest, StoredManifest):  # the shards of its lists are not among those
                for each in manifest.lists:
                    if not known.has(each.object):
                        shards |= self._catalog.lists.sizes_in(info.name, manifest, each)
            return sum(size for shard, size in shards.items() if shard not in known.sizes)

    def _current(self, info: DatasetInfo) -> _Counted:
        """Return the count of a dataset, for which only what is new is read; `_lock` is held."""
        counted = self._counted.setdefault(info.id, _Counted())
        rows = {} if info.head is None else self._catalog.lists.manifests_of(info)
        for manifest in counted.manifests - rows.keys():  # versions have expired
            counted.remove(manifest)
        for manifest in rows.keys() - counted.manifests:
            counted.add(manifest, self._parts_of(info, manifest, rows[manifest]()))
        return counted

    def _parts_of(
        self, info: DatasetInfo, manifest: str, stored: StoredManifest
    ) -> dict[str, Callable[[], Mapping[str, int]]]:
        """Return what reads the sizes of each list of a manifest, and of its other shards."""
        lists = self._catalog.lists
        own = {each.object: each.bytes for each in stored.snapshot.shards}
        return {
            each.object: partial(lists.sizes_in, info.name, stored, each) for each in stored.lists
        } | {manifest: lambda: own}

    def owned_by(self, owner: str) -> int:
        """Return the bytes of all datasets of a user."""
        owned = [info for info in self._datasets() if info.owner == owner and not info.damaged]
        return sum(map(self.bytes_of, owned))

    def distinct(self) -> dict[str, int]:
        """Return the size of each shard of any dataset that can be read, by object."""
        found: dict[str, int] = {}
        for info in self._datasets():
            with suppress(Corrupt):
                found |= self.sizes(info)
        return found

    def _datasets(self) -> Sequence[DatasetInfo]:
        """Return all datasets; forget the counts of others, which were deleted."""
        found = self._catalog.list()
        with self._lock:
            for gone in self._counted.keys() - {info.id for info in found}:
                del self._counted[gone]
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
            versions=len(self._catalog.lists.manifests_of(info)),
        )


def unmeasured(info: DatasetInfo) -> DatasetUsage:
    """Return what a dataset's record alone says of what it stores."""
    return DatasetUsage(
        info.id, info.name, info.owner, rows=info.rows, bytes=info.bytes, shards=info.shards
    )
