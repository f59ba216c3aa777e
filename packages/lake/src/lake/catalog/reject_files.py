"""The reject files of snapshots: the rows of their source that an ingest left out.

They are no part of a snapshot: nothing reads them but their user, so they are plain files and not
objects. A file is stored before its snapshot is committed; `sweep` removes what a crash left.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lake.catalog.catalog import Catalog
from lake.links.links import may_exist
from lake.objects.durable import fsync_folder, storage_errors
from sennit_core.errors import NotFound
from sennit_core.ids import is_id
from sennit_core.private_files import make_private_folder
from sennit_core.records import DatasetInfo

__all__ = ["RejectFiles"]


class RejectFiles:
    """The reject files of one lake.

    Args:
        folder: Where they are stored, one folder for each dataset; created if missing.
        catalog: Knows which snapshots are committed.
    """

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self._folder = folder
        self._catalog = catalog
        with storage_errors(folder, 0):
            make_private_folder(folder)

    def keep(self, dataset: str, snapshot: str, file: Path) -> None:
        """Move a new file to its place, durably."""
        target = self._place(dataset, snapshot)
        with storage_errors(target, 0):
            make_private_folder(target.parent)
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
            file.replace(target)
            fsync_folder(target.parent)
            fsync_folder(self._folder)

    def find(self, dataset: DatasetInfo, snapshot: str | None = None) -> Path:
        """Return the file of a snapshot, by default of the newest that has one.

        Raises:
            NotFound: No row was rejected.
        """
        # Snapshots of an ingest are named by their upload, and ids are ordered by time.
        files = sorted((self._folder / dataset.id).glob("*.jsonl"))
        found = [file for file in files if snapshot in (None, file.stem)]
        if not found:
            raise NotFound(
                "rejected rows of dataset", dataset.name, hint="all rows of its files fit"
            )
        return found[-1]

    def remove(self, dataset: str) -> None:
        """Remove all files of a dataset."""
        self._remove(self._folder / dataset, lambda _: False)

    def sweep(self) -> None:
        """Remove the files of snapshots that are not committed."""
        for folder in list(self._folder.iterdir()):
            self._remove(folder, partial(self._is_committed, folder.name))

    def _is_committed(self, dataset: str, snapshot: str) -> bool:
        known = may_exist(self._catalog, dataset)
        return known and self._catalog.has_snapshot(dataset, snapshot)

    def _remove(self, folder: Path, is_kept: Callable[[str], bool]) -> None:
        if not is_id(folder.name) or not folder.is_dir():
            return
        for path in list(folder.iterdir()):
            if not is_kept(path.stem):
                path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()

    def _place(self, dataset: str, snapshot: str) -> Path:
        assert is_id(dataset)
        assert is_id(snapshot)
        return self._folder / dataset / f"{snapshot}.jsonl"
