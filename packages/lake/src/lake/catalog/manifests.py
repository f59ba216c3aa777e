"""Reads and writes manifests with their lists of shards.

When a snapshot has many shards outside of lists, they become a list; when the last lists are many
small ones, they become one. So each shard is written a few times in all, however many commits there
are, a manifest stays small, and a change to one shard writes one list anew, which is of bounded size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from threading import Lock

from lake.catalog.list_summaries import SUMMARIZED_MIN, summary_of
from lake.catalog.node_key import NodeKey
from lake.catalog.references import Needs
from lake.catalog.snapshots import (
    AnyManifest,
    Manifest,
    ShardList,
    StoredManifest,
    ids_in_list,
    read_list,
    read_stored,
    write_list,
    write_stored,
)
from lake.objects.store import ObjectStore
from sennit_core.errors import Corrupt
from sennit_core.records import ShardInfo, SnapshotInfo

__all__ = ["LIST_MAX", "UNLISTED_MAX", "Manifests"]

UNLISTED_MAX = 64
"""The most shards that a manifest has itself, and the size of the smallest lists."""
LIST_MAX = 4096
_SMALL = 1024
_MERGED = 16
"""How many lists below the size `_SMALL` become one."""
_MANIFESTS_KEPT = 64
_SHARDS_KEPT = 131_072
"""Shards of the lists that are kept in memory, at about 1 KiB each for three columns."""

Part = ShardList | tuple[ShardInfo, ...]
"""Consecutive shards: the stored list that they are, or themselves if they are in none."""


class Manifests:
    """The manifests of a store; those read last are kept, as they are immutable.

    Args:
        objects: The store.
        key: Signs new manifests; None leaves them unsigned.
    """

    def __init__(self, objects: ObjectStore, key: NodeKey | None = None) -> None:
        self._objects = objects
        self._key = key
        self._lock = Lock()
        self._stored: OrderedDict[str, StoredManifest] = OrderedDict()
        self._lists: OrderedDict[str, tuple[ShardInfo, ...]] = OrderedDict()

    def stored(self, name: str) -> StoredManifest:
        """Return a manifest without the shards of its lists.

        Raises:
            Corrupt: It is missing or damaged.
        """
        with self._lock:
            found = self._stored.get(name)
            if found is not None:
                self._stored.move_to_end(name)
                return found
        return self._keep_stored(name, read_stored(self._objects, name))

    def read(self, name: str) -> Manifest:
        """Return a manifest with all its shards.

        Raises:
            Corrupt: It, or one of its lists, is missing or damaged.
        """
        return self.whole(self.stored(name))

    def whole(self, stored: StoredManifest) -> Manifest:
        """Return a manifest with all its shards; as `read`."""
        return stored.with_shards(s for each in stored.lists for s in self.shards_of(each))

    def needs(
        self,
        name: str,
        stored: StoredManifest,
        known: Container[str] = (),
        read: dict[str, frozenset[str]] | None = None,
    ) -> Needs:
        """Return what a manifest's snapshot needs.

        Args:
            name: The manifest's object id.
            stored: The manifest.
            known: Lists that the caller knows, which are not read: they are named as empty.
            read: The lists that the caller has read, which others are added to; for the manifests
                of one history, which share most of theirs.

        Raises:
            Corrupt: One of its lists is missing or damaged.
        """
        read = {} if read is None else read
        lists: dict[str, frozenset[str]] = {}
        for each in stored.lists:
            if each.object in known:
                lists[each.object] = frozenset()
                continue
            if each.object not in read:
                read[each.object] = self._ids_in(each)
            lists[each.object] = read[each.object]
        summaries = (each.summary for each in stored.lists if each.summary is not None)
        return Needs(frozenset((name, *summaries, *_objects_of(stored.snapshot.shards))), lists)

    def _ids_in(self, stored: ShardList) -> frozenset[str]:
        with self._lock:
            found = self._lists.get(stored.object)
        return ids_in_list(self._objects, stored) if found is None else _objects_of(found)

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
        if ShardList.of(stored.object, found) != replace(stored, summary=None):
            what = f"list of shards {stored.object}"
            raise Corrupt(what, expected=str(stored), found=str(ShardList.of("", found)))
        self._keep(stored.object, found)
        return found

    def write(self, manifest: AnyManifest, base: Manifest | None = None) -> str:
        """Store a manifest, with new lists for the shards that have changed; return its object id.

        Args:
            manifest: The manifest. One without the shards of its lists, which are stored, costs what
                it adds to them.
            base: One that is stored, whose lists a whole manifest may share; None if there is none.
        """
        if isinstance(manifest, StoredManifest):
            parts, rest = _arranged((*manifest.lists, manifest.snapshot.shards))
        else:
            parts, rest = _arranged(_shared(manifest.snapshot.shards, base))
        lists = [
            self._summarized(part, manifest.snapshot)
            if isinstance(part, ShardList)
            else self.write_list(part, manifest.snapshot)
            for part in _merged(parts, self.shards_of)
        ]
        snapshot = replace(manifest.snapshot, shards=rest)
        stored = StoredManifest(
            snapshot,
            tuple(lists),
            manifest.created_at,
            manifest.ingest,
            manifest.name,
            manifest.provenance,
        )
        name, stored = write_stored(self._objects, stored, self._key)
        self._keep_stored(name, stored)  # the next commit reads it
        return name

    def write_list(self, shards: tuple[ShardInfo, ...], snapshot: SnapshotInfo) -> ShardList:
        """Store shards as a list.

        Args:
            shards: At most `LIST_MAX`.
            snapshot: Has their columns.
        """
        stored = write_list(self._objects, shards)
        self._keep(stored.object, shards)
        return self._summarized(stored, snapshot)

    def _summarized(self, stored: ShardList, snapshot: SnapshotInfo) -> ShardList:
        """Return a list with a summary, if it needs one and its shards are known."""
        if stored.summary is not None or stored.shards < SUMMARIZED_MIN:
            return stored
        with self._lock:
            shards = self._lists.get(stored.object)
        if (
            shards is None
        ):  # as an earlier version of Sennit wrote it; a read for this would cost more
            return stored
        summary = summary_of(snapshot, shards)
        name = write_list(self._objects, summary).object
        self._keep(name, summary)
        return replace(stored, summary=name)

    def summary_of(self, stored: ShardList) -> tuple[ShardInfo, ...] | None:
        """Return the summary of a list; None if it has none that can be read."""
        if stored.summary is None:
            return None
        with self._lock:
            found = self._lists.get(stored.summary)
            if found is not None:
                self._lists.move_to_end(stored.summary)
                return found
        try:
            found = read_list(self._objects, stored.summary)
        except Corrupt:
            # The list itself has all that is in it. Verification reports the damage.
            return None
        if sum(each.rows for each in found) != stored.rows:
            return None
        self._keep(stored.summary, found)
        return found

    def clear(self) -> None:
        """Forget all: the next read is from disk."""
        with self._lock:
            self._stored.clear()
            self._lists.clear()

    def _keep_stored(self, name: str, stored: StoredManifest) -> StoredManifest:
        with self._lock:
            self._stored[name] = stored
            while len(self._stored) > _MANIFESTS_KEPT:
                self._stored.popitem(last=False)
        return stored

    def _keep(self, name: str, shards: tuple[ShardInfo, ...]) -> None:
        with self._lock:
            self._lists[name] = shards
            kept = sum(map(len, self._lists.values()))
            while kept > _SHARDS_KEPT and len(self._lists) > 1:
                kept -= len(self._lists.popitem(last=False)[1])


def _arranged(parts: Iterable[Part]) -> tuple[list[Part], tuple[ShardInfo, ...]]:
    """Divide shards into lists, of which some are stored already, and the rest."""
    found: list[Part] = []
    loose: list[ShardInfo] = []
    for part in parts:
        if not isinstance(part, ShardList):
            loose += part
            continue
        # Shards before a list must be in a list too, since those of the manifest itself come last.
        found += _new_lists(loose)
        loose = []
        found.append(part)
    if len(loose) > UNLISTED_MAX:
        found += _new_lists(loose)
        loose = []
    return found, tuple(loose)


def _merged(
    parts: list[Part], shards_of: Callable[[ShardList], tuple[ShardInfo, ...]]
) -> list[Part]:
    """Return the parts, with the last ones as one if they are many and small."""
    last = parts[-_MERGED:]
    sizes = [part.shards if isinstance(part, ShardList) else len(part) for part in last]
    if len(last) < _MERGED or max(sizes) >= _SMALL or sum(sizes) > LIST_MAX:
        return parts
    found = (shards_of(part) if isinstance(part, ShardList) else part for part in last)
    return [*parts[:-_MERGED], tuple(chain.from_iterable(found))]


def _shared(shards: tuple[ShardInfo, ...], base: Manifest | None) -> Iterator[Part]:
    """Yield all shards in order, as the lists of a stored manifest where they are the same."""
    known = (
        {} if base is None else {found[0].object: (each, found) for each, found in base.listed()}
    )
    place = 0
    while place < len(shards):
        stored, found = known.get(shards[place].object, (None, ()))
        end = place + len(found)
        if stored is not None and shards[place:end] == found:
            yield stored
        else:
            end = place + 1
            yield shards[place:end]
        place = end


def _new_lists(shards: Sequence[ShardInfo]) -> Iterator[tuple[ShardInfo, ...]]:
    for start in range(0, len(shards), LIST_MAX):
        yield tuple(shards[start : start + LIST_MAX])


def _objects_of(shards: Sequence[ShardInfo]) -> frozenset[str]:
    """Return the ids of the shards and of the kept source files."""
    sources = (shard.source_object for shard in shards)
    return frozenset((*(shard.object for shard in shards), *filter(None, sources)))
