"""Deletes objects that no snapshot references and no reader leases; no other module deletes them.

Readers lease the objects they read. An object that loses its last reference while leased is
doomed: it is deleted when its last lease ends. Unreferenced objects that a crash left are deleted
at startup.

    an unreferenced object stays while      until                    after a restart
    a reader leases it                      its last lease ends      deleted
    it is pinned                            its last pin is removed  pinned
    it is retired, for readers of files     its time has come, and   retired
    outside of this process                 `sweep_retired` runs

While a manifest is unreadable its references are unknown, so nothing is deleted: unreferenced
objects are withheld until the damaged dataset has been deleted or can be read again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from lake._failpoints import reached
from lake.catalog.catalog import Catalog
from lake.catalog.history import expired
from lake.catalog.tables import SnapshotRow
from lake.objects.retained import PinInfo, Retained
from lake.objects.store import ObjectStore
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Conflict, UsageError
from sennit_core.records import DatasetInfo

if TYPE_CHECKING:
    from elkyn import ElkynStore
    from elkyn.records import Change

__all__ = ["Retention"]

_REASON_MAX = 1000


class Retention:
    """Deletes the unused objects of one store.

    Args:
        objects: The store.
        catalog: Knows the references to its objects.
        tree: The `sys` namespace, for pins and retired objects.
        grace_seconds: How long `retire` keeps objects if its caller names no time.
        clock: Source of time.
    """

    def __init__(
        self,
        objects: ObjectStore,
        catalog: Catalog,
        tree: ElkynStore,
        *,
        grace_seconds: float = 0.0,
        clock: Clock = SYSTEM,
    ) -> None:
        self._retained = Retained(tree, clock)
        self._grace_seconds = grace_seconds
        self._clock = clock
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

    def pin(self, objects: Iterable[str], reason: str) -> PinInfo:
        """Keep objects, whatever happens to their datasets, until `unpin`.

        Raises:
            NotFound: One of the objects does not exist.
        """
        if not reason.strip() or len(reason) > _REASON_MAX:
            raise UsageError(f"a pin needs a reason, of at most {_REASON_MAX} characters")
        names = set(objects)
        with self._lock:
            for name in names:
                self._objects.path(name)  # under the lock: from here on it cannot be deleted
            return self._retained.pin(names, reason)

    def unpin(self, pin_id: str) -> None:
        """Remove a pin; delete its objects that nothing else keeps.

        Raises:
            NotFound: There is no such pin.
        """
        with self._lock:
            self._forget(self._retained.unpin(pin_id))

    def pins(self) -> Sequence[PinInfo]:
        """Return all pins, oldest first."""
        with self._lock:
            return self._retained.pins()

    def retire(self, objects: Iterable[str], not_before: float | None = None) -> None:
        """Let unreferenced objects go after a time, when `sweep_retired` runs.

        For an owner of many objects, such as the expiry of snapshots or compaction, whose files may
        still be read by others than this process. Call it before the references are removed: a
        crash in between then leaves objects that are retired and still referenced, which stay.

        Args:
            objects: Their ids; those that are referenced when their time comes stay.
            not_before: Unix seconds; None takes the grace time of the settings.
        """
        moment = self._clock.now() + self._grace_seconds if not_before is None else not_before
        with self._lock:
            self._retained.retire(objects, moment)

    def sweep_retired(self) -> list[str]:
        """Delete the retired objects whose time has come and that nothing uses; return their ids."""
        with self._lock:
            due = self._retained.due()
            if not due:
                return []
            candidates = {name for names in due.values() for name in names}
            deleted = self._forget({name for name in candidates if name in self._objects})
            reached("retired-deleted")
            # After the deletion: a crash in between leaves rows of objects that are gone already.
            # Leased and withheld ones are remembered by `_forget`.
            self._retained.forget(due)
            return deleted

    @property
    def retired(self) -> int:
        """The number of objects that wait for their time."""
        with self._lock:
            return self._retained.retired_objects

    def discard(self, objects: Iterable[str]) -> None:
        """Delete new objects that were not committed, if no snapshot or reader uses them."""
        with self._lock:
            self._forget({name for name in objects if name in self._objects})

    def drop_copies(
        self, objects: Iterable[str], find_own: Callable[[], Collection[str] | None]
    ) -> set[str]:
        """Delete copies of shards that other nodes hold, if nothing reads or keeps them.

        Their references stay: a reader fetches them again.

        Args:
            objects: Shards of datasets that other nodes write.
            find_own: Returns the shards that datasets of this node have, which stay; None if they are
                not known. The lease of a fork that commits after that ends after this.

        Returns:
            Those that were deleted.
        """
        with self._lock:
            own = find_own()
            if own is None:
                return set()
            free = {
                name
                for name in objects
                if name not in own and self._leases[name] <= 0 and not self._retained.keeps(name)
            }
            self._objects.delete(*free)
            return free

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

    def move_to_trash(
        self, dataset: str, until: float, to_trash: Callable[[], Sequence[Change]]
    ) -> str:
        """Remove a dataset that nothing uses, and keep its objects until a time.

        Args:
            dataset: Its id.
            until: Unix seconds.
            to_trash: Returns the changes that keep its rows, to write with its removal.

        Returns:
            Why it was not moved; "" if it was.
        """
        with self._lock:
            objects = self._catalog.all_objects(dataset)
            if (reason := self.use_of(objects)) or objects is None:
                return reason
            # First: what a crash leaves is retired and still referenced, and stays.
            self._retained.retire(objects, until, is_trash=True)
            reached("trash-retired")
            self._catalog.remove(dataset, *to_trash())
            reached("trash-moved")
            return ""

    def use_of(self, objects: Collection[str] | None) -> str:
        """Return why objects must stay where they are; "" if they need not.

        Args:
            objects: Those of a dataset; None if not all are known.
        """
        with self._lock:
            if objects is None:
                return "it is damaged"
            if self._retained.problem is not None or self._retained.pins_of(objects):
                return "it is pinned"
            return "it is in use" if any(self._leases[name] > 0 for name in objects) else ""

    def restore(self, dataset: str, name: str | None) -> DatasetInfo:
        """Put a dataset of the trash back; see `DatasetRemoval.restore`.

        Raises:
            Conflict: Its name is in use, or an object is gone.
        """

        def check(wanted: str, objects: set[str]) -> None:
            self._catalog.check_free(wanted)
            gone = sum(each not in self._objects for each in objects)
            if gone:
                raise Conflict(f"{gone:,} objects of dataset {wanted!r} are gone")

        with self._lock, self._catalog.writing():
            return self._catalog.removal.restore(dataset, name, check)

    def expire(
        self, dataset: str, *, keep: int, before: float, is_own: bool = True
    ) -> Sequence[int]:
        """Remove old snapshots, and the objects that only they used; return their versions.

        Args:
            dataset: Id or name.
            keep: How many of the newest stay.
            before: Unix seconds; snapshots that were the head then or later stay.
            is_own: As of `Catalog.expire`.

        Raises:
            Denied: Another node writes it, and it was to be one of this node.
        """
        return self._expire(dataset, partial(expired, keep=keep, before=before), is_own=is_own)

    def expire_others(
        self, dataset: str, manifests: Collection[str], *, purged: bool = False
    ) -> Sequence[int]:
        """As `expire`, of another node's dataset: the snapshots whose manifests are none of these.

        The head stays.

        Args:
            dataset: Its id.
            manifests: The manifests that the writer has.
            purged: Whether the others have rows that were purged: neither a tag nor the grace time
                keeps these.
        """
        versions = self._expire(
            dataset,
            lambda rows: {each for each, row in rows.items() if row.manifest not in manifests},
            is_own=False,
            tagged=purged,
        )
        if purged:
            self.erase(())
        return versions

    def _expire(
        self,
        dataset: str,
        choose: Callable[[Mapping[str, SnapshotRow]], set[str]],
        *,
        is_own: bool,
        tagged: bool = False,
    ) -> Sequence[int]:
        with self._lock:
            versions, used = self._catalog.expire(dataset, choose, is_own=is_own, tagged=tagged)
            reached("expire-uncataloged")
            if self._grace_seconds and used:
                # After the references, as only now they are known; a crash in between costs the
                # grace time, which protects readers that would fail and no data that is needed.
                self.retire(used)
            self._forget(used)
            return versions

    def erase(self, objects: Iterable[str]) -> set[str]:
        """Delete unreferenced objects now, and all retired ones; return those that are still there.

        These are deleted when their last lease ends, or their last pin is removed. For a purge, whose rows retired objects may have.
        """
        wanted = set(objects)
        with self._lock:
            rows = self._retained.retired_rows()
            self._retained.forget(rows)
            wanted.update(name for names in rows.values() for name in names)
            self._forget(wanted)
            return self.left_of(wanted)

    def left_of(self, objects: Iterable[str]) -> set[str]:
        """Return those of the objects that exist and that no snapshot references."""
        with self._lock:
            return {
                name
                for name in objects
                if name in self._objects and not self._catalog.references(name)
            }

    def check_unpinned(self, objects: Iterable[str], what: str) -> None:
        """Refuse an erasure of objects that are pinned.

        Raises:
            Conflict: One is.
        """
        with self._lock:
            pins = self._retained.pins_of(objects)
        if pins:
            raise Conflict(
                f"{what} is pinned: {', '.join(sorted(pins)[:8])}", hint="remove the pins first"
            )

    def sweep(self) -> list[str]:
        """Delete all objects without reference or lease; return their ids.

        Call it only at startup, before any ingest: an ingest leases its shards before the commit,
        but not its manifest.
        """
        with self._lock:
            self._catalog.count_references()
            return self._forget({*self._objects, *self._objects.quarantined()})

    def unused(self) -> list[str]:
        """Return the ids of the objects that `sweep` would delete now."""
        with self._lock:
            self._catalog.count_references()
            if not self._catalog.references_known or self._retained.problem is not None:
                return []
            return sorted(
                name
                for name in {*self._objects, *self._objects.quarantined()}
                if not self._catalog.references(name)
                and not self._retained.keeps(name)
                and self._leases[name] <= 0
            )

    def sweep_older(self, prefix: str, before: float) -> list[str]:
        """Delete unreferenced objects that were stored before a time; return their ids.

        Unlike `sweep` it may run at any time: a manifest is younger while its commit is under way.

        Args:
            prefix: The first two digits of their ids.
            before: Unix seconds.
        """
        # Shards are leased before they are stored, and manifests are stored under the catalog's lock.
        with self._lock, self._catalog.writing():
            found = {name for name in self._objects.names(prefix) if self._is_older(name, before)}
            return self._forget({name for name in found if name not in self._leases})

    def _is_older(self, name: str, before: float) -> bool:
        try:
            # Not of the content: a put of the same object gives it a new file.
            return self._objects.place(name).stat().st_ctime < before
        except OSError:
            return False

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
        gone = {
            name
            for name in candidates
            if not self._catalog.references(name) and not self._retained.keeps(name)
        }
        leased = {name for name in gone if self._leases[name] > 0}
        # What is referenced again by now (equal bytes were committed) is doomed no more.
        self._doomed = (self._doomed | leased) - (candidates - leased)
        unused = gone - leased
        self._withheld -= candidates
        # One unreadable manifest may name any of them: deleting what the readable ones do not name
        # would delete a dataset's shards because of one flipped byte.
        if not self._catalog.references_known or self._retained.problem is not None:
            self._withheld |= unused
            return []
        deleted = sorted(unused)
        self._objects.delete(*deleted)
        return deleted
