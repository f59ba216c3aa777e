"""Adapters of a store for both sides of the replication protocol."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any, BinaryIO

from elkyn.replication.filtering import cut_row
from elkyn.replication.replicated_store import ReplicatedStore
from elkyn.storage.durability import sync_folder
from elkyn.storage.folder import memory_folder
from elkyn.storage.log_rows import unpack_entry
from elkyn.storage.terms import Terms
from elkyn.tree.paths import Path, format_path
from sennit_core.errors import Corrupt
from sennit_core.private_files import FOLDER_MODE

__all__ = ["FollowerStore", "LeaderStore", "digest_of", "start_following", "start_leading"]


class LeaderStore:
    """The log of a store for one follower.

    Args:
        store: the store of the log.
        paths: the subtrees of the follower; empty: the whole tree.
        acked: called with the follower's id and position for each acknowledgement.
    """

    def __init__(
        self,
        store: ReplicatedStore,
        paths: Sequence[Path] = (),
        acked: Callable[[str, int], object] = lambda _node, _position: None,
    ) -> None:
        self.store = store
        self.paths = paths
        self._acked = acked

    @property
    def terms(self) -> Terms:
        """The terms of the store, with at least one lead."""
        # The first follower connects: from here on the history has a name.
        if not self.store.admin.terms.leads and not self.store.admin.following:
            self.store.admin.change_terms(lambda terms, _position: terms.named())
        return self.store.admin.terms

    @property
    def leads(self) -> bool:
        """Whether the store leads."""
        return not self.store.admin.following and not self.store.admin.terms.stale

    @property
    def last(self) -> int:
        """The position of the newest entry."""
        return self.store.position

    def mark(self, position: int) -> list[Any] | None:
        """Return what identifies the entry at `position`; None when it was dropped."""
        return mark_of(self.store, position)

    def covers(self, after: int) -> bool:
        """Whether the log holds every entry after `after`."""
        return self.store.position == after == 0 or self.store.oplog.covers(after)

    def rows(self, after: int, bytes_max: int) -> list[tuple[int, bytes]]:
        """Return rows after `after`, cut to the follower's subtrees."""
        rows = self.store.oplog.rows(after, bytes_max)
        if not self.paths:
            return rows
        return [(position, cut_row(position, row, self.paths)) for position, row in rows]

    def observe_term(self, term: int) -> None:
        """Stop leading: another store was promoted to a later term."""
        self.store.admin.change_terms(lambda terms, _position: terms.observe_term(term))

    def acked(self, node: str, position: int) -> None:
        """Report a follower's acknowledged position."""
        # A follower with a part of the tree does not make a write survive the loss of the leader.
        if not self.paths:
            self._acked(node, position)


def mark_of(store: ReplicatedStore, position: int) -> list[Any] | None:
    """Return term, time and digest of a log entry; None when it was dropped."""
    row = store.oplog.row(position)
    if row is None:
        return None
    entry = unpack_entry(position, row)
    whole = entry.kind != "start"
    # A `start` entry begins a log after a snapshot of subtrees: its row differs from the leader's.
    digest = hashlib.blake2b(row, digest_size=8).hexdigest() if whole else None
    return [entry.term, entry.time_ms, digest]


def digest_of(file: FilePath) -> str:
    """Return the SHA-256 of a snapshot's file as hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def start_following(store: ReplicatedStore) -> None:
    """Accept only a leader's entries from now on; a store that has led itself is not readable yet."""
    store.admin.following = True
    known = _read(store)
    # Its own writes may be unknown to the leader, and only the welcome can say: not read until
    # then.
    own = store.position > 0 and (not known or known.get("led", False))
    store.admin.divergence.note(own or store.admin.terms.stale)
    store.admin.divergence.note_unsynced(not known.get("synced", store.position > 0))


def start_leading(store: ReplicatedStore) -> None:
    """Accept writes from now on; no link may still follow a leader for this store."""
    known = _read(store)
    if known:
        _keep(store, {**known, "led": True, "synced": True})
    store.admin.divergence.note(False)
    store.admin.divergence.note_unsynced(False)
    # Last: no write is accepted before the change is on the disk and reads are open.
    store.admin.following = False


def _file_of(store: ReplicatedStore) -> FilePath | None:
    return None if store.path is None else store.path / "replica.json"


def _read(store: ReplicatedStore) -> dict[str, Any]:
    file = _file_of(store)
    if file is None or not file.exists():
        return {}
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _keep(store: ReplicatedStore, known: dict[str, Any]) -> None:
    file = _file_of(store)
    if file is None:
        return
    partial = file.with_suffix(".partial")
    with partial.open("w") as stream:
        json.dump(known, stream)
        stream.flush()
        os.fsync(stream.fileno())
    # Written, synced, renamed, and the folder synced: after a crash the file is the old or the new
    # one.
    partial.rename(file)
    sync_folder(file.parent)


