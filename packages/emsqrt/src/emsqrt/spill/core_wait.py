"""How long threads were runnable but waited for a core."""

from __future__ import annotations

import os
import threading


class CoreWait:
    """Reads the kernel's wait time of each thread (schedstat of proc(5)). Close it.

    If the kernel does not report it, the wait is 0.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[int, int] = {}
        self._closed = False

    def seconds(self) -> float:
        """Return how long the calling thread has waited for a core since it started."""
        thread = threading.get_native_id()
        file = self._files.get(thread)
        if file is None:
            file = self._open(thread)
        if file < 0:
            return 0.0
        try:
            # Nanoseconds: time on a core, time waiting for one, number of time slices.
            return int(os.pread(file, 64, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def close(self) -> None:
        """Close the files. May be called twice."""
        with self._lock:
            files, self._files, self._closed = self._files, {}, True
        for file in files.values():
            if file >= 0:
                os.close(file)

    def _open(self, thread: int) -> int:
        with self._lock:
            if self._closed:
                return -1
            try:
                file = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                file = -1
            self._files[thread] = file
            return file
