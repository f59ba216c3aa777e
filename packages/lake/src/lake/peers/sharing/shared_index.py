"""The shared datasets that a node knows, its own and those of others, and which objects they have.

What is known of a dataset is computed from the manifests of the versions that are kept, each of which is
read once, and the index of objects changes by what a new version adds and removes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from lake.catalog.catalog import Catalog
from lake.peers.changes.staging import Offers
from lake.peers.copies.replication import Replica, SharedObjects
from lake.peers.sharing.adopted_versions import AdoptedVersions
from lake.peers.sharing.held import HeldObjects
from lake.peers.sharing.publications import EVERYONE
from lake.peers.sharing.sharing import VERSIONS_KEPT, SharedDataset
from sennit_core.records import ShardInfo

__all__ = ["KnownDataset", "SharedIndex", "read_known"]

_HEADS_KEPT = 8


@dataclass(frozen=True, slots=True)
class _Version:
    """What a reader of one version needs: its lists, and the bytes of each shard that is in none."""

    snapshot: str
    lists: tuple[str, ...]
    shards: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class KnownDataset:
    """A shared dataset as this node knows it.

    Args:
        shared: As its writer describes it.
        objects: The shards of its newest version, which are placed and copied.
        versions: The newest versions, and those that were published last, as a reader may be about to
            read one of them; by the ids of their manifests.
        lists: The bytes of each shard of each list of these, which many of them share; a summary of a
            list has no shards of its own.
        sizes: The bytes of each shard of these.
        heads: The manifests that were published last, the newest at the end.
    """

    shared: SharedDataset
    objects: SharedObjects
    versions: Mapping[str, _Version]
    lists: Mapping[str, Mapping[str, int]]
    sizes: Mapping[str, int]
    heads: tuple[str, ...]

    @property
    def writer(self) -> str:
        """The id of the node that writes it."""
        return self.objects.writer

    @property
    def names(self) -> set[str]:
        """All objects that a reader needs."""
        return {*self.versions, *self.lists, *self.sizes}

    def has(self, name: str) -> bool:
        """Return whether an object is one that a reader needs."""
        return name in self.sizes or name in self.lists or name in self.versions

    def has_snapshot(self, snapshot: str) -> bool:
        """Return whether a snapshot is one of the versions that are kept, and can be read."""
        is_kept = any(version.snapshot == snapshot for version in self.versions.values())
        return is_kept and not self.shared.encrypted


class SharedIndex:
    """Finds shared datasets by their ids, and by the shards that they have.

    Args:
        node: This node's id.
        is_member: Whether a node belongs to the network.
        held: The objects that are here.
        is_open: Whether objects of a dataset of this node may go to other nodes.
    """

    def __init__(
        self,
        node: str,
        is_member: Callable[[str], bool],
        held: HeldObjects,
        is_open: Callable[[str], bool],
    ) -> None:
        self._is_open = is_open
        self._node = node
        self._is_member = is_member
        self._held = held
        self._datasets: dict[str, KnownDataset] = {}
        # The datasets that have a shard in a version that is kept.
        self._named: dict[str, tuple[str, ...]] = {}
        self.versions = AdoptedVersions()
        self.offers = Offers()

    def __iter__(self) -> Iterator[KnownDataset]:
        return iter(list(self._datasets.values()))

    def get(self, dataset: str) -> KnownDataset | None:
        """Return a dataset by its id."""
        return self._datasets.get(dataset)

    def named(self, shard: str) -> list[KnownDataset]:
        """Return the datasets that have a shard."""
        return [self._datasets[dataset] for dataset in self._named.get(shard, ())]

    def put(self, known: KnownDataset) -> None:
        """Add a dataset, or replace what was known of it."""
        dataset = known.shared.id
        was = self._datasets.get(dataset)
        before = was.sizes.keys() if was is not None else frozenset()
        self._datasets[dataset] = known
        for name in known.sizes.keys() - before:
            self._named[name] = (*self._named.get(name, ()), dataset)
        self._unname(dataset, before - known.sizes.keys())

    def remove(self, dataset: str) -> None:
        """Remove a dataset that is not shared any more."""
        known = self._datasets.pop(dataset, None)
        if known is not None:
            self._unname(dataset, known.sizes.keys())

    def _unname(self, dataset: str, names: Iterable[str]) -> None:
        for name in names:
            rest = tuple(each for each in self._named[name] if each != dataset)
            if rest:
                self._named[name] = rest
            else:
                del self._named[name]

    def may_read(self, peer: str, dataset: str, snapshot: str) -> bool:
        """Return whether a node may read a snapshot: it is of a dataset that is shared with it now."""
        known = self._datasets.get(dataset)
        return (
            known is not None and known.has_snapshot(snapshot) and self._is_shared_with(peer, known)
        )

    def may_send(self, peer: str, dataset: str, name: str) -> bool:
        """Return whether this node has an object as one of a dataset that is shared with a node.

        Or as one of a change that this node has sent to it.

        A node of an earlier version names no dataset: it gets the objects of those that this node writes.
        """
        if self.offers.has(peer, dataset, name):
            return True
        if dataset:
            known = self._datasets.get(dataset)
            chosen = [] if known is None else [known]
        else:
            chosen = [known for known in self if known.writer == self._node]
        return any(
            known.has(name)
            and self._is_shared_with(peer, known)
            and self._held.has(known.objects, name)
            for known in chosen
        )

    def may_compute(self, peer: str, dataset: str, names: Collection[str]) -> bool:
        """Return whether a node may let this one compute over shards of a dataset.

        Which are objects that it may fetch, and no lists or manifests. An encrypted dataset has none: its
        objects are ciphertext.
        """
        known = self._datasets.get(dataset)
        if known is None or known.shared.encrypted or not self._is_shared_with(peer, known):
            return False
        return all(name in known.sizes and self._held.has(known.objects, name) for name in names)

    def _is_shared_with(self, peer: str, known: KnownDataset) -> bool:
        if not (self._is_member(peer) and known.objects.may_hold(peer)):
            return False
        # Asked at each request: it may have got a policy after it was published.
        is_own = known.writer == self._node and not known.shared.encrypted
        return not is_own or self._is_open(known.shared.id)


def read_known(
    catalog: Catalog, shared: SharedDataset, writer: str, before: KnownDataset | None
) -> KnownDataset:
    """Return what the manifests of a dataset say; reads files.

    Args:
        catalog: The datasets.
        shared: The dataset.
        writer: The id of its writer.
        before: What was known of it.

    Raises:
        SennitError: It was deleted, or a manifest is damaged.
    """
    if shared.restricted:
        nothing = SharedObjects(shared.id, writer, shared.placement, frozenset(), ())
        return KnownDataset(shared, nothing, {}, {}, {}, ())
    if shared.encrypted:
        return _read_ciphertext(catalog, shared, writer)
    versions, lists = _read_versions(catalog, shared, before)
    heads: tuple[str, ...] = (shared.manifest,)
    if before is not None:
        heads = (*(each for each in before.heads if each != shared.manifest), *heads)[-_HEADS_KEPT:]
        versions |= {each: before.versions[each] for each in heads if each not in versions}
    needed = {name for version in versions.values() for name in version.lists}
    if before is not None:
        lists |= {name: before.lists[name] for name in needed if name not in lists}
    sizes: dict[str, int] = {}
    for part in (*(each.shards for each in versions.values()), *lists.values()):
        sizes.update(part)
    if before is not None and before.shared.manifest == shared.manifest:
        replicas = before.objects.objects
    else:
        replicas = _replicas_of(catalog, shared.manifest)
    nodes = None if EVERYONE in shared.nodes else frozenset(shared.nodes)
    objects = SharedObjects(shared.id, writer, shared.placement, nodes, replicas)
    return KnownDataset(shared, objects, versions, lists, sizes, heads)


def _read_ciphertext(catalog: Catalog, shared: SharedDataset, writer: str) -> KnownDataset:
    """Return what a ciphertext's manifest says; its writer has no row of it in its catalog."""
    manifest = catalog.adopter.read_whole(shared.manifest)
    replicas = tuple(Replica(s.object, s.object, s.bytes) for s in manifest.snapshot.shards)
    sizes = {each.object: each.bytes for each in replicas}
    nodes = None if EVERYONE in shared.nodes else frozenset(shared.nodes)
    objects = SharedObjects(shared.id, writer, shared.placement, nodes, replicas)
    stored = catalog.adopter.read_manifest(shared.manifest)
    lists: dict[str, Mapping[str, int]] = {name: {} for name in stored.list_objects}
    version = _Version(manifest.snapshot.id, tuple(lists), sizes)
    versions = {shared.manifest: version}
    return KnownDataset(shared, objects, versions, lists, sizes, (shared.manifest,))