class FollowerStore:
    """A store that applies a leader's entries. Its folder holds `replica.json` with its node id.

    Args:
        store: the following store; nothing else may write to it from now on.
        paths: the subtrees to hold; empty: the whole tree.
    """

    def __init__(self, store: ReplicatedStore, paths: Sequence[Path] = ()) -> None:
        self.store = store
        self._paths = paths
        # The arriving snapshot's file, open from `begin_snapshot` to `install` or `close`.
        self._stream: BinaryIO | None = None
        self._folder: FilePath | None = None
        self._file = _file_of(store)
        known = _read(store)
        # False for a store that was written to before it followed: its data may exist nowhere else.
        self._was_replica = bool(known)
        self.node: str = known.get("node") or secrets.token_hex(8)
        self._led = bool(known.get("led"))
        # Other subtrees than before: the tree here is no state of what is to be followed now.
        self.fresh = store.position > 0 and known.get("paths", []) != self._shown_paths()
        start_following(store)

    def _shown_paths(self) -> list[str]:
        return [format_path(path) for path in self._paths]

    def _write(self) -> None:
        synced = not self.store.admin.divergence.unsynced
        said = {"node": self.node, "paths": self._shown_paths(), "synced": synced}
        _keep(self.store, {**said, "led": True} if self._led else said)

    @property
    def terms(self) -> Terms:
        """The terms of the store."""
        return self.store.admin.terms

    @property
    def position(self) -> int:
        """The position of the newest entry."""
        return self.store.position

    def mark(self, position: int) -> list[Any] | None:
        """Return what identifies the entry at `position`; None when it was dropped."""
        mark = mark_of(self.store, position)
        return mark if mark is None or not self._paths else [*mark[:2], None]

    def set_diverged(self, *, diverged: bool) -> None:
        """Record whether the store has diverged, and so must be replaced before it is read."""
        # The leader cannot know that this store has writes of its own from before it followed.
        diverged = diverged or (self.fresh and not self._was_replica)
        # Written before the store is marked unreadable in memory: it stays unread after a crash,
        # until a snapshot has replaced it.
        if diverged is not self._led:
            self._mark(led=diverged)
        self.store.admin.divergence.note(diverged)

    def _mark(self, *, led: bool) -> None:
        self._led = led
        if self._file is not None and self._file.exists():
            self._write()

    def caught_up(self) -> None:
        """Record that the store has all entries that the leader had when the connection began."""
        if self.store.admin.divergence.unsynced:
            self.store.admin.divergence.note_unsynced(False)
            self._write()

    def keep_terms(self, terms: Terms) -> None:
        """Store the terms that the leader sent."""
        # The identity is kept once the leader has accepted this store's history.
        if not self.fresh and (self._file is None or not self._file.exists()):
            self._write()
        self.store.admin.change_terms(lambda _known, _position: replace(terms, fenced=0))

    def append(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Apply entries; they are durable when this returns."""
        self.store.admin.replicate([unpack_entry(position, row) for position, row in rows])
        # The acknowledgement that follows means "on the disk", also with a lower durability of this
        # store.
        self.store.admin.sync_unless_durable()

    def begin_snapshot(self) -> None:
        """Discard the received part of an earlier snapshot."""
        self.close()
        if self.store.path is None:
            self._folder = memory_folder()
        else:
            self._folder = self.store.path / "arriving"
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(mode=FOLDER_MODE)
        self._stream = (self._folder / "data.mdb").open("wb")

    def add_chunk(self, piece: bytes) -> None:
        """Store a part of a snapshot's file."""
        assert self._stream is not None
        self._stream.write(piece)

    def install(self, size_bytes: int, sha256: str, *, aside: bool) -> None:
        """Replace the store by the snapshot; see `FollowerLog`."""
        stream, folder = self._stream, self._folder
        assert stream is not None
        assert folder is not None
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
        file = folder / "data.mdb"
        # Checked before anything is replaced.
        if file.stat().st_size != size_bytes or digest_of(file) != sha256:
            raise Corrupt("a snapshot from the leader", expected=sha256[:16], found="other bytes")
        own = self.fresh and not self._was_replica  # data that no other store may have
        self.store.admin.install(folder, self._aside() if aside or own else None)
        # The store is replaced first, then `replica.json` says so: a crash in between leaves a
        # store that waits for the leader's next welcome.
        self.fresh, self._was_replica, self._led = False, True, False
        self.store.admin.divergence.note_unsynced(False)
        self._write()
        self.store.admin.divergence.note(False)
        self.close()

    def _aside(self) -> FilePath | None:
        if self.store.path is None or not self.store.position:
            return None
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        return self.store.path / "set-aside" / f"{stamp}-{self.store.position}"

    def close(self) -> None:
        """Discard the received part of a snapshot."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
