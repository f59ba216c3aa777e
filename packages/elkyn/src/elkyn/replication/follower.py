"""The follower side of the protocol, as a state machine without socket, clock or thread.

Once welcomed and not diverged, the store is at each position some past state of its leader, because
entries are applied in transactions, in order, and a snapshot replaces the store by one rename. An
acknowledgement is sent only after that is on the disk. A crash at any point therefore loses only what
is sent again after the next hello:

    frame -> append (tree, log and rules in one transaction, synced) -> ack
    chunks -> file -> complete: size and SHA-256 -> fsync -> rename -> ack
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import ormsgpack

from elkyn.errors import NotLeader
from elkyn.replication.messages import BATCH_BYTES_MAX, VERSION, ProtocolError, decode, encode
from elkyn.storage.terms import Terms, leads_of

__all__ = ["FollowerLog", "Receiver"]


class FollowerLog(Protocol):
    """The log that received entries are appended to."""

    node: str
    fresh: bool
    """Whether the store is not a prefix of the leader's history, regardless of the positions."""

    @property
    def terms(self) -> Terms:
        """The terms of the store."""
        ...

    @property
    def position(self) -> int:
        """The position of the newest entry."""
        ...

    def mark(self, position: int) -> list[Any] | None:
        """Return what identifies the entry at `position`; None when it was dropped."""
        ...

    def set_diverged(self, *, diverged: bool) -> None:
        """Record whether the leader found that this store has diverged from its history."""
        ...

    def caught_up(self) -> None:
        """Record that the store has all entries that the leader had when the connection began."""
        ...

    def keep_terms(self, terms: Terms) -> None:
        """Store the terms that the leader sent."""
        ...

    def append(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Apply entries to the log and the tree; they are durable when this returns."""
        ...

    def begin_snapshot(self) -> None:
        """Discard the received part of an earlier snapshot."""
        ...

    def add_chunk(self, piece: bytes) -> None:
        """Store a part of a snapshot's file."""
        ...

    def install(self, size_bytes: int, sha256: str, *, aside: bool) -> None:
        """Replace the store by the snapshot; `aside`: keep the old store in a file.

        Raises:
            Corrupt: the file's size or checksum is wrong.
        """
        ...


class Receiver:
    """Follows a leader for the duration of one connection.

    Args:
        log: the following store's log.

    Attributes:
        leader_last: the leader's newest known position.
        welcomed: whether the leader has answered.
        replacing: whether a snapshot that has not arrived yet will replace the store.
    """

    def __init__(self, log: FollowerLog) -> None:
        self._log = log
        self.leader_last = 0
        # `replacing`: True from a welcome that announces a snapshot until it is installed.
        self.welcomed = self.replacing = False
        # Of the leader; frames of another term are refused.
        self._terms = Terms()
        # Whether the snapshot under way replaces writes that the leader never had: then the old
        # file is kept.
        self._diverged = False
        # The leader's position at the welcome; None once the log has reached it. A later position
        # would never be reached under steady writes.
        self._first_target: int | None = None
        # True between the first and the last frame of a snapshot.
        self._arriving = False
        # Parts of rows that were split over frames; joined when `more` is False.
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    def hello(self) -> bytes:
        """Return the first message."""
        log = self._log
        position = log.position
        said = {
            "node": log.node,
            "term": log.terms.term,
            "position": position,
            # Leads after the position say nothing about these entries: a leader's lead begins where
            # it was promoted.
            "leads": log.terms.until(position),
            "mark": None if log.fresh else log.mark(position),
            "fresh": log.fresh,
        }
        return encode("hello", VERSION, said)

    def receive(self, frame: bytes) -> bytes | None:
        """Process a message of the leader; returns the response, if any.

        Raises:
            NotLeader: the server is no longer the leader; nothing of its message was applied.
            ProtocolError: the message is invalid at this point.
            Corrupt: a snapshot was damaged in transit.
        """
        message = decode(frame)
        kind, rest = message[0], message[1:]
        if kind == "refuse":
            raise NotLeader(rest[2], message=f"the leader refuses this replica: {rest[1]}")
        if kind == "welcome" and not self.welcomed:
            self._welcome(rest[0], rest[1])
            self._note_progress()
            return None
        if not self.welcomed or kind not in ("entries", "chunk", "complete", "beat"):
            raise ProtocolError("a leader's message", reason=f"unexpected {kind}")
        term = rest[0] if kind == "beat" else rest[1]
        self._refuse_stale(term)
        if kind == "beat":
            self.leader_last = rest[1]
            return None
        if kind == "entries":
            self._entries(*rest[2:])
        elif kind == "chunk":
            self._chunk(*rest[2:])
        else:
            self._complete(*rest[2:])
        self._note_progress()
        # Also for a part of a row or a snapshot: it makes room in the leader's window, at the old
        # position.
        return encode("ack", rest[0], term, self._log.position)

    def _note_progress(self) -> None:
        target = self._first_target
        if target is not None and not self.replacing and self._log.position >= target:
            self._first_target = None
            self._log.caught_up()

    def _refuse_stale(self, term: int) -> None:
        # This store may have heard of a later term since the welcome (it was promoted, say).
        if term != self._terms.term or term < self._log.terms.term:
            raise NotLeader(self._log.terms.term)

    def _welcome(self, version: Any, said: Any) -> None:
        if version != VERSION:
            raise ProtocolError("a leader's welcome", reason=f"unsupported version {version}")
        try:
            terms = Terms(int(said["term"]), leads_of(said["leads"]))
            last, diverged = int(said["last"]), bool(said["diverged"])
            replacing = diverged or bool(said["snapshot"])
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("a leader's welcome", reason="a member is missing") from None
        self._terms = terms
        self._refuse_stale(terms.term)
        self.leader_last, self._diverged, self.replacing = last, diverged, replacing
        # Before anything else is kept: a diverged store must not be read from here on, also after a
        # crash.
        self._log.set_diverged(diverged=self._diverged)
        # With a snapshot the terms are kept after its installation: they describe its history, not
        # the old one.
        if not self.replacing:
            self._log.keep_terms(self._terms)
            self._first_target = last
        self.welcomed = True

    def _entries(self, more: bool, piece: bytes, last: int) -> None:
        self.leader_last = last
        self._parts.append(piece)
        self._parts_bytes += len(piece)
        if self._parts_bytes > BATCH_BYTES_MAX:
            raise ProtocolError("a leader's entry", reason="the entry is too large")
        if more:
            return
        packed = b"".join(self._parts)
        self._parts, self._parts_bytes = [], 0
        position = self._log.position
        # After a reconnection the leader may repeat entries; the log already has those up to
        # `position`.
        rows = [(at, row) for at, row in ormsgpack.unpackb(packed) if at > position]
        if rows:
            self._log.append(rows)

    def _chunk(self, piece: bytes) -> None:
        if not self._arriving:
            self._log.begin_snapshot()
            self._arriving = True
        self._log.add_chunk(piece)

    def _complete(self, said: Any) -> None:
        self._arriving = False
        try:
            size_bytes, sha256 = int(said["bytes"]), str(said["sha256"])
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("a leader's snapshot", reason="a member is missing") from None
        self._log.install(size_bytes, sha256, aside=self._diverged)
        self._diverged = self.replacing = False
        # Last: a crash before it leaves the new store with the terms that came inside the snapshot.
        self._log.keep_terms(replace(self._terms, fenced=0))
        self.leader_last = max(self.leader_last, said["position"])
