"""Makes files durable in the background, at most a second after they were written.

For uploads with `storage.upload_sync = "interval"`: their parts are answered before they are durable, and an upload
is sealed only after all of them are.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from lake.objects.durable import fsync_file, fsync_folder

__all__ = ["SyncQueue"]

INTERVAL_SECONDS = 1.0


class SyncQueue:
    """Files to sync; thread-safe. `close` ends its thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[Path] = set()
        self._syncing = threading.Lock()  # held by a sync: `flush` waits for one that runs
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, path: Path) -> None:
        """Sync a file, and its name, within the interval."""
        with self._lock:
            self._waiting.add(path)
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="lake-sync", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Return once all files are durable that were added before.

        Raises:
            OSError: A file could not be synced; it is tried again.
        """
        with self._syncing:
            with self._lock:
                paths, self._waiting = self._waiting, set()
            try:
                for path in paths:
                    with suppress(FileNotFoundError):
                        fsync_file(path)
                for folder in {path.parent for path in paths}:
                    with suppress(FileNotFoundError):  # its upload was aborted
                        fsync_folder(folder)
            except BaseException:
                with self._lock:
                    self._waiting |= paths
                raise

    def close(self) -> None:
        """Sync what waits, and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            with suppress(OSError):  # the next round tries again, and `flush` raises it
                self.flush()
