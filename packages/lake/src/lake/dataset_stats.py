"""How much each dataset of a lake stores, and how much of it is reclaimable."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lake.compaction import small_runs
from sennit_core.errors import Corrupt
from sennit_core.records import DatasetInfo, Record

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["DatasetStats", "dataset_stats"]


@dataclass(frozen=True, slots=True)
class DatasetStats(Record):
    """What one dataset stores.

    Args:
        id: The dataset's id.
        name: Its name.
        rows: The rows of its newest version.
        bytes: The bytes of that version's shards.
        shards: Their number.
        small_shards: Those of them that `compact` would write anew.
        versions: The number of its snapshots.
        reclaimable_bytes: The bytes that only versions without a tag use: what `expire` gives back, if
            no other dataset has the same content.
        damaged: What is damaged; None if nothing is known to be.
    """

    id: str
    name: str
    rows: int
    bytes: int
    shards: int
    small_shards: int
    versions: int
    reclaimable_bytes: int
    damaged: str | None = None


def dataset_stats(lake: Lake, dataset: str | None = None) -> list[DatasetStats]:
    """Return what each dataset stores, or one; reads the manifests of all their versions.

    Args:
        lake: The lake.
        dataset: Id or name; None for all.

    Raises:
        NotFound: There is no such dataset.
    """
    chosen = lake.catalog.list() if dataset is None else [lake.catalog.get(dataset)]
    return [_stats_of(lake, info) for info in chosen]


def _stats_of(lake: Lake, info: DatasetInfo) -> DatasetStats:
    small = versions = spare = 0
    damage: object = info.damaged
    try:
        if info.head is not None:
            shards = lake.catalog.manifest(info.id).snapshot.shards
            small = sum(map(len, small_runs(shards)))
            # Known after a restart too, unlike the findings of a scrub.
            missing = sum(not lake.objects.place(each.object).exists() for each in shards)
            if missing:
                damage = damage or f"{missing:,} shards are missing, or damaged and in quarantine"
            versions, spare = _history_of(lake, info)
    except Corrupt as error:  # the others are still to be listed
        damage = damage or str(error)
    return DatasetStats(
        info.id, info.name, info.rows, info.bytes, info.shards, small, versions, spare,
        None if damage is None else str(damage),
    )  # fmt: skip


def _history_of(lake: Lake, info: DatasetInfo) -> tuple[int, int]:
    """Return the number of versions, and the bytes that only those without a tag use."""
    kept = {info.head, *lake.catalog.tags(info.id).values()}
    needed: set[str] = set()
    old: set[str] = set()
    snapshots = [each.snapshot.id for each in lake.catalog.snapshots(info.id)]
    for snapshot in snapshots:
        (needed if snapshot in kept else old).update(lake.catalog.objects_of(info.id, snapshot))
    size = 0
    for name in old - needed:
        with suppress(FileNotFoundError):
            size += lake.objects.place(name).stat().st_size
    return len(snapshots), size
