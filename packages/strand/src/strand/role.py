"""Common base of producer and consumer: the mapping, the locks, and closing."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from strand.mapping import RingMapping
from strand.owners import Lock, forget_in_child

if TYPE_CHECKING:
    import numpy as np


__all__ = ["NAP_NANOSECONDS", "SPIN_NANOSECONDS", "Role"]

# How long a wait sleeps before it checks for signals and for the death of its peer. Wake-ups do not
# depend on it.
NAP_NANOSECONDS = 150_000_000
# About the cost of one sleep and wake-up. On one CPU spinning only delays the peer.
SPIN_NANOSECONDS = 0 if len(os.sched_getaffinity(0)) == 1 else 10_000


class Role:
    """One process's role in a ring: its producer, or one of its consumers.

    Mixed into the classes of the C extension, whose methods raise Closed after `_release`.
    """

    spin_nanoseconds: int = SPIN_NANOSECONDS
    """How long a wait polls before it sleeps; longer reduces latency and uses more CPU time."""

    def __init__(self, ring: RingMapping, locks: dict[int, Lock]) -> None:
        self._ring = ring
        self._locks = locks
        self.map = ring.map
        self.closed = False
        self._inherited = False
        self._memory = memoryview(ring.memory)
        self._slots: np.ndarray[Any, Any] | None = None
        forget_in_child(self)

    closed: bool
    """Whether this role was closed, or belongs to the parent process."""

    if TYPE_CHECKING:

        def _release(self) -> None: ...

        def _map_slots(self) -> np.ndarray[Any, Any]:
            """Return one structured array over all slots."""

    @property
    def memory(self) -> memoryview:
        """The whole segment."""
        return self._memory

    def map_records(self, start: int, count: int) -> list[np.ndarray[Any, Any]]:
        """Return numpy structured arrays over `count` slots from record `start` on.

        One array, two where the ring wraps, none for no records. The range is not checked.
        """
        if self._slots is None:
            self._slots = self._map_slots()
        records = self.map.records
        first = start & (records - 1)
        last = first + count
        if last <= records:
            return [self._slots[first:last]] if count else []
        return [self._slots[first:], self._slots[: last - records]]

    def _detach(self) -> None:
        self.closed = True
        self._slots = None
        self._release()
        with suppress(BufferError):  # still referenced; released with the last reference
            self._memory.release()
        locks, self._locks = self._locks, {}
        for lock in locks.values():
            lock.release()

    def _forget_in_child(self) -> None:
        self.closed = True
        self._inherited = True
        self._slots = None
        self._release()
        for lock in self._locks.values():
            lock.forget()
