"""Snapshots: a store file at one position, of the whole tree or of some subtrees.

LMDB copies the file from one read transaction, so writes go on and no transaction stays open for as
long as a slow follower needs. Walking the tree in one transaction while sending was rejected for
that reason: it would hold back the growth of the memory map.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path as FilePath

from elkyn.replication.replicated_store import ReplicatedStore
from elkyn.replication.store_adapters import digest_of
from elkyn.storage.log_rows import unpack_entry
from elkyn.storage.row_tree import ReadLimit
from elkyn.storage.transactions import ReadTransaction, WriteTransaction
from elkyn.store import ElkynStore
from elkyn.tree.paths import PRIORITY, ROOT, Path

__all__ = ["Snapshot", "make_snapshot"]

_PIECE_ROWS = 20_000
_PIECE_BYTES = 1024 * 1024
_FILE = "data.mdb"


class Snapshot:
    """A store file in a temporary folder, read from the beginning; `close` deletes the folder.

    Args:
        folder: the folder of the file.
        position: the position of the snapshot.
    """

    def __init__(self, folder: FilePath, position: int) -> None:
        self.position = position
        self._folder = folder
        file = folder / _FILE
        self.size_bytes = file.stat().st_size
        self.sha256 = digest_of(file)
        self._stream = file.open("rb")

    def read(self, count: int) -> bytes:
        """Return the next bytes; empty at the end."""
        return self._stream.read(count)

    def close(self) -> None:
        """Delete the file; idempotent."""
        self._stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def make_snapshot(store: ReplicatedStore, paths: Sequence[Path] = ()) -> Snapshot:
    """Write a snapshot of `store` next to it; blocks, while writes and reads continue.

    Args:
        store: the store to copy.
        paths: the subtrees to include; empty: the whole tree.
    """
    # Next to the store; `Disk` deletes what a killed server left.
    near = None if store.path is None else store.path
    folder = FilePath(tempfile.mkdtemp(prefix="sending-", dir=near))
    try:
        whole = folder / "whole"
        store.admin.backup(whole)
        if not paths:
            return _as_snapshot(whole, folder)
        with (
            # Temporary files: a crash deletes them anyway, so nothing is synced.
            ElkynStore(whole, durability="none") as source,
            ElkynStore(folder / "cut", durability="none") as target,
        ):
            _copy(source, target, paths)
        shutil.rmtree(whole)
        return _as_snapshot(folder / "cut", folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _as_snapshot(made: FilePath, folder: FilePath) -> Snapshot:
    # Opened to read its position; closed again, so that the file is complete.
    with ElkynStore(made) as store:
        position = store.position
    (made / _FILE).rename(folder / _FILE)
    shutil.rmtree(made)
    return Snapshot(folder, position)


def _copy(source: ElkynStore, target: ElkynStore, paths: Sequence[Path]) -> None:
    """Copy the subtrees, the settings and the last log position of `source` to `target`."""
    with source.admin.snapshot(_PIECE_ROWS) as view:
        for path in paths:
            _copy_subtree(view, target, path)
        rules = view.tree.setting("rules")
    position = source.position
    # The last entry's term and time, without its places: with them the follower's next hello can be
    # compared with the leader's log.
    row = source.oplog.row(position)

    def end(written: WriteTransaction) -> None:
        if rules is not None:
            written.tree.put_setting("rules", rules)
        written.tree.put_meta(b"terms", source.admin.terms.pack())
        written.tree.log.clear()
        if row is not None:
            entry = unpack_entry(position, row)
            start = entry._replace(kind="start", base=ROOT, places=[])
            written.tree.log.append(start)

    target.admin.prepare(end)


def _copy_subtree(view: ReadTransaction, target: ElkynStore, path: Path) -> None:
    def put(written: WriteTransaction) -> None:
        written.put(path, value, ephemeral=False)
        written.placed.clear()

    keys = None
    try:
        value = view.get(path)
    # Too large to hold at once: its children one by one, each in a transaction of its own.
    except ReadLimit:
        keys = view.keys(path) or []
        value = None
    if keys is None:
        target.admin.prepare(put)
        return
    for key in keys:
        _copy_subtree(view, target, (*path, key))
    # After the children: a map without children has no priority.
    priority = view.get((*path, PRIORITY))
    if priority is not None:
        path, value = (*path, PRIORITY), priority
        target.admin.prepare(put)
