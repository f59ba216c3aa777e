"""Import a bundle: its objects, and then the datasets in one step that makes them visible.

    read and verify head, list, sizes ──▶ lease all objects ──▶ manifests and lists ──▶ shards
        ──▶ names durable ──▶ seeded: noted as sent for the dataset, which is then adopted as always
                              copied: new datasets of this node, in one commit

Each object's bytes are read from the bundle and hashed, also if the object is here: a bundle may list the
id of a private object of this node, whose content its author does not have (design 0163). What is stored has
no reference until the last step, so that a failure, or the next start after a crash, removes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lake._failpoints import reached
from lake.bundles.format import Bundle, BundleDataset, BundleReport
from lake.catalog.catalog import check_dataset_name
from lake.catalog.commits import Commit
from lake.catalog.provenance import made_by
from lake.catalog.snapshots import METADATA_BYTES_MAX, AnyManifest, Manifest, StoredManifest
from sennit_core.errors import Cancelled, Conflict, Corrupt, Unsupported
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo, ShardInfo
from sennit_core.units import MIB

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["ImportRequest", "SeedTarget", "Seeder", "import_bundle"]

_REPORT_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What to import.

    Args:
        file: The bundle.
        passphrase: Decrypts it.
        owner: The owner of new datasets.
    """

    file: Path
    passphrase: str
    owner: str = ""

    def __repr__(self) -> str:
        return f"ImportRequest({str(self.file)!r})"  # not the passphrase


@dataclass(frozen=True, slots=True)
class SeedTarget:
    """A dataset that is shared with this node, as its writer publishes it now.

    Args:
        dataset: Its id.
        name: Its name, for errors.
        writer: The id of the node that writes it.
        version: The number of its newest version.
        manifests: The manifests that its readers may have.
        known: The objects of the versions that are here; none if it was not adopted yet.
    """

    dataset: str
    name: str
    writer: str
    version: int
    manifests: frozenset[str]
    known: frozenset[str]


class Seeder(Protocol):
    """The network, which the node need not be in; see `lake.peers.sharing.seeding`."""

    def is_other_member(self, node: str) -> bool:
        """Return whether a node is a member, and not this one."""
        ...

    def target(self, dataset: str, name: str) -> SeedTarget:
        """Return what is known here of a dataset.

        Raises:
            Denied: It is not shared with this node, or is restricted.
        """
        ...

    def check_room(self, size: int) -> None:
        """Refuse copies for which the node offers no room.

        Raises:
            StorageFull: It does not.
        """
        ...

    def receive(self, target: SeedTarget, names: Iterable[str]) -> None:
        """Note that objects came as those of a dataset; raises as `target`."""
        ...

    def await_adoption(self, targets: Iterable[SeedTarget]) -> Iterator[None]:
        """Wait until the newest versions are adopted; yield about each second.

        Raises:
            Unavailable: A newer version than the bundle's cannot be fetched from its writer.
        """
        ...


