"""A moving limit on new private memory, so that no single allocation can jump over the cap.

RLIMIT_DATA counts reserved address space (setrlimit(2); since Linux 4.7 private writable mappings
too), which is far more than what is ever touched: thread stacks, arenas. So the limit is the cap
plus what was reserved and left untouched for a while; what was reserved just now counts as if it
were touched already. A request larger than the rest of the cap then fails cleanly, as a
`MemoryError`, before one page of it is used.
"""

from __future__ import annotations

import resource
import time

from emsqrt.memory.usage import MemoryUse

_FORGIVE_SECONDS = 0.5


class Fence:
    """The soft RLIMIT_DATA of this process, moved at each look.

    Args:
        cap_bytes: what the process may be charged at most.
    """

    def __init__(self, cap_bytes: int) -> None:
        self._cap_bytes = cap_bytes
        self._before, self._hard = resource.getrlimit(resource.RLIMIT_DATA)
        self._turned_at = time.monotonic()
        self._idle_bytes: int | None = None
        self._idle_bytes_before: int | None = None

    @property
    def idle_bytes(self) -> int:
        """The least that was reserved and untouched at the last moves: with less it is to move."""
        return self._idle_bytes or 0

    def move(self, use: MemoryUse) -> None:
        """Allow reservations up to what the cap leaves over `use`."""
        limit = self._cap_bytes - use.shmem_bytes + self._forgiven(use)
        if self._hard != resource.RLIM_INFINITY:
            limit = min(limit, self._hard)
        resource.setrlimit(resource.RLIMIT_DATA, (max(limit, 0), self._hard))

    def forgive(self) -> None:
        """Leave what is reserved now out of the count, as libraries reserve when they start."""
        self._idle_bytes = self._idle_bytes_before = None

    def lift(self) -> None:
        """Restore the limit as it was before; error handling needs room."""
        resource.setrlimit(resource.RLIMIT_DATA, (self._before, self._hard))

    def _forgiven(self, use: MemoryUse) -> int:
        """Return the least that was reserved and untouched over the last half to whole second."""
        idle = use.data_bytes - use.anon_bytes
        now = time.monotonic()
        if self._idle_bytes is None or now - self._turned_at > _FORGIVE_SECONDS:
            self._turned_at = now
            self._idle_bytes_before = self._idle_bytes
            self._idle_bytes = idle
        self._idle_bytes = min(self._idle_bytes, idle)
        before = self._idle_bytes_before
        return self._idle_bytes if before is None else min(before, self._idle_bytes)
