"""The rows of small results in memory, so that reading one needs no executor."""

from __future__ import annotations

import threading

_BYTES_MAX = 4 << 20
"""Of all results together: the last 64 of the largest size, or thousands of a few rows."""


class SmallResults:
    """Arrow IPC streams by job; the files of the results remain, and are read for older jobs.

    Args:
        bytes_max: The most bytes of all streams together; the oldest are dropped.
    """

    def __init__(self, bytes_max: int = _BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        # In order of insertion; `_held_bytes` is the sum of their lengths.
        self._rows: dict[str, bytes] = {}
        self._held_bytes = 0

    def put(self, job_id: str, rows: bytes | None) -> None:
        """Keep the rows of a job; None keeps nothing."""
        self.drop(job_id)
        if rows is None:
            return
        with self._lock:
            self._rows[job_id] = rows
            self._held_bytes += len(rows)
            while self._held_bytes > self._bytes_max:
                oldest = next(iter(self._rows))
                self._held_bytes -= len(self._rows.pop(oldest))

    def get(self, job_id: str) -> bytes | None:
        """Return the rows of a job, if they are in memory."""
        with self._lock:
            return self._rows.get(job_id)

    def drop(self, job_id: str) -> None:
        """Remove the rows of a job, if there are any."""
        with self._lock:
            self._held_bytes -= len(self._rows.pop(job_id, b""))
