"""Going back: a backup, and the log that was archived since, to the state of any moment."""

from __future__ import annotations

from os import PathLike
from pathlib import Path as FilePath

from elkyn._lmdb.oplog import Entry, unpack_entry
from elkyn.backup import Archive, copy_folder
from elkyn.errors import PositionGone
from elkyn.store import ElkynStore

__all__ = ["archive_log", "backup_folder", "restore"]

_FILE_BYTES = 8 * 1024 * 1024
_GROUP = 500


def archive_log(store: ElkynStore, folder: str | PathLike[str], after: int | None = None) -> int:
    """Write the entries of the store's log that `folder` lacks to it; returns the position reached.

    Args:
        store: whose log.
        folder: of the archive; created when missing.
        after: where an archive that is still empty begins; None: at the oldest entry there is.

    Raises:
        PositionGone: the log does not reach back to the end of the archive: make a new backup, and
            an archive of its own for it.
    """
    archive = Archive(FilePath(folder))
    reached = archive.last or (after if after is not None else max(store.oplog.first - 1, 0))
    while reached < store.position:
        rows = store.oplog.rows(reached, _FILE_BYTES)
        archive.add(rows)
        reached = rows[-1][0]
    return reached


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
    """Make the folder `target` the store of a backup, and repeat what was archived after it.

    Args:
        backup: the folder that `ElkynStore.backup` has written.
        target: a folder that does not exist yet.
        archive: the folder of `archive_log`; None for the backup alone.
        until_position: repeat nothing after this position.
        until_ms: repeat nothing that was written after this time, in milliseconds since 1970.

    Returns:
        The position of the restored store.

    Raises:
        PositionGone: the archive does not hold what follows the backup.
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
            store.replicate(waiting)
            waiting = []
    store.replicate(waiting)
