"""Deletes objects that no snapshot references and no reader leases; no other module deletes them.

Readers lease the objects they read. An object that loses its last reference while leased is
doomed: it is deleted when its last lease ends. Unreferenced objects that a crash left are deleted
at startup.

While a manifest is unreadable its references are unknown, so nothing is deleted: unreferenced
objects are withheld until the damaged dataset has been deleted or can be read again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from lake._failpoints import reached
from lake.catalog import Catalog
from lake.objects import ObjectStore
from sennit_core.records import DatasetInfo

__all__ = ["Retention"]


class Retention:
    """Deletes the unused objects of one store.

    Args:
        objects: The store.
        catalog: Knows the references to its objects.
    """

    def __init__(self, objects: ObjectStore, catalog: Catalog) -> None:
        self._objects = objects
        self._catalog = catalog
        # Taken before the catalog's lock, never after it.
        self._lock = threading.RLock()
        # The number of leases of each leased object; no entry is 0.
        self._leases: Counter[str] = Counter()
        # Leased objects that lost their last reference; the last `release` examines them again.
        self._doomed: set[str] = set()
        # Objects without lease that only a snapshot with an unreadable manifest may reference.
        self._withheld: set[str] = set()

    @contextmanager
    def lease(self, objects: Iterable[str]) -> Iterator[None]:
        """Protect these objects, existing or not yet stored, until the context is left."""
        held = self.acquire(objects)
        try:
            yield
        finally:
            self.release(held)

    def acquire(self, objects: Iterable[str]) -> frozenset[str]:
        """As `lease`, without a context manager; end it with `release`."""
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

    def discard(self, objects: Iterable[str]) -> None:
        """Delete new objects that were not committed, if no snapshot or reader uses them."""
        with self._lock:
            self._forget({name for name in objects if name in self._objects})

    def delete_dataset(self, dataset: str) -> DatasetInfo:
        """Remove a dataset from the catalog now, and its objects when they are no longer in use."""
        with self._lock:
            # The rows go first, in one write. A crash after it leaves objects without a reference,
            # which the sweep at the start deletes; in the other order it would leave a dataset
            # without its data.
            info, used = self._catalog.remove(dataset)
            reached("delete-uncataloged")
            # The withheld ones too: the deleted dataset may have been the damaged one.
            self._forget(used | self._withheld)
            return info

    def expire(self, dataset: str, *, keep: int, before: float) -> Sequence[int]:
        """Remove old snapshots, and the objects that only they used; return their versions.

        Args:
            dataset: Id or name.
            keep: How many of the newest stay.
            before: Unix seconds; snapshots that were the head then or later stay.
        """
        with self._lock:
            versions, used = self._catalog.expire(dataset, keep=keep, before=before)
            reached("expire-uncataloged")
            self._forget(used)
            return versions

    def sweep(self) -> list[str]:
        """Delete all objects without reference or lease; return their ids.

        Call it only at startup, before any ingest: an ingest leases its shards before the commit,
        but not its manifest.
        """
        with self._lock:
            self._catalog.count_references()
            return self._forget(set(self._objects))

    def retry_withheld(self) -> list[str]:
        """Delete withheld objects if all manifests can be read now; return the ids."""
        with self._lock:
            return self._forget(set(self._withheld))

    @property
    def withheld(self) -> int:
        """The number of objects kept because a damaged manifest may reference them."""
        with self._lock:
            return len(self._withheld)

    @property
    def is_settled(self) -> bool:
        """Whether nobody leases an object, so that no commit, deletion or reader is under way."""
        with self._lock:
            return not self._leases and not self._withheld

    def _forget(self, candidates: set[str]) -> list[str]:
        """Delete the candidates that nothing uses; examine each anew, whatever it was before."""
        if not candidates:
            return []
        gone = {name for name in candidates if not self._catalog.references(name)}
        leased = {name for name in gone if self._leases[name] > 0}
        # What is referenced again by now (equal bytes were committed) is doomed no more.
        self._doomed = (self._doomed | leased) - (candidates - leased)
        unused = gone - leased
        self._withheld -= candidates
        # One unreadable manifest may name any of them: deleting what the readable ones do not name
        # would delete a dataset's shards because of one flipped byte.
        if not self._catalog.references_known:
            self._withheld |= unused
            return []
        deleted = sorted(unused)
        for name in deleted:
            self._objects.delete(name)
        return deleted
