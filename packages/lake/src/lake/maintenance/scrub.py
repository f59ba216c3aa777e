"""Read all stored data from disk, report damage, and move damaged objects aside.

Order: a dataset's catalog row, its manifests, then the shards and sources of all its snapshots, each
object once, even if several snapshots share it. Damage is recorded in the catalog, so lists show it
and queries do not read damaged shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lake.catalog.catalog import Catalog
from lake.catalog.snapshots import Manifest
from lake.errors import damaged_dataset, damaged_shard
from lake.maintenance.retention import Retention
from lake.objects.store import ObjectStore
from lake.objects.verification import Damage, examine_object
from sennit_core.errors import Corrupt, Unsupported
from sennit_core.scrub_reports import Finding, ScrubReport

__all__ = ["Finding", "Scrub", "ScrubReport", "refuse_repair"]


@dataclass(frozen=True, slots=True)
class _Item:
    """An object to read, and the dataset that needs it."""

    object: str
    bytes: int
    dataset_id: str
    dataset: str
    describe: Callable[[Damage], Corrupt]


class Scrub:
    """One pass over one dataset or all.

    Args:
        catalog: The datasets.
        objects: The object store.
        retention: Leases the objects while they are read.
        check: Called between pieces of a file; raises to stop.
    """

    def __init__(
        self,
        catalog: Catalog,
        objects: ObjectStore,
        retention: Retention,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._objects = objects
        self._retention = retention
        self._check = check
        self._findings: list[Finding] = []
        self._damaged: dict[str, Corrupt] = {}  # the first finding of each dataset, by id
        # The result for each object that was read; snapshots share objects, and each is read once.
        self._seen: dict[str, Damage | None] = {}
        self._read_objects = 0
        self._bytes_done = 0
        self.cursor = ""  # the last object that was read
        self.damaged_objects = 0

    def run(self, dataset: str | None = None, *, after: str = "") -> Iterator[ScrubReport]:
        """Read all data, or one dataset's; yield a report after each object and at the end.

        Args:
            dataset: Id or name; None for every dataset.
            after: Skip objects up to this id, which an interrupted scrub has read (its `cursor`).

        Raises:
            NotFound: There is no such dataset.
            Corrupt: The catalog cannot be read at all.
        """
        # Cached rows and manifests may have been read before they were damaged.
        self._catalog.reload()
        if dataset is None and self._catalog.problem is not None:
            self._findings.append(Finding("", "", str(self._catalog.problem)))
        ids = self._chosen(dataset)
        items = [item for dataset_id in ids for item in self._examine(dataset_id)]
        # In the order of their ids, which is the same after a restart.
        items = sorted((item for item in items if item.object > after), key=lambda i: i.object)
        self.cursor = after
        sizes = {item.object: item.bytes for item in items}
        total = sum(sizes.values())
        for item in items:
            is_fresh = self._read(item)
            self.cursor = item.object
            if is_fresh:
                yield self._report(len(ids), total)
        for dataset_id in ids:
            # Half a scrub cannot tell that a dataset is intact.
            if not after or dataset_id in self._damaged:
                self._catalog.note_dataset(dataset_id, self._damaged.get(dataset_id))
        # Manifests that were unreadable may be read again, or their dataset was deleted.
        self._retention.retry_withheld()
        yield self._report(len(ids), total, done=True)

    def _chosen(self, dataset: str | None) -> Sequence[str]:
        if dataset is None:
            return self._catalog.ids()
        found = self._catalog.find_id(dataset)
        if found is None:
            raise self._catalog.not_found(dataset)
        return [found]

    def _examine(self, dataset_id: str) -> Iterator[_Item]:
        """Check rows and manifests; yield the objects that they name."""
        self._check()
        name = self._catalog.name(dataset_id)
        damage, manifests, unread = self._catalog.examine(dataset_id)
        for problem in damage:
            self._found(dataset_id, name, problem)
        if self._is_remote(dataset_id):  # other nodes have it
            for part in unread:
                yield self._metadata_item(part, dataset_id, name)
        for manifest_id, manifest in manifests.items():
            for part in (manifest_id, *(part for each in manifest.lists for part in each.objects)):
                yield self._manifest_item(part, manifest, name)
        for manifest in manifests.values():
            yield from self._shard_items(manifest, name)

    def _metadata_item(self, part: str, dataset_id: str, name: str) -> _Item:
        def describe(damage: Damage) -> Corrupt:
            found = f"{damage.part}: {damage.found}"
            return damaged_dataset(
                name, f"manifest or list {part}", found, expected=damage.expected
            )

        return _Item(part, self._size(part), dataset_id, name, describe)

    def _manifest_item(self, manifest_id: str, manifest: Manifest, name: str) -> _Item:
        what = f"the manifest of snapshot {manifest.snapshot.id}"

        def describe(damage: Damage) -> Corrupt:
            found = f"{damage.part}: {damage.found}"
            return damaged_dataset(name, what, found, expected=damage.expected)

        size = self._size(manifest_id)
        return _Item(manifest_id, size, manifest.snapshot.dataset, name, describe)

    def _shard_items(self, manifest: Manifest, name: str) -> Iterator[_Item]:
        owner = manifest.snapshot.dataset
        is_remote = self._is_remote(owner)
        for index, shard in enumerate(manifest.snapshot.shards):

            def describe_shard(
                damage: Damage, index: int = index, id_: str = shard.object
            ) -> Corrupt:
                return damaged_shard(name, index, id_, damage.part, damage.expected, damage.found)

            if is_remote and shard.object not in self._objects:
                continue  # other nodes hold it
            yield _Item(shard.object, self._size(shard.object), owner, name, describe_shard)
            source = shard.source_object
            if source is None:
                continue

            def describe_source(damage: Damage, id_: str = source) -> Corrupt:
                found = f"{damage.part}: {damage.found}"
                return damaged_dataset(name, f"source {id_}", found, expected=damage.expected)

            yield _Item(source, self._size(source), owner, name, describe_source)

    def _is_remote(self, dataset_id: str) -> bool:
        """Return whether another node writes a dataset; of a damaged row that is not known."""
        try:
            info = self._catalog.find_known(dataset_id)
        except Corrupt:
            return False
        return info is not None and info.node is not None

    def _read(self, item: _Item) -> bool:
        """Verify an object; return False if it was verified before."""
        fresh = item.object not in self._seen
        if fresh:
            # A deletion during the read would look like damage.
            with self._retention.lease((item.object,)):
                self._seen[item.object] = self._verify(item.object)
            self._read_objects += 1
            self._bytes_done += item.bytes
        damage = self._seen[item.object]
        if damage is not None and not self._catalog.references(item.object):
            return fresh  # its dataset was deleted in the meantime, and the object with it
        problem = None if damage is None else item.describe(damage)
        if fresh:
            self._catalog.note_object(item.object, problem)
            if damage is not None and damage.is_content and item.object in self._objects:
                self._catalog.note_object(item.object, None)  # it came back before it was noted
        if problem is not None:
            self._found(item.dataset_id, item.dataset, problem)
        return fresh

    def _verify(self, name: str) -> Damage | None:
        damage = examine_object(self._objects, name, self._check)
        if damage is not None:
            self.damaged_objects += 1
        return damage

    def _found(self, dataset_id: str, name: str, problem: Corrupt) -> None:
        finding = Finding(name, dataset_id, str(problem))
        if finding not in self._findings:
            self._findings.append(finding)
            self._damaged.setdefault(dataset_id, problem)

    def _report(self, datasets: int, total: int, *, done: bool = False) -> ScrubReport:
        findings = tuple(self._findings)
        aside = len(self._objects.quarantined())
        return ScrubReport(
            datasets, self._read_objects, self._bytes_done, total, findings, done, aside
        )

    def _size(self, name: str) -> int:
        try:
            return self._objects.place(name).stat().st_size
        except OSError:
            return 0  # the read will report the error


def refuse_repair(dataset: str | None) -> Unsupported:
    """Return the error for a repair: there are no copies to repair from."""
    what = "the datasets" if dataset is None else f'dataset "{dataset}"'
    return Unsupported(
        f"cannot repair {what}: this node holds the only copy of each shard",
        hint="load the data again (`platform put FILE --name NAME --mode replace`) or restore the "
        "data folder from a backup; repair works from copies on other nodes, which do not exist yet",
    )
