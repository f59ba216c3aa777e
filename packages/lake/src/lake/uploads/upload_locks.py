"""One ingest at a time for each upload: two would share a staging folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from sennit_core.errors import Cancelled

__all__ = ["UploadLocks"]

_CANCEL_POLL_SECONDS = 0.2  # how often an ingest that waits for another checks for cancellation


class UploadLocks:
    """A lock for each upload that is being ingested."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._lock = threading.Lock()  # guards `_locks`

    @contextmanager
    def exclusive(self, upload_id: str, cancelled: Callable[[], bool] | None) -> Iterator[None]:
        """Wait until no other ingest of the upload runs, and keep others out meanwhile.

        Args:
            upload_id: The upload.
            cancelled: Called several times per second while waiting; True stops it.

        Raises:
            Cancelled: It was cancelled.
        """
        with self._lock:
            lock = self._locks.setdefault(upload_id, threading.Lock())
        while not lock.acquire(timeout=_CANCEL_POLL_SECONDS):
            if cancelled is not None and cancelled():
                raise Cancelled(f"the ingest of upload {upload_id}")
        try:
            yield
        finally:
            lock.release()
