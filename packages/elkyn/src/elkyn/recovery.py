"""Point-in-time recovery: restore a backup, then replay the log that was archived since."""

from __future__ import annotations

import threading
from os import PathLike
from pathlib import Path as FilePath
from typing import Self

from elkyn.errors import PositionGone
from elkyn.storage.backup import Archive, copy_folder
from elkyn.storage.log_rows import Entry, unpack_entry
from elkyn.store import ElkynStore
from sennit_core.errors import SennitError
from sennit_core.logs import get_logger

__all__ = ["Archiver", "archive_log", "backup_folder", "restore"]

# Of entries in one file of the archive, which is read whole.
_FILE_BYTES = 8 * 1024 * 1024
_GROUP = 500

_log = get_logger(__name__)


def archive_log(store: ElkynStore, folder: str | PathLike[str], after: int | None = None) -> int:
    """Archive the log entries that `folder` does not have yet; returns the last position.

    Args:
        store: the store whose log is archived.
        folder: the archive's folder; created when missing.
        after: the position after which an empty archive begins; None: the oldest entry of the log.

    Raises:
        PositionGone: the log does not reach back to the end of the archive: make a new backup with
            a new archive.
    """
    archive = Archive(FilePath(folder))
    reached = archive.last or (after if after is not None else max(store.oplog.first - 1, 0))
    # The archive itself says how far it reaches, so an interrupted run is simply continued.
    while reached < store.position:
        rows = store.oplog.rows(reached, _FILE_BYTES)
        archive.add(rows)
        reached = rows[-1][0]
    return reached


class Archiver:
    """Archives the log of a store in the background, soon after each write.

    Close it before the store. When archiving fails (disk full, or an archive that is too old to
    continue), `error` is set and logged once, and the next round tries again.

    Args:
        store: the store whose log is archived.
        folder: the archive's folder; created when missing.
        every_seconds: the maximum delay before a write is archived.
    """

    def __init__(
        self, store: ElkynStore, folder: str | PathLike[str], *, every_seconds: float = 1.0
    ) -> None:
        self._store = store
        self._folder = FilePath(folder)
        self._every_seconds = every_seconds
        self._changed = threading.Event()
        self._closing = threading.Event()
        self.error: Exception | None = None
        self.position = Archive(self._folder).last
        self._stop = store.admin.observe(lambda _position, _paths: self._changed.set())
        # The first round archives what was written while no archiver ran.
        self._changed.set()
        self._thread = threading.Thread(target=self._run, name="elkyn-archive", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._changed.wait()
            # Before the round: a write during it causes another one.
            self._changed.clear()
            self._archive()
            self._closing.wait(self._every_seconds)
            if self.error is not None:
                self._changed.set()

    def _archive(self) -> None:
        try:
            self.position = archive_log(self._store, self._folder)
        except (SennitError, OSError) as error:
            if self.error is None:
                _log.error("archiving the log to %s failed: %s; trying again", self._folder, error)
            self.error = error
        else:
            self.error = None

    def close(self) -> None:
        """Archive the remaining entries and stop."""
        self._stop()
        self._closing.set()
        self._changed.set()
        self._thread.join()
        self._archive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def backup_folder(source: str | PathLike[str], target: str | PathLike[str]) -> None:
    """Write a consistent copy of a store's folder, which another process may have open.

    Args:
        source: the folder of a store.
        target: a folder that does not exist yet.
    """
    copy_folder(FilePath(source), FilePath(target))


def restore(
    backup: str | PathLike[str],
    target: str | PathLike[str],
    *,
    archive: str | PathLike[str] | None = None,
    until_position: int | None = None,
    until_ms: int | None = None,
) -> int:
    """Create a store in `target` from a backup, and replay the archived log after it.

    Args:
        backup: a folder written by `ElkynStore.backup`.
        target: a folder that does not exist yet.
        archive: the folder of `archive_log`; None restores only the backup.
        until_position: the last position to replay.
        until_ms: the time of the last write to replay, in milliseconds since 1970.

    Returns:
        The position of the restored store.

    Raises:
        PositionGone: the archive does not hold the entries after the backup.
        Corrupt: a file of the archive is damaged; `target` holds the state before it.
    """
    copy_folder(FilePath(backup), FilePath(target))
    with ElkynStore(target) as store:
        if archive is not None:
            _repeat(store, Archive(FilePath(archive)), until_position, until_ms)
        return store.position


def _repeat(
    store: ElkynStore, archive: Archive, until_position: int | None, until_ms: int | None
) -> None:
    waiting: list[Entry] = []
    if archive.last < store.position:
        raise PositionGone(store.position, 0, archive.last)
    for position, row in archive.read(store.position):
        entry = unpack_entry(position, row)
        if until_position is not None and position > until_position:
            break
        if until_ms is not None and entry.time_ms > until_ms:
            break
        waiting.append(entry)
        if len(waiting) == _GROUP:
            store.admin.replicate(waiting)
            waiting = []
    # As a follower applies them: an entry that does not follow the last one is refused.
    store.admin.replicate(waiting)
