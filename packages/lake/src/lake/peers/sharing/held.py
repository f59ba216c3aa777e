"""Which objects of shared datasets this node has, and may send to others.

An object is named by the hash of its content, so a node may publish a manifest that lists an object of
another dataset, a private one of this node perhaps, of which it knows the hash alone. So an object
counts for a dataset that another node writes only once a node has sent it as one of that dataset:

    writer has it ──▶ sends it for the dataset ──▶ node has it for the dataset ──▶ sends it …

The first of such a chain is the writer itself, so it leads to no object that the writer did not
have. Equal objects of two datasets are one file here, and each dataset's copy is fetched once for this proof.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import Table, write_changes
from lake.objects.store import ObjectStore
from lake.peers.copies.replication import SharedObjects
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["HeldObjects"]

_PATH = "/peers/copies"
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class _Received(Record):
    """A row of an object that was received: when, in Unix seconds."""

    at: float


class HeldObjects:
    """The objects of one node. Methods are for any thread.

    Args:
        node: The node's id.
        objects: The store.
        tree: The namespace `sys`: `/peers/copies/{dataset}/{object}` for what was received.
        wall: Unix seconds.
    """

    def __init__(
        self,
        node: str,
        objects: ObjectStore,
        tree: ElkynStore,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._objects = objects
        self._tree = tree
        self._wall = wall
        self._received = {dataset: set(self._rows(dataset).ids()) for dataset in tree.keys(_PATH)}
        # What is in the store: as `refresh` has read it, and what this process has changed since then.
        self._lock = threading.Lock()
        self._here: set[str] = set()
        self._changed: set[str] = set()
        objects.on_changed = self._note

    def is_here(self, name: str) -> bool:
        """Return whether an object is in the store."""
        return name in self._here

    def has(self, dataset: SharedObjects, name: str) -> bool:
        """Return whether this node has an object as one of a dataset."""
        if name not in self._here:
            return False
        return dataset.writer == self._node or self.was_received(dataset.id, name)

    def was_received(self, dataset: str, name: str) -> bool:
        """Return whether another node has sent an object as one of a dataset."""
        return name in self._received.get(dataset, ())

    def refresh(self) -> None:
        """Read the store's folders, as something else may have removed files from them."""
        with self._lock:
            self._changed.clear()
        found = set(self._objects)
        with self._lock:
            self._here = found
            for name in self._changed:
                self._set(name)

    def receive(self, dataset: str, *names: str) -> None:
        """Note durably that objects were sent as those of a dataset."""
        rows, received = self._rows(dataset), _Received(self._wall())
        for start in range(0, len(names), _ROWS_AT_ONCE):
            part = names[start : start + _ROWS_AT_ONCE]
            write_changes(self._tree, *(rows.change(name, received) for name in part))
            self._received.setdefault(dataset, set()).update(part)

    def note_own(self, dataset: str, names: Collection[str]) -> None:
        """Note durably that this node has objects as those of a dataset that it wrote until now."""
        here = [name for name in names if self.is_here(name)]
        rows, row = self._rows(dataset), _Received(self._wall())
        write_changes(self._tree, *(rows.change(name, row) for name in here))
        self._received.setdefault(dataset, set()).update(here)

    def keep(self, dataset: str, names: Collection[str]) -> None:
        """Forget the objects of a dataset that no version of it has any more."""
        gone = self._received.get(dataset, set()).difference(names)
        if gone:
            rows = self._rows(dataset)
            write_changes(self._tree, *(rows.change(name, None) for name in gone))
            self._received[dataset] -= gone

    def forget(self, dataset: str) -> None:
        """Forget what was received of a dataset that is gone."""
        if self._received.pop(dataset, None) is not None:
            self._tree.delete(f"{_PATH}/{dataset}")

    def clear(self) -> None:
        """Forget what was received of all datasets."""
        self._received.clear()
        self._tree.delete(_PATH)

    def _rows(self, dataset: str) -> Table[_Received]:
        return Table(self._tree, f"{_PATH}/{dataset}", _Received)

    def _note(self, name: str) -> None:
        with self._lock:
            self._changed.add(name)
            self._set(name)

    def _set(self, name: str) -> None:
        if name in self._objects:
            self._here.add(name)
        else:
            self._here.discard(name)
