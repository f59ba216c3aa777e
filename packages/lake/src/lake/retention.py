"""Who may delete objects: nobody but this module, and only what no snapshot and no reader needs.

Readers lease the objects they read. An object that is no longer referenced while leased is
doomed, and goes when its last lease ends. What a crash left without reference goes at the start.

While a manifest cannot be read nobody knows which objects it references, so nothing is deleted: what
would have been is withheld, and goes when the damaged dataset has been deleted or can be read again.
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
        self._withheld: set[str] = set()

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
            self._forget(used | self._withheld)
            return info

    def sweep(self) -> list[str]:
        """Delete all objects without reference or lease; returns their ids.

        For the start of a node, before anything is ingested: what an ingest has stored and not yet
        committed is protected by its lease, its manifest is not.
        """
        with self._lock:
            return self._forget(set(self._objects))

    def retry_withheld(self) -> list[str]:
        """Delete what was withheld, if every manifest can be read by now; returns the ids."""
        with self._lock:
            return self._forget(set(self._withheld))

    @property
    def withheld(self) -> int:
        """How many objects stay because some manifest, which may reference them, is damaged."""
        with self._lock:
            return len(self._withheld)

    def _forget(self, candidates: set[str]) -> list[str]:
        if not candidates:
            return []
        gone = {name for name in candidates if not self._catalog.references(name)}
        leased = {name for name in gone if self._leases[name] > 0}
        self._doomed = (self._doomed | leased) - (candidates - leased)
        unused = gone - leased
        self._withheld -= candidates
        if not self._catalog.references_known:
            self._withheld |= unused
            return []
        deleted = sorted(unused)
        for name in deleted:
            self._objects.delete(name)
        return deleted
