"""What producer and consumer have in common: a hold on a ring, and an end."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from strand.owners import Lock, forget_in_child

if TYPE_CHECKING:
    import numpy as np

    from strand.ring import Ring

__all__ = ["NAP_NANOSECONDS", "SPIN_NANOSECONDS", "Role"]

NAP_NANOSECONDS = 150_000_000  # how long a sleeper goes without a look at signals and its peer
SPIN_NANOSECONDS = 0 if len(os.sched_getaffinity(0)) == 1 else 10_000  # the price of one sleep


class Role:
    """One process's hold on a ring, as its producer or as one of its consumers.

    Mixed into the classes of the C extension, whose methods refuse once `_release` was called.
    """

    spin_nanoseconds: int = SPIN_NANOSECONDS
    """How long a wait looks again and again before it sleeps: longer answers sooner, and burns."""

    def __init__(self, ring: Ring, locks: dict[int, Lock]) -> None:
        self._ring = ring
        self._locks = locks
        self.map = ring.map
        self.closed = False
        self._inherited = False
        self._memory = memoryview(ring.memory)
        self._slots: np.ndarray[Any, Any] | None = None
        forget_in_child(self)

    closed: bool
    """Whether this role was given up, or belongs to the parent process."""

    if TYPE_CHECKING:

        def _release(self) -> None: ...

    @property
    def memory(self) -> memoryview:
        """The whole segment."""
        return self._memory

    def map_records(self, start: int, count: int) -> list[np.ndarray[Any, Any]]:
        """Return numpy structured arrays over `count` slots from record `start` on.

        One array, two where the ring wraps, none for no records. Nothing is checked.
        """
        if self._slots is None:
            from strand.columns import map_slots

            self._slots = map_slots(self)
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
        with suppress(BufferError):  # somebody looks at a piece of it, and lets go later
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
