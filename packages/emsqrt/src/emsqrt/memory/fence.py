"""A moving limit on new private memory, so that no single allocation can jump over the cap.

RLIMIT_DATA counts reserved address space (setrlimit(2); since Linux 4.7 private writable mappings
too), which is far more than what is touched, so a fixed value is useless. Set again at each look
to "reserved now + what is left of the cap", it lets the process reserve what it likes over time,
while one request larger than the rest of the cap fails cleanly as a `MemoryError`.
"""

from __future__ import annotations

import resource

from emsqrt.memory.usage import MemoryUse


class Fence:
    """The soft RLIMIT_DATA of this process, moved ahead of what it has reserved."""

    def __init__(self, cap_bytes: int) -> None:
        self._cap_bytes = cap_bytes
        self._before, self._hard = resource.getrlimit(resource.RLIMIT_DATA)

    def move(self, use: MemoryUse) -> None:
        """Allow new reservations up to what the cap leaves over `use`."""
        limit = use.data_bytes + max(self._cap_bytes - use.charged_bytes, 0)
        if self._hard != resource.RLIM_INFINITY:
            limit = min(limit, self._hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, self._hard))

    def lift(self) -> None:
        """Restore the limit as it was before; error handling needs room."""
        resource.setrlimit(resource.RLIMIT_DATA, (self._before, self._hard))