def import_bundle(
    lake: Lake,
    request: ImportRequest,
    seeder: Seeder,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[BundleReport]:
    """Import a bundle; yield the progress, and at the end the datasets.

    One of another member of the network adds copies of what is shared with this node; any other one
    makes datasets of this node, whose first version names the node that has exported them.

    Args:
        lake: The lake.
        request: What to import.
        seeder: The network.
        stopped: Asked between two pieces; True stops the work, which leaves nothing.

    Raises:
        BadInput: The file is not a bundle.
        Denied: The passphrase is another one, or a dataset is not shared with this node.
        Corrupt: The bundle is damaged, or contradicts itself.
        Conflict: A new dataset's name is in use.
        StorageFull: There is no room for it.
        Unsupported: New datasets are encrypted here.
    """
    with Bundle(request.file, request.passphrase) as bundle:
        if seeder.is_other_member(bundle.node):
            yield from _Seeding(lake, bundle, stopped, seeder).run()
        else:
            yield from _Copying(lake, bundle, stopped, request.owner).run()


class _Import(ABC):
    """Stores objects of a bundle; the base of the two ways to make them visible.

    Args:
        lake: The lake.
        bundle: The bundle.
        stopped: As of `import_bundle`.
    """

    seeded = False

    def __init__(self, lake: Lake, bundle: Bundle, stopped: Callable[[], bool]) -> None:
        self.lake = lake
        self.bundle = bundle
        self._stopped = stopped
        self._done = self._reported = 0
        self._read: set[str] = set()
        self.names = tuple(each.name for each in bundle.head.datasets)

    @abstractmethod
    def run(self) -> Iterator[BundleReport]:
        """Do all of it."""

    @abstractmethod
    def check_room(self, size: int) -> None:
        """Refuse so many new bytes of objects."""

    def report(self, phase: str, *, done: bool = False) -> BundleReport:
        """Return the progress."""
        bundle = self.bundle
        return BundleReport(
            phase, self._done, bundle.object_bytes, bundle.head.objects, self.names, bundle.node,
            seeded=self.seeded, done=done,
        )  # fmt: skip

    def admitted(self) -> ExitStack:
        """Lease all objects and reserve room for those that are not here.

        What has no reference is deleted when the stack is closed.
        """
        lake, stack = self.lake, ExitStack()
        with stack:
            names = list(self.bundle)
            # Called last, as a discard spares what is leased.
            stack.callback(lake.retention.discard, names)
            stack.enter_context(lake.retention.lease(names))
            new = [name for name in names if name not in lake.objects]
            size = sum(map(self.bundle.size_of, new))
            self.check_room(size)
            stack.enter_context(lake.space.admit("the bundle", size, len(new)))
            lake.space.check_disk("the bundle", size)
            return stack.pop_all()

    def metadata(self, dataset: BundleDataset) -> Iterator[BundleReport]:
        """Store a dataset's manifest and its lists."""
        yield from self.store(dataset.manifest, METADATA_BYTES_MAX)
        for each in self.manifest(dataset).lists:
            for name in each.objects:
                yield from self.store(name, METADATA_BYTES_MAX)

    def manifest(self, dataset: BundleDataset) -> StoredManifest:
        """Return a stored manifest.

        Raises:
            Corrupt: It is not the one that the head describes.
        """
        stored = self.lake.catalog.adopter.read_manifest(dataset.manifest)
        found = (stored.snapshot.dataset, stored.snapshot.id, stored.snapshot.version)
        if found != (dataset.id, dataset.snapshot, dataset.version):
            raise _contradicts(dataset, "its manifest is of another snapshot")
        return stored

    def shards(self, dataset: BundleDataset, stored: StoredManifest) -> list[ShardInfo]:
        """Return the shards of a dataset, all of which the bundle has.

        Raises:
            Corrupt: A list is not one, or the bundle lacks a shard.
        """
        found: list[ShardInfo] = []
        for each in stored.lists:
            found += self.lake.catalog.adopter.shards_of(each)
        found += stored.snapshot.shards
        for shard in found:
            if self.bundle.size_of(shard.object) != shard.bytes:
                raise _contradicts(dataset, f"object {shard.object} has another size")
        return found

    def store(self, name: str, bytes_max: int | None = None) -> Iterator[BundleReport]:
        """Read an object from the bundle, verify it, and store it if it is not here."""
        if name in self._read:
            return
        size, objects = self.bundle.size_of(name), self.lake.objects
        if bytes_max is not None and size > bytes_max:
            raise Corrupt(f"object {name} of the bundle", f"at most {bytes_max} bytes", str(size))
        if name in objects:
            for piece in self.bundle.verified(name):
                yield from self._count(piece)
        else:
            self.lake.space.check_disk("the bundle", size)
            with objects.open_writer() as writer:
                for piece in self.bundle.pieces(name):
                    writer.write(piece)
                    yield from self._count(piece)
                writer.commit(name)
        self._read.add(name)
        reached("bundle-object")

    def _count(self, piece: bytes) -> Iterator[BundleReport]:
        if self._stopped():
            raise Cancelled("the import of a bundle")
        self._done += len(piece)
        if self._done - self._reported >= _REPORT_BYTES:
            self._reported = self._done
            yield self.report("read")


class _Copying(_Import):
    """Makes new datasets of what is in a bundle of a node that this one does not know.

    Args:
        lake: As of `_Import`.
        bundle: As of `_Import`.
        stopped: As of `_Import`.
        owner: The owner of the new datasets.
    """

    def __init__(self, lake: Lake, bundle: Bundle, stopped: Callable[[], bool], owner: str) -> None:
        super().__init__(lake, bundle, stopped)
        self._owner = owner

    def run(self) -> Iterator[BundleReport]:
        """Store the objects, then commit all datasets at once."""
        self._check_names()
        with self.admitted():
            yield self.report("read")
            commits = []
            for dataset in self.bundle.head.datasets:
                yield from self.metadata(dataset)
                stored = self.manifest(dataset)
                shards = self.shards(dataset, stored)
                for shard in shards:
                    yield from self.store(shard.object)
                commits.append(self._commit(dataset, stored, shards))
            if len(self._read) != self.bundle.head.objects:
                count = self.bundle.head.objects - len(self._read)
                raise Corrupt("the bundle", "objects of its datasets", f"{count:,} others")
            self.lake.objects.sync_names()
            reached("bundle-stored")
            self.lake.catalog.commit_all(commits)
        yield self.report("adopt", done=True)

    def check_room(self, size: int) -> None:
        """Refuse what exceeds the owner's quota."""
        self.lake.quotas.check_room(self._owner, "the bundle", size)

    def _check_names(self) -> None:
        if self.lake.vault.encrypts_new:
            raise Unsupported(
                "importing a bundle as new datasets where new ones are encrypted",
                hint="set security.encrypt to false for the import, then copy the datasets",
            )
        names = [check_dataset_name(name).casefold() for name in self.names]
        if len(set(names)) < len(names):
            raise Conflict("two datasets of the bundle have the same name")
        for name in self.names:
            self.lake.catalog.check_free(name)

    def _commit(
        self, dataset: BundleDataset, stored: StoredManifest, shards: list[ShardInfo]
    ) -> Commit:
        lake, head, now = self.lake, stored.snapshot, self.lake.clock.now()
        if not len(head.schema):
            raise _contradicts(dataset, "it has no columns")
        new = new_id(lake.clock)
        maker = f"{self.bundle.head.name} ({self.bundle.node})".lstrip()
        text = f"import of {dataset.name} version {dataset.version} of node {maker}"
        # Its inputs are of another node, of whose datasets nothing can be looked up here.
        state = replace(
            head, id=new_id(lake.clock), parent=None, dataset=new, author=self._owner,
            query=text, inputs=(), signature=None,
        )  # fmt: skip
        manifest: AnyManifest
        if any(shard.source_object is not None for shard in shards):
            # The files that were ingested are not here.
            cut = (replace(s, source_object=None, byte_start=None, byte_end=None) for s in shards)
            state = replace(state, shards=tuple(cut))
            manifest = Manifest(state, now, None, dataset.name, (), made_by("sennit"))
        else:
            provenance = made_by("sennit")
            manifest = StoredManifest(state, stored.lists, now, None, dataset.name, provenance)
        return Commit(DatasetInfo(new, dataset.name, self._owner, head.schema), manifest, None)


class _Seeding(_Import):
    """Adds what is in a bundle to the copies of datasets that are shared with this node.

    Args:
        lake: As of `_Import`.
        bundle: As of `_Import`.
        stopped: As of `_Import`.
        seeder: The network.
    """

    seeded = True

    def __init__(
        self, lake: Lake, bundle: Bundle, stopped: Callable[[], bool], seeder: Seeder
    ) -> None:
        super().__init__(lake, bundle, stopped)
        self._seeder = seeder

    def run(self) -> Iterator[BundleReport]:
        """Store the objects that the datasets have, and let the network adopt them."""
        datasets = self.bundle.head.datasets
        targets = [self._seeder.target(each.id, each.name) for each in datasets]
        self.names = tuple(each.name for each in targets)
        with self.admitted():
            yield self.report("read")
            for dataset, target in zip(datasets, targets, strict=True):
                yield from self._seed(dataset, target)
            for _ in self._seeder.await_adoption(targets):
                if self._stopped():
                    raise Cancelled("the import of a bundle")
                yield self.report("adopt")
        yield self.report("adopt", done=True)

    def check_room(self, size: int) -> None:
        """Refuse what exceeds the room for copies."""
        self._seeder.check_room(size)

    def _seed(self, dataset: BundleDataset, target: SeedTarget) -> Iterator[BundleReport]:
        yield from self.metadata(dataset)
        stored = self.manifest(dataset)
        lists = (name for each in stored.lists for name in each.objects)
        shards = (shard.object for shard in self.shards(dataset, stored))
        # What the bundle has of this dataset: not what it has of another one, which the writer of this
        # one may have listed as its own without having it.
        names = dict.fromkeys((dataset.manifest, *lists, *shards))
        if dataset.manifest not in target.manifests:
            names = {name: None for name in names if name in target.known}
        if not names:
            raise Conflict(
                f"the bundle has no version of {dataset.name!r} that its writer publishes now",
                hint="export it again",
            )
        for name in names:
            yield from self.store(name)
        self.lake.objects.sync_names()
        reached("bundle-stored")
        self._seeder.receive(target, names)


def _contradicts(dataset: BundleDataset, problem: str) -> Corrupt:
    return Corrupt(f"dataset {dataset.name!r} of the bundle", found=problem, hint="export it again")
