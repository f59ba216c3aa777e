"""When each dataset was last used, and which ones the cleanup must not remove.

/accessed/{dataset}     AccessRow, at most one write in an hour for each dataset, without fsync
/kept/{dataset}         KeepRow
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import CheckedTable, Table
from sennit_core.clock import Clock
from sennit_core.errors import Corrupt, StorageFull
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["WRITTEN_SECONDS", "DatasetAccess"]

WRITTEN_SECONDS = 3600.0
"""After a crash, a dataset may seem to be unused since up to this time before its last use."""


@dataclass(frozen=True, slots=True)
class AccessRow(Record):
    """When a dataset was last used; Unix seconds."""

    used_at: float


@dataclass(frozen=True, slots=True)
class KeepRow(Record):
    """Who wants a dataset to stay, and since when, in Unix seconds."""

    user: str
    since: float


class DatasetAccess:
    """The last use of each dataset; thread-safe.

    Args:
        tree: The `sys` namespace.
        clock: Source of time.
    """

    def __init__(self, tree: ElkynStore, clock: Clock) -> None:
        self._rows = Table(tree, "/accessed", AccessRow)
        self._kept = CheckedTable(tree, "/kept", KeepRow)
        self._clock = clock
        self._lock = threading.Lock()
        self._used_at: dict[str, float] = {}  # those of this process
        self._written_at: dict[str, float] = {}

    def note(self, datasets: Iterable[str]) -> None:
        """Record that datasets are used now."""
        now = self._clock.now()
        for dataset in datasets:
            with self._lock:
                self._used_at[dataset] = now
                if now - self._written_at.get(dataset, 0.0) < WRITTEN_SECONDS:
                    continue
                self._written_at[dataset] = now
            with suppress(StorageFull):  # a query must not fail for it
                self._rows.put(dataset, AccessRow(now), ephemeral=True)

    def used_at(self, dataset: str) -> float:
        """Return when a dataset was last used.

        One whose use is not known counts as used now, which is recorded: after an update of Sennit
        nothing is removed for uses that no version has recorded.
        """
        with self._lock:
            known = self._used_at.get(dataset)
        if known is None:
            row = None
            with suppress(Corrupt):
                row = self._rows.get(dataset)
            if row is None:
                self.note([dataset])
                return self._clock.now()
            known = row.used_at
        return known

    def keep(self, dataset: str, user: str) -> None:
        """Keep a dataset from the cleanup until `release`."""
        self._kept.put(dataset, KeepRow(user, self._clock.now()))

    def release(self, dataset: str) -> bool:
        """Let the cleanup remove a dataset again; return whether it was kept."""
        was_kept = dataset in self._kept
        if was_kept:
            self._kept.remove(dataset)
        return was_kept

    def is_kept(self, dataset: str) -> bool:
        """Return whether a dataset is kept; a damaged row keeps it too."""
        return dataset in self._kept

    def forget(self, dataset: str) -> None:
        """Remove the rows of a deleted dataset."""
        with self._lock:
            self._used_at.pop(dataset, None)
            self._written_at.pop(dataset, None)
        if dataset in self._rows:
            self._rows.remove(dataset)
        self.release(dataset)
