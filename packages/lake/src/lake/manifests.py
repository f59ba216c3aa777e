"""Reads and writes manifests with their lists of shards.

When a snapshot has many shards outside of lists, they become a list; when the last lists are many
small ones, they become one. So each shard is written a few times in all, however many commits there
are, a manifest stays small, and a change to one shard writes one list anew, which is of bounded size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from threading import Lock

from lake.objects import ObjectStore
from lake.references import Needs
from lake.snapshots import (
    Manifest,
    ShardList,
    StoredManifest,
    read_list,
    read_stored,
    write_list,
    write_stored,
)
from sennit_core.errors import Corrupt
from sennit_core.records import ShardInfo

__all__ = ["LIST_MAX", "UNLISTED_MAX", "Manifests"]

UNLISTED_MAX = 64
"""The most shards that a manifest has itself, and the size of the smallest lists."""
LIST_MAX = 4096
_SMALL = 1024
_MERGED = 16
"""How many lists below the size `_SMALL` become one."""
_MANIFESTS_KEPT = 64
_SHARDS_KEPT = 32_768
"""Shards of the lists that are kept in memory, at some KiB each."""

Part = tuple[ShardList | None, tuple[ShardInfo, ...]]
"""Consecutive shards, and the stored list that they are; None if they are in none."""


class Manifests:
    """The manifests of a store; those read last are kept, as they are immutable.

    Args:
        objects: The store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._stored = lru_cache(_MANIFESTS_KEPT)(lambda name: read_stored(objects, name))
        self._lock = Lock()
        self._lists: OrderedDict[str, tuple[ShardInfo, ...]] = OrderedDict()

    def stored(self, name: str) -> StoredManifest:
        """Return a manifest without the shards of its lists.

        Raises:
            Corrupt: It is missing or damaged.
        """
        return self._stored(name)

    def read(self, name: str) -> Manifest:
        """Return a manifest with all its shards.

        Raises:
            Corrupt: It, or one of its lists, is missing or damaged.
        """
        return self.whole(self._stored(name))

    def whole(self, stored: StoredManifest) -> Manifest:
        """Return a manifest with all its shards; as `read`."""
        return stored.with_shards(s for each in stored.lists for s in self.shards_of(each))

    def needs(self, name: str) -> Needs:
        """Return what a manifest's snapshot needs; as `read`."""
        stored = self._stored(name)
        return Needs(
            frozenset((name, *_objects_of(stored.snapshot.shards))),
            {each.object: _objects_of(self.shards_of(each)) for each in stored.lists},
        )

    def shards_of(self, stored: ShardList) -> tuple[ShardInfo, ...]:
        """Return the shards of a list.

        Raises:
            Corrupt: It is missing, damaged, or not the one that the manifest describes.
        """
        with self._lock:
            found = self._lists.get(stored.object)
            if found is not None:
                self._lists.move_to_end(stored.object)
                return found
        found = read_list(self._objects, stored.object)
        if ShardList.of(stored.object, found) != stored:
            what = f"list of shards {stored.object}"
            raise Corrupt(what, expected=str(stored), found=str(ShardList.of("", found)))
        self._keep(stored.object, found)
        return found

    def write(self, manifest: Manifest, base: Manifest | None) -> str:
        """Store a manifest, with new lists for the shards that have changed; return its object id.

        Args:
            manifest: The manifest.
            base: One that is stored, whose lists it may share; None if there is none.
        """
        parts, rest = _arranged(manifest.snapshot.shards, base)
        lists = [stored or self._write_list(shards) for stored, shards in parts]
        snapshot = replace(manifest.snapshot, shards=rest)
        return write_stored(
            self._objects,
            StoredManifest(
                snapshot, tuple(lists), manifest.created_at, manifest.ingest, manifest.name
            ),
        )

    def _write_list(self, shards: tuple[ShardInfo, ...]) -> ShardList:
        stored = write_list(self._objects, shards)
        self._keep(stored.object, shards)
        return stored

    def clear(self) -> None:
        """Forget all: the next read is from disk."""
        self._stored.cache_clear()
        with self._lock:
            self._lists.clear()

    def _keep(self, name: str, shards: tuple[ShardInfo, ...]) -> None:
        with self._lock:
            self._lists[name] = shards
            kept = sum(map(len, self._lists.values()))
            while kept > _SHARDS_KEPT and len(self._lists) > 1:
                kept -= len(self._lists.popitem(last=False)[1])


def _arranged(
    shards: tuple[ShardInfo, ...], base: Manifest | None
) -> tuple[list[Part], tuple[ShardInfo, ...]]:
    """Divide shards into lists, of which some are stored already, and the rest."""
    parts: list[Part] = []
    loose: list[ShardInfo] = []
    for part in _shared(shards, base):
        stored, found = part
        if stored is None:
            loose += found
            continue
        # Shards before a list must be in a list too, since those of the manifest itself come last.
        parts += _new_lists(loose)
        loose = []
        parts.append(part)
    if len(loose) > UNLISTED_MAX:
        parts += _new_lists(loose)
        loose = []
    last = [found for _, found in parts[-_MERGED:]]
    if len(last) == _MERGED and max(map(len, last)) < _SMALL and sum(map(len, last)) <= LIST_MAX:
        parts[-_MERGED:] = [(None, tuple(chain.from_iterable(last)))]
    return parts, tuple(loose)


def _shared(shards: tuple[ShardInfo, ...], base: Manifest | None) -> Iterator[Part]:
    """Yield all shards in order, as the lists of a stored manifest where they are the same."""
    known = (
        {} if base is None else {found[0].object: (each, found) for each, found in base.listed()}
    )
    place = 0
    while place < len(shards):
        stored, found = known.get(shards[place].object, (None, shards[place : place + 1]))
        end = place + len(found)
        if stored is not None and shards[place:end] == found:
            yield stored, found
        else:
            end = place + 1
            yield None, shards[place:end]
        place = end


def _new_lists(shards: Sequence[ShardInfo]) -> Iterator[Part]:
    for start in range(0, len(shards), LIST_MAX):
        yield None, tuple(shards[start : start + LIST_MAX])


def _objects_of(shards: Sequence[ShardInfo]) -> frozenset[str]:
    """Return the ids of the shards and of the kept source files."""
    sources = (shard.source_object for shard in shards)
    return frozenset((*(shard.object for shard in shards), *filter(None, sources)))
