"""Durability modes: when commits are synced, and the marker of commits that may be unsynced.

`always`: before a write returns; no acknowledged write is ever lost. `interval`: at most
`sync_interval_ms` later, on a background thread. `none`: when the operating system writes its page
cache back, and at `close`.

`interval` and `none` lose nothing when the process crashes, because the page cache keeps the pages.
When the machine crashes they lose unsynced commits, and the file may be torn: LMDB's pages reach the
disk in any order. The file `unsynced` holds the boot id under which that could happen; when the store
opens under another boot id, it is verified first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Literal, TypeAlias

from sennit_core.errors import SennitError
from sennit_core.logs import get_logger
from sennit_core.private_files import FILE_MODE

__all__ = ["BOOT_UNKNOWN", "Durability", "Marker", "Syncer", "boot_id"]

Durability: TypeAlias = Literal["always", "interval", "none"]

BOOT_UNKNOWN = "unknown"
_BOOT_ID = FilePath("/proc/sys/kernel/random/boot_id")

_log = get_logger(__name__)


def boot_id() -> str:
    """Return the id of this boot of the machine; `BOOT_UNKNOWN` where the system has none."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else BOOT_UNKNOWN


class Syncer:
    """Calls `sync` in the background, `interval_seconds` after a commit at the latest.

    When a sync fails, `error` is set and further syncs are tried at the same interval. While it is
    set the store refuses writes, because writes that it has acknowledged may still be lost.
    """

    def __init__(self, sync: Callable[[], None], interval_seconds: float) -> None:
        self._sync = sync
        self._interval_seconds = interval_seconds
        self._changed = threading.Condition()
        # True iff there are commits that no started sync includes.
        self._dirty = False
        self._closed = False
        self._thread: threading.Thread | None = None
        # The last sync's failure; None once a later one succeeds.
        self.error: SennitError | None = None

    def committed(self) -> None:
        """Schedule a sync: there is a new commit."""
        # Without the lock, as every commit passes here: `_run` sets `_dirty` to False before it
        # syncs, so while this thread reads True, the sync that includes this commit has not begun.
        if self._dirty:
            return
        with self._changed:
            self._dirty = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="elkyn-sync", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._closed)
                # Commits of the whole interval share one sync.
                self._changed.wait_for(lambda: self._closed, self._interval_seconds)
                if self._closed:
                    return
                self._dirty = False
            try:
                self._sync()
            except SennitError as error:
                if self.error is None:
                    _log.error("acknowledged writes could not be synced; trying again: %s", error)
                self.error = error
                # Tried again after the interval without a new commit: writes are refused until a
                # sync succeeds.
                self._dirty = True
            else:
                self.error = None

    def close(self) -> None:
        """Stop the thread, without a last sync."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()


class Marker:
    """The file with the boot id under which commits may have been left unsynced."""

    def __init__(self, folder: FilePath) -> None:
        self._file = folder / "unsynced"

    def torn(self) -> bool:
        """Whether the machine crashed or rebooted while commits may have been unsynced."""
        try:
            boot = self._file.read_text().strip()
        except FileNotFoundError:
            return False
        # Unknown ids are never equal: without them each start verifies the store.
        return boot != boot_id() or boot == BOOT_UNKNOWN

    def put(self) -> None:
        """Write this boot's id to the marker, synced."""
        self._file.touch(mode=FILE_MODE)
        with self._file.open("w") as stream:
            stream.write(f"{boot_id()}\n")
            stream.flush()
            # The marker must survive what it warns of.
            os.fsync(stream.fileno())
        sync_folder(self._file.parent)

    def remove(self) -> None:
        """Remove the marker: everything is synced."""
        with suppress(FileNotFoundError):
            # Not synced: if the machine crashes and the file is back, a store is verified once for
            # nothing.
            self._file.unlink()


def sync_folder(folder: FilePath) -> None:
    """Sync the directory entries of `folder`."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
