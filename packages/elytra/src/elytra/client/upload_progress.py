"""Thread-safe upload progress that never decreases and never exceeds the total."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[int, int], object]
"""Called with (bytes done, bytes total)."""


class TransferProgress:
    """Sums the bytes sent of each part.

    A retried part starts again at zero; the reported sum does not change until the part has caught
    up, so the callback sees only increasing numbers.

    Args:
        total_bytes: Size of the whole transfer.
        on_progress: Called with each larger sum, one call at a time.
    """

    def __init__(self, total_bytes: int, on_progress: OnProgress | None = None) -> None:
        self._total_bytes = total_bytes
        self._on_progress = on_progress
        self._part_bytes: dict[int, int] = {}
        self._sum_bytes = 0
        self._shown_bytes = -1
        self._lock = threading.Lock()

    def set(self, part: int, bytes_done: int) -> None:
        """Set how many bytes of a part are done; fewer than before when the part is retried."""
        with self._lock:
            self._sum_bytes += bytes_done - self._part_bytes.get(part, 0)
            self._part_bytes[part] = bytes_done
            done = min(self._sum_bytes, self._total_bytes)
            if done > self._shown_bytes:
                self._shown_bytes = done
                if self._on_progress is not None:
                    self._on_progress(done, self._total_bytes)
