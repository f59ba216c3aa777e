"""Who may delete objects: nobody but this module, and only what no snapshot and no reader needs.

Readers lease the objects they read. An object that is no longer referenced while leased is
doomed, and goes when its last lease ends. What a crash left without reference goes at the start.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lake._failpoints import reached
from lake.catalog import Catalog
from lake.objects import ObjectStore
from sennit_core.records import DatasetInfo

__all__ = ["Retention"]


class Retention:
    """Decides about the objects of one store.

    Args:
        objects: The store.
        catalog: What references its objects.
    """

    def __init__(self, objects: ObjectStore, catalog: Catalog) -> None:
        self._objects = objects
        self._catalog = catalog
        self._lock = threading.RLock()
        self._leases: Counter[str] = Counter()
        self._doomed: set[str] = set()

    @contextmanager
    def lease(self, objects: Iterable[str]) -> Iterator[None]:
        """Keep these objects, there already or to come, until the context is left."""
        held = self.acquire(objects)
        try:
            yield
        finally:
            self.release(held)

    def acquire(self, objects: Iterable[str]) -> frozenset[str]:
        """As `lease`, for holders that are no context; `release` gives it back."""
        held = frozenset(objects)
        with self._lock:
            self._leases.update(held)
        return held

    def release(self, held: frozenset[str]) -> None:
        """End a lease."""
        with self._lock:
            self._leases.subtract(held)
            free = {name for name in held if self._leases[name] <= 0}
            for name in free:
                del self._leases[name]
            self._forget(free & self._doomed)

    def delete_dataset(self, dataset: str) -> DatasetInfo:
        """Take a dataset out of the catalog at once, and its objects when nobody needs them."""
        with self._lock:
            info, used = self._catalog.remove(dataset)
            reached("delete-uncataloged")
            self._forget(used)
            return info

    def sweep(self) -> list[str]:
        """Delete all objects without reference or lease; returns their ids.

        For the start of a node, and for the end of an ingest that failed: at other times an
        ingest's own lease protects what it has not committed yet.
        """
        with self._lock:
            return self._forget(set(self._objects))

    def _forget(self, candidates: set[str]) -> list[str]:
        if not candidates:
            return []
        gone = candidates - self._catalog.referenced()
        leased = {name for name in gone if self._leases[name] > 0}
        self._doomed = (self._doomed | leased) - (candidates - leased)
        deleted = sorted(gone - leased)
        for name in deleted:
            self._objects.delete(name)
        return deleted
