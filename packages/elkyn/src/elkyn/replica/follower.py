"""The follower's side of a connection, without socket, clock or thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import ormsgpack

from elkyn.errors import NotLeader
from elkyn.replica.messages import BATCH_BYTES_MAX, VERSION, ProtocolError, decode, encode
from elkyn.replica.terms import Terms, leads_of

__all__ = ["FollowerLog", "Receiver"]


class FollowerLog(Protocol):
    """The log that grows by what is received."""

    node: str
    fresh: bool
    """Whether what is there is no beginning of what the leader has, whatever the positions say."""

    @property
    def terms(self) -> Terms:
        """The terms of the store."""
        ...

    @property
    def position(self) -> int:
        """The position of the newest entry."""
        ...

    def mark(self, position: int) -> list[Any] | None:
        """Return what tells the entry at `position` from others; None when it is gone."""
        ...

    def judged(self, *, diverged: bool) -> None:
        """Note whether the leader has said that what is there is no beginning of what it has."""
        ...

    def caught_up(self) -> None:
        """Record that everything is there that the leader had when the connection began."""
        ...

    def keep_terms(self, terms: Terms) -> None:
        """Keep what the leader said of terms."""
        ...

    def append(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Add entries to the log and to the tree; they are on the disk when this returns."""
        ...

    def begin_snapshot(self) -> None:
        """Throw away what arrived of an earlier snapshot."""
        ...

    def add_chunk(self, piece: bytes) -> None:
        """Keep some of a snapshot's file."""
        ...

    def install(self, size_bytes: int, sha256: str, *, aside: bool) -> None:
        """Put the snapshot in the place of the store; `aside`: keep what was there, in a file.

        Raises:
            Corrupt: it is not the file that was sent.
        """
        ...


class Receiver:
    """Follows a leader for as long as one connection lasts.

    Args:
        log: what follows.

    Attributes:
        leader_last: the leader's newest position, as far as it is known.
        welcomed: whether the leader has answered.
        replacing: whether what is there is to be replaced by a snapshot, which has not come yet.
    """

    def __init__(self, log: FollowerLog) -> None:
        self._log = log
        self.leader_last = 0
        self.welcomed = self.replacing = False
        self._terms = Terms()
        self._diverged = False
        # The leader's position at the welcome; None once the log has reached it. A later position
        # would never be reached under steady writes.
        self._first_target: int | None = None
        self._arriving = False
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
            "leads": log.terms.until(position),
            "mark": None if log.fresh else log.mark(position),
            "fresh": log.fresh,
        }
        return encode("hello", VERSION, said)

    def receive(self, frame: bytes) -> bytes | None:
        """Take a message of the leader; returns the answer, if there is one.

        Raises:
            NotLeader: who answers there leads no more; nothing of it was taken.
            ProtocolError: it makes no sense here.
            Corrupt: a snapshot was damaged on its way.
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
            raise ProtocolError("a leader's message", reason=f"{kind} does not belong here")
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
        return encode("ack", rest[0], term, self._log.position)

    def _note_progress(self) -> None:
        target = self._first_target
        if target is not None and not self.replacing and self._log.position >= target:
            self._first_target = None
            self._log.caught_up()

    def _refuse_stale(self, term: int) -> None:
        if term != self._terms.term or term < self._log.terms.term:
            raise NotLeader(self._log.terms.term)

    def _welcome(self, version: Any, said: Any) -> None:
        if version != VERSION:
            raise ProtocolError("a leader's welcome", reason=f"it speaks version {version}")
        try:
            terms = Terms(int(said["term"]), leads_of(said["leads"]))
            last, diverged = int(said["last"]), bool(said["diverged"])
            replacing = diverged or bool(said["snapshot"])
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("a leader's welcome", reason="a part is missing") from None
        self._terms = terms
        self._refuse_stale(terms.term)
        self.leader_last, self._diverged, self.replacing = last, diverged, replacing
        self._log.judged(diverged=self._diverged)
        if not self.replacing:
            self._log.keep_terms(self._terms)
            self._first_target = last
        self.welcomed = True

    def _entries(self, more: bool, piece: bytes, last: int) -> None:
        self.leader_last = last
        self._parts.append(piece)
        self._parts_bytes += len(piece)
        if self._parts_bytes > BATCH_BYTES_MAX:
            raise ProtocolError("a leader's entry", reason="it is too large")
        if more:
            return
        packed = b"".join(self._parts)
        self._parts, self._parts_bytes = [], 0
        position = self._log.position
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
            raise ProtocolError("a leader's snapshot", reason="a part is missing") from None
        self._log.install(size_bytes, sha256, aside=self._diverged)
        self._diverged = self.replacing = False
        self._log.keep_terms(replace(self._terms, fenced=0))
        self.leader_last = max(self.leader_last, said["position"])
