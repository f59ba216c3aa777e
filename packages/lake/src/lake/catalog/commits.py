"""What a commit changes of a dataset."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lake.catalog.checked_snapshots import CheckedSnapshots
from lake.catalog.snapshots import AnyManifest, Manifest, StoredManifest
from sennit_core.records import DatasetInfo

__all__ = ["Commit", "committed_dataset", "numbered", "parent_of"]


@dataclass(frozen=True, slots=True)
class Commit:
    """A snapshot to become the head of a dataset.

    Args:
        dataset: Id, name, owner and settings.
        manifest: The snapshot, whose shards are stored.
        expected_head: The head that it was derived from; None for a new dataset.
    """

    dataset: DatasetInfo
    manifest: AnyManifest
    expected_head: str | None


def committed_dataset(dataset: DatasetInfo, manifest: AnyManifest) -> DatasetInfo:
    """Return the row of a dataset whose head is the manifest's snapshot."""
    snapshot = manifest.snapshot
    return replace(
        dataset,
        schema=snapshot.schema,
        head=snapshot.id,
        rows=manifest.rows,
        bytes=manifest.bytes,
        shards=manifest.shards,
        damaged=None,
    )


def numbered(
    manifest: AnyManifest, dataset: DatasetInfo | None, snapshots: CheckedSnapshots
) -> AnyManifest:
    """Return the manifest with its version, and a time that is not before its parent's.

    The clock may have been set back; times that only grow are in the order of the versions.
    """
    parent = None
    if dataset is not None and dataset.head is not None:
        parent = snapshots.row(dataset.id, dataset.name, dataset.head)
    version, created_at = 1, manifest.created_at
    if dataset is not None and parent is not None:
        # Earlier versions of Sennit did not number snapshots.
        number = parent.version or len(snapshots.rows(dataset.id, dataset.name))
        version, created_at = number + 1, max(created_at, parent.created_at)
    snapshot = replace(manifest.snapshot, version=version)
    return replace(manifest, snapshot=snapshot, created_at=created_at)


def parent_of(
    manifest: AnyManifest, dataset: DatasetInfo | None, snapshots: CheckedSnapshots
) -> Manifest | None:
    """Return the head of a dataset, whose lists of shards a new snapshot may share."""
    if dataset is None or dataset.head is None or isinstance(manifest, StoredManifest):
        return None  # a stored one names the lists itself
    if not manifest.snapshot.shards:
        return None
    row = snapshots.row(dataset.id, dataset.name, dataset.head)
    return None if row is None else snapshots.whole(dataset, dataset.head, row)
