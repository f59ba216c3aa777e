"""A moving RLIMIT_DATA, so that no single allocation can exceed the cap.

RLIMIT_DATA counts reserved address space (setrlimit(2); since Linux 4.7 private writable mappings
too), which is far more than the memory that is ever touched: thread stacks, arenas. So the limit is
the cap plus the address space that was reserved and left untouched for a while; fresh reservations
count as touched. An allocation larger than the rest of the cap then fails cleanly with a
`MemoryError`, before one page of it is used.
"""

from __future__ import annotations

import resource
import time

from emsqrt.memory.usage import MemoryUse

# Length of a window. The least untouched reservation of the current window and of the one before is
# exempt from the limit:
#
#     reserved, untouched ▔▔▔▔▔▔╲▁▁▁▁▁▁▁▁▁▁╱▔▔▔▔▔▔▔▔▔   a thread starts here: counts as touched
#     exempt              ▔▔▔▔▔▔╲▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁╱▔▔▔   until both windows have seen it
#
# When pages are touched, the exemption falls at once; when more is reserved, it rises after 0.5 to
# 1 second. So memory that was reserved in pieces, left alone and then touched at once may exceed
# the cap until the watchdog's next measurement (design/0030).
_FORGIVE_SECONDS = 0.5


class AllocationLimit:
    """The soft RLIMIT_DATA of this process, adjusted at each measurement.

    Args:
        cap_bytes: the most memory that may be charged to the process.
    """

    def __init__(self, cap_bytes: int) -> None:
        self._cap_bytes = cap_bytes
        # Only the soft limit is moved: a process may raise it again up to the hard one without
        # privileges.
        self._before, self._hard = resource.getrlimit(resource.RLIMIT_DATA)
        self._window_started_at = time.monotonic()
        # None until the first measurement after `forgive`, which exempts all that is untouched
        # then.
        self._idle_bytes: int | None = None
        self._idle_bytes_last_window: int | None = None

    @property
    def idle_bytes(self) -> int:
        """The least untouched reservation of this window; `move` must be called when it shrinks."""
        return self._idle_bytes or 0

    def move(self, use: MemoryUse) -> None:
        """Set the limit so that new reservations fit in the cap next to `use`."""
        # RLIMIT_DATA counts private mappings only. Shared memory is charged to the process as well,
        # so it lowers the limit.
        limit = self._cap_bytes - use.shmem_bytes + self._idle_allowance(use)
        if self._hard != resource.RLIM_INFINITY:
            limit = min(limit, self._hard)
        resource.setrlimit(resource.RLIMIT_DATA, (max(limit, 0), self._hard))

    def forgive(self) -> None:
        """Exempt everything reserved so far: libraries reserve address space when they start."""
        self._idle_bytes = self._idle_bytes_last_window = None

    def lift(self) -> None:
        """Restore the limit as it was before; error handling needs memory."""
        resource.setrlimit(resource.RLIMIT_DATA, (self._before, self._hard))

    def _idle_allowance(self, use: MemoryUse) -> int:
        """Return the least untouched reservation of the last 0.5 to 1 second."""
        # The minimum over this window and the one before: fresh reservations count as touched.
        idle = use.data_bytes - use.anon_bytes
        now = time.monotonic()
        if self._idle_bytes is None or now - self._window_started_at > _FORGIVE_SECONDS:
            self._window_started_at = now
            self._idle_bytes_last_window = self._idle_bytes
            self._idle_bytes = idle
        self._idle_bytes = min(self._idle_bytes, idle)
        before = self._idle_bytes_last_window
        return self._idle_bytes if before is None else min(before, self._idle_bytes)
