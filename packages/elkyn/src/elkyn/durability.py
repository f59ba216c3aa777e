"""When commits reach the disk, and what is known about those that have not.

`always`: before a write returns; nothing acknowledged is ever lost. `interval`: at most so many
milliseconds later, on a thread of its own. `none`: when the system likes, and at `close`.

The last two lose nothing when the process dies, because the system holds the pages. When the machine
dies they lose what was not synced, and the file may be torn: LMDB's pages reach the disk in any order.
A file `unsynced` tells the next start in which boot that was possible; after another one the store is
verified before it opens.
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
    """Return what names this boot of the machine; `BOOT_UNKNOWN` where nothing does."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else BOOT_UNKNOWN


class Syncer:
    """Calls `sync` in the background, `interval_seconds` after a commit at the latest.

    When a sync fails, `error` is set and the next ones are tried at the same pace; while it is set
    the store takes no writes, because it could not keep what it has acknowledged already.
    """

    def __init__(self, sync: Callable[[], None], interval_seconds: float) -> None:
        self._sync = sync
        self._interval_seconds = interval_seconds
        self._changed = threading.Condition()
        self._dirty = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self.error: SennitError | None = None

    def committed(self) -> None:
        """Say that there is something to sync."""
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
                self._dirty = True
            else:
                self.error = None

    def close(self) -> None:
        """End the thread; what is not synced stays so."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()


class Marker:
    """The file that says in which boot commits may have been left unsynced."""

    def __init__(self, folder: FilePath) -> None:
        self._file = folder / "unsynced"

    def torn(self) -> bool:
        """Whether the machine went down while commits may have been unsynced."""
        try:
            boot = self._file.read_text().strip()
        except FileNotFoundError:
            return False
        return boot != boot_id() or boot == BOOT_UNKNOWN

    def put(self) -> None:
        """Say so of this boot, on the disk."""
        self._file.touch(mode=FILE_MODE)
        with self._file.open("w") as stream:
            stream.write(f"{boot_id()}\n")
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(self._file.parent)

    def remove(self) -> None:
        """Say that all is synced."""
        with suppress(FileNotFoundError):
            self._file.unlink()


def sync_folder(folder: FilePath) -> None:
    """Bring the names in `folder` to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