def _read_versions(
    catalog: Catalog, shared: SharedDataset, before: KnownDataset | None
) -> tuple[dict[str, _Version], dict[str, Mapping[str, int]]]:
    """Return the newest versions by manifest, and their lists; reads those that were not known before."""
    adopter, info = catalog.adopter, catalog.find_known(shared.id)
    known_versions = {} if before is None else before.versions
    known_lists = {} if before is None else before.lists
    # The newest one may have no row yet.
    newest = {shared.manifest: adopter.read_manifest(shared.manifest)}
    if info is not None:
        for stored in catalog.snapshots(shared.id, limit=VERSIONS_KEPT):
            newest[adopter.manifest_of(info, stored.snapshot.id)[0]] = stored
    versions: dict[str, _Version] = {}
    lists: dict[str, Mapping[str, int]] = {}
    for manifest, stored in newest.items():
        # Not the files that were ingested: they may have columns and rows that the dataset has not.
        versions[manifest] = known_versions.get(manifest) or _Version(
            stored.snapshot.id,
            stored.list_objects,
            _sizes_of(stored.snapshot.shards),
        )
        lists |= {each.summary: {} for each in stored.lists if each.summary is not None}
        for each in stored.lists:
            if each.object not in lists:
                found = known_lists.get(each.object)
                lists[each.object] = _sizes_of(adopter.shards_of(each)) if found is None else found
    return versions, lists


def _replicas_of(catalog: Catalog, manifest: str) -> tuple[Replica, ...]:
    """Return the shards of a version, with what they are placed by."""
    stored = catalog.adopter.read_manifest(manifest)
    listed = (catalog.adopter.shards_of(each) for each in stored.lists)
    shards = (*chain.from_iterable(listed), *stored.snapshot.shards)
    return tuple(Replica(each.object, _placement_key(each), each.bytes) for each in shards)


def _sizes_of(shards: Iterable[ShardInfo]) -> dict[str, int]:
    return {shard.object: shard.bytes for shard in shards}


def _placement_key(shard: ShardInfo) -> str:
    """Return what a shard is placed by: its bucket, so that equal buckets are on the same nodes."""
    for key, value in shard.partition.items():
        if key.startswith("bucket("):
            buckets = key.removeprefix("bucket(").partition(",")[0]
            return f"bucket {buckets}/{value}"
    return shard.object
