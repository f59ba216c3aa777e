"""The links of datasets to files in place, by dataset.

A dataset that is linked has no snapshot yet: its rows are those of the file, which queries read where
it is. Each link is one small file in `lake/links/`, not a row of the realtime tree, because readers of
the tree need not know where the owner's files are.

What a crash leaves: the link is written before the dataset's row and removed after it, so a dataset
without a snapshot always has its link, and `sweep` removes the links that no such dataset has.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lake.catalog.catalog import Catalog
from lake.errors import damaged_dataset
from lake.links.local_files import LocalFile
from lake.objects.durable import fsync_folder, storage_errors, sweep_incoming, write_whole
from sennit_core.errors import Corrupt
from sennit_core.hashing import canonical_json
from sennit_core.ids import is_id
from sennit_core.private_files import make_private_folder

__all__ = ["Link", "Links", "may_exist"]


@dataclass(frozen=True, slots=True)
class Link:
    """A dataset's file.

    Args:
        dataset: Id of the dataset.
        file: The file, as it was when it was linked.
        reader: How it is read: `lake.sql.linked_files` writes and reads this.
        upload: Id of the upload that ingests the file; None if it is only linked.
    """

    dataset: str
    file: LocalFile
    reader: dict[str, Any]
    upload: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form that is stored."""
        return {
            "dataset": self.dataset,
            "file": self.file.to_json(),
            "reader": self.reader,
            "upload": self.upload,
        }


class Links:
    """The links of one lake.

    Args:
        folder: Where they are stored; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        # What is stored, read once at the start: only this process writes the folder.
        self._links: dict[str, Link | None] = {}
        with storage_errors(folder, 0):
            make_private_folder(folder)
        sweep_incoming(folder)
        for path in folder.iterdir():
            if is_id(path.stem):
                self._links[path.stem] = _read(path)

    def get(self, dataset: str, name: str) -> Link | None:
        """Return a dataset's link, or None.

        Args:
            dataset: Its id.
            name: Its name, for the error.

        Raises:
            Corrupt: The link is damaged.
        """
        if dataset in self._links and self._links[dataset] is None:
            raise damaged_dataset(name, "its link to a file", "not a link")
        return self._links.get(dataset)

    def of_uploads(self) -> dict[str, str]:
        """Return the uploads that ingest linked files: dataset ids by upload ids."""
        with self._lock:
            return {link.upload: key for key, link in self._links.items() if link and link.upload}

    def add(self, link: Link) -> None:
        """Store a link."""
        write_whole(self._place(link.dataset), canonical_json(link.to_json()))
        with self._lock:
            self._links[link.dataset] = link

    def remove(self, dataset: str) -> None:
        """Remove a dataset's link; no effect if it has none."""
        with self._lock:
            if dataset in self._links:
                self._place(dataset).unlink(missing_ok=True)
                fsync_folder(self._folder)
                del self._links[dataset]

    def sweep(self, is_needed: Callable[[str], bool]) -> None:
        """Remove the links of datasets that are not needed."""
        for dataset in [key for key in self._links if not is_needed(key)]:
            self.remove(dataset)

    def _place(self, dataset: str) -> Path:
        assert is_id(dataset)
        return self._folder / f"{dataset}.json"


def may_exist(catalog: Catalog, dataset_id: str) -> bool:
    """Return whether there is a dataset, or its row may be one that cannot be read."""
    try:
        return catalog.find(dataset_id) is not None
    except Corrupt:
        return True  # nothing is removed while rows cannot be read


def _read(path: Path) -> Link | None:
    """Return a stored link; None if it is damaged."""
    try:
        found = json.loads(path.read_bytes())
        file = LocalFile.from_json(found["file"])
        return Link(found["dataset"], file, dict(found["reader"]), found["upload"])
    except (ValueError, TypeError, KeyError):
        return None
