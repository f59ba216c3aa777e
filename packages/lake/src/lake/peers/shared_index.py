"""The shared datasets that a node knows, its own and those of others, and which objects they have.

What is known of a dataset is computed from the manifests of the versions that are kept, each of which is
read once, and the index of objects changes by what a new version adds and removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lake.catalog import Catalog
from lake.peers.adopted_versions import AdoptedVersions
from lake.peers.held import HeldObjects
from lake.peers.publications import EVERYONE
from lake.peers.replication import Replica, SharedObjects
from lake.peers.sharing import SharedDataset
from sennit_core.records import ShardInfo

__all__ = ["VERSIONS_KEPT", "KnownDataset", "SharedIndex", "read_known"]

VERSIONS_KEPT = 8
"""The newest versions of a dataset, which its readers have."""


@dataclass(frozen=True, slots=True)
class _Version:
    """What a reader of one version needs: its manifest, lists and shards, and the shards' bytes."""

    snapshot: str
    names: frozenset[str]
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class KnownDataset:
    """A shared dataset as this node knows it.

    Args:
        shared: As its writer describes it.
        objects: The shards of its newest version, which are placed and copied.
        versions: The versions that are kept, by the ids of their manifests.
        names: All objects of these that a reader needs.
        sizes: The bytes of each shard of these.
    """

    shared: SharedDataset
    objects: SharedObjects
    versions: Mapping[str, _Version]
    names: frozenset[str]
    sizes: Mapping[str, int]

    @property
    def writer(self) -> str:
        """The id of the node that writes it."""
        return self.objects.writer

    def has_snapshot(self, snapshot: str) -> bool:
        """Return whether a snapshot is one of the versions that are kept."""
        return any(version.snapshot == snapshot for version in self.versions.values())


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
        self.versions.note(dataset, known.shared.version)

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

        A node of an earlier version names no dataset: it gets the objects of those that this node writes.
        """
        if dataset:
            known = self._datasets.get(dataset)
            chosen = [] if known is None else [known]
        else:
            chosen = [known for known in self if known.writer == self._node]
        return any(
            name in known.names
            and self._is_shared_with(peer, known)
            and self._held.has(known.objects, name)
            for known in chosen
        )

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
        return KnownDataset(shared, nothing, {}, frozenset(), {})
    if shared.encrypted:
        return _read_ciphertext(catalog, shared, writer)
    info = catalog.get(shared.id)
    read = {} if before is None else before.versions
    versions: dict[str, _Version] = {}
    for stored in catalog.snapshots(shared.id, limit=VERSIONS_KEPT):
        manifest, _ = catalog.adopter.manifest_of(info, stored.snapshot.id)
        versions[manifest] = read.get(manifest) or _read_version(
            catalog, shared.id, stored.snapshot.id, manifest
        )
    if before is not None and before.shared.manifest == shared.manifest:
        replicas = before.objects.objects
    else:
        replicas = tuple(
            Replica(shard.object, _placement_key(shard), shard.bytes)
            for shard in catalog.manifest(shared.id, shared.head).snapshot.shards
        )
    nodes = None if EVERYONE in shared.nodes else frozenset(shared.nodes)
    names: frozenset[str] = frozenset().union(*(each.names for each in versions.values()))
    sizes = {name: size for each in versions.values() for name, size in each.sizes.items()}
    objects = SharedObjects(shared.id, writer, shared.placement, nodes, replicas)
    return KnownDataset(shared, objects, versions, names, sizes)


def _read_ciphertext(catalog: Catalog, shared: SharedDataset, writer: str) -> KnownDataset:
    """Return what a ciphertext's manifest says; its writer has no row of it in its catalog."""
    manifest = catalog.adopter.read_whole(shared.manifest)
    replicas = tuple(Replica(s.object, s.object, s.bytes) for s in manifest.snapshot.shards)
    sizes = {each.object: each.bytes for each in replicas}
    names = frozenset((shared.manifest, *(each.object for each in manifest.lists), *sizes))
    nodes = None if EVERYONE in shared.nodes else frozenset(shared.nodes)
    objects = SharedObjects(shared.id, writer, shared.placement, nodes, replicas)
    # Without versions: no part of a query reads it.
    return KnownDataset(shared, objects, {}, names, sizes)


def _read_version(catalog: Catalog, dataset: str, snapshot: str, manifest: str) -> _Version:
    # Not the files that were ingested: they may have columns and rows that the dataset has not.
    lists = [each.object for each in catalog.stored_manifest(dataset, snapshot).lists]
    shards = catalog.manifest(dataset, snapshot).snapshot.shards
    sizes = {shard.object: shard.bytes for shard in shards}
    return _Version(snapshot, frozenset((manifest, *lists, *sizes)), sizes)


def _placement_key(shard: ShardInfo) -> str:
    """Return what a shard is placed by: its bucket, so that equal buckets are on the same nodes."""
    for key, value in shard.partition.items():
        if key.startswith("bucket("):
            buckets = key.removeprefix("bucket(").partition(",")[0]
            return f"bucket {buckets}/{value}"
    return shard.object
