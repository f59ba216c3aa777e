"""The tags of datasets: names for snapshots, in one row for each dataset."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from lake.catalog.adoption import check_own
from lake.catalog.checked_snapshots import CheckedSnapshots
from lake.catalog.history import check_tag
from lake.catalog.tables import CatalogTables, Tag, Tags
from lake.errors import damaged_dataset
from sennit_core.errors import Corrupt, NotFound, nearest
from sennit_core.records import DatasetInfo

if TYPE_CHECKING:
    from elkyn.records import Change

__all__ = ["DatasetTags"]


class DatasetTags:
    """Reads and writes tags; the caller of `set` holds the catalog's lock.

    Args:
        rows: The catalog's tables.
        snapshots: Notes damage.
    """

    def __init__(self, rows: CatalogTables, snapshots: CheckedSnapshots) -> None:
        self._rows = rows
        self._snapshots = snapshots

    def of(self, info: DatasetInfo) -> dict[str, str]:
        """Return the ids of the snapshots of a dataset that have a tag, by tag.

        Raises:
            Corrupt: The row is damaged.
        """
        try:
            row = self._rows.tags.get(info.id)
        except Corrupt as error:
            damage = damaged_dataset(info.name, "the row of its tags", str(error))
            raise self._snapshots.noted(info.id, damage) from error
        return {} if row is None else {tag.name: tag.snapshot for tag in row.tags}

    def set(self, info: DatasetInfo, name: str, snapshot: str | None) -> None:
        """Give a snapshot a tag, which another one of the dataset may have had.

        Args:
            info: The dataset.
            name: The tag.
            snapshot: Id of a snapshot; None removes the tag.

        Raises:
            NotFound: There is no such snapshot or tag.
            UsageError: The name is not one, or there are too many tags.
            Denied: Another node writes the dataset.
        """
        check_own(info)
        tags = self.of(info)
        if snapshot is None:
            if tags.pop(name, None) is None:
                raise NotFound(f"tag of {info.name!r}", name, suggestion=nearest(name, tags))
        else:
            check_tag(name, tags)
            if snapshot not in self._rows.snapshots(info.id):
                raise NotFound(f"snapshot of {info.name!r}", snapshot, suggestion=None)
            tags[name] = snapshot
        self._rows.write(self._change(info, tags))

    def without(self, info: DatasetInfo, snapshots: Container[str]) -> Sequence[Change]:
        """Return what removes the tags of some snapshots; a damaged row goes, as its tags are lost."""
        try:
            tags = self.of(info)
        except Corrupt:
            return [self._rows.tags.change(info.id, None)]
        left = {tag: snapshot for tag, snapshot in tags.items() if snapshot not in snapshots}
        return [] if left == tags else [self._change(info, left)]

    def _change(self, info: DatasetInfo, tags: Mapping[str, str]) -> Change:
        row = Tags(tuple(Tag(*each) for each in sorted(tags.items())))
        return self._rows.tags.change(info.id, row if tags else None)
