"""The leader side of the protocol, as a state machine without socket, clock or thread.

The states of a `Sender`:

    hello ----> refuse                              (another version, or this store does not lead)
      |
      +-------> welcome, snapshot -> needs_snapshot -> offer -> chunk ... complete --+
      +-------> welcome ----------------------------------------------> entries ... <+
                                                                          |
      the log was trimmed below `_sent` (PositionGone): needs_snapshot <--+
      the store no longer leads in `_term`: refuse

Memory per follower is bounded by `WINDOW` frames in flight (2 MiB) and one read of the log that is
being split, regardless of its lag: the log itself is the queue.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any, Protocol

import ormsgpack

from elkyn.errors import PositionGone
from elkyn.replication.messages import (
    FRAME_BYTES,
    VERSION,
    WINDOW,
    ProtocolError,
    decode,
    encode,
)
from elkyn.storage.terms import Terms, leads_of

__all__ = ["LeaderLog", "Sender", "SnapshotFile"]

_ROWS_BYTES = FRAME_BYTES


class SnapshotFile(Protocol):
    """A store's file at one position, to be sent in chunks."""

    position: int
    size_bytes: int
    sha256: str

    def read(self, count: int) -> bytes:
        """Return the next bytes; empty at the end."""
        ...

    def close(self) -> None:
        """Delete the file; idempotent."""
        ...


class LeaderLog(Protocol):
    """The log to send."""

    @property
    def terms(self) -> Terms:
        """The terms of the store, with at least one lead."""
        ...

    @property
    def leads(self) -> bool:
        """Whether the store leads: it does not follow another one, and no other was promoted."""
        ...

    @property
    def last(self) -> int:
        """The position of the newest entry."""
        ...

    def mark(self, position: int) -> list[Any] | None:
        """Return what identifies the entry at `position`; None when it was dropped."""
        ...

    def covers(self, after: int) -> bool:
        """Whether the log holds every entry after `after`."""
        ...

    def rows(self, after: int, bytes_max: int) -> list[tuple[int, bytes]]:
        """Return rows after `after`; raises `PositionGone` when they were dropped."""
        ...

    def observe_term(self, term: int) -> None:
        """Stop leading: another store was promoted to a later term."""
        ...

    def acked(self, node: str, position: int) -> None:
        """Record that a follower has everything up to `position` on its disk."""
        ...


class Sender:
    """Sends a log to one follower: a snapshot if needed, then entries.

    Args:
        log: the log to send.

    Attributes:
        node: the follower's id, known after its hello.
        needs_snapshot: whether the caller must call `offer` with a file.
        ended: the reason to close the connection once the result of `receive` is sent, or None.
        position: the last position that the follower has acknowledged.
    """

    def __init__(self, log: LeaderLog) -> None:
        self._log = log
        self.node: str | None = None
        self.needs_snapshot = False
        self.ended: str | None = None
        self.position = 0
        # The term at the welcome. Every frame carries it, and the connection ends when it is no
        # longer current.
        self._term = 0
        self._sent = 0  # the last position read from the log
        # The numbers of the last frame and of the last acknowledged one: `_acked` is at most
        # `_number`, and at most `WINDOW` frames are between them.
        self._number = 0
        self._acked = 0
        self._good_from = 0  # acknowledgements of earlier frames refer to another history
        # Not None while a snapshot is being sent; `close` deletes its file.
        self._snapshot: SnapshotFile | None = None
        # Parts of rows that were read (`_sent`) and not sent yet, each with whether more parts
        # follow.
        self._pieces: deque[tuple[bool, bytes]] = deque()

    @property
    def in_flight(self) -> int:
        """The number of frames that wait for an acknowledgement."""
        return self._number - self._acked

    @property
    def following(self) -> bool:
        """Whether the follower has been welcomed."""
        return self.node is not None and self.ended is None

    @property
    def ready(self) -> bool:
        """Whether `next` may return a frame; cheap."""
        if not self.following or self.needs_snapshot or self.in_flight >= WINDOW:
            return False
        waits = self._snapshot is not None or bool(self._pieces) or self._sent < self._log.last
        # `next` must also be called to refuse a follower after a change of the term.
        return waits or not self._current()

    def receive(self, frame: bytes) -> list[bytes]:
        """Process a message of the follower; returns the response.

        Raises:
            ProtocolError: the message is invalid at this point.
        """
        message = decode(frame)
        if message[0] == "hello" and self.node is None:
            return [self._hello(message[1], message[2])]
        if message[0] == "ack" and self.node is not None:
            return self._ack(*message[1:])
        raise ProtocolError("a follower's message", reason=f"unexpected {message[0]}")

    def _hello(self, version: Any, asked: Any) -> bytes:
        if version != VERSION:
            return self._refuse("version", f"this leader supports version {VERSION}")
        try:
            node, term = str(asked["node"]), int(asked["term"])
            position, leads = int(asked["position"]), leads_of(asked["leads"])
            mark, fresh = asked["mark"], bool(asked["fresh"])
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("a follower's hello", reason="a member is missing") from None
        # The follower has followed a later leader, so this store was deposed. Written down first:
        # the refusal below then holds after a restart too (compare Raft, section 5.1: a stale
        # leader steps down).
        if term > self._log.terms.term:
            self._log.observe_term(term)
        if not self._log.leads:
            return self._refuse("not-leader", "this server is not the leader: follow the leader")
        terms = self._log.terms
        # Equal leads do not exclude a difference: the leader may have been restored from a backup
        # since. The last entry is compared as well (compare the consistency check of Raft's
        # AppendEntries, section 5.3).
        same = self._same(position, mark)
        diverged = not (terms.includes(position, leads) and position <= self._log.last and same)
        self.node, self._term = node, terms.term
        self.position = self._sent = position
        self.needs_snapshot = fresh or diverged or not self._log.covers(position)
        if self.needs_snapshot:
            # Until the snapshot is complete, acknowledgements name positions of the follower's old
            # history.
            self.position, self._good_from = 0, sys.maxsize
        else:
            # It is a prefix: what it has counts for waiting writes at once.
            self._log.acked(node, position)
        said = {
            "term": terms.term,
            "leads": terms.leads,
            "last": self._log.last,
            "diverged": diverged,
            "snapshot": self.needs_snapshot,
        }
        return encode("welcome", VERSION, said)

    def _same(self, position: int, mark: Any) -> bool:
        if position == 0 or mark is None:
            return True
        known = self._log.mark(position)
        # Trimmed here: only the leads can be compared.
        if known is None:
            return position <= self._log.last
        # The digest is None where one side has no whole row: after a snapshot of subtrees.
        return bool(known[:2] == mark[:2] and (mark[2] is None or known[2] == mark[2]))

    def _refuse(self, reason: str, text: str) -> bytes:
        self.ended = reason
        return encode("refuse", reason, text, max(self._log.terms.term, self._log.terms.fenced))

    def _ack(self, number: Any, term: Any, position: Any) -> list[bytes]:
        if not all(isinstance(value, int) for value in (number, term, position)):
            raise ProtocolError("an acknowledgement", reason="a member is not a number")
        if term != self._term or not self._current():
            return [self._refuse("term", f"this connection was of term {self._term}")]
        if not self._acked <= number <= self._number:
            raise ProtocolError("an acknowledgement", reason="there was no such frame or position")
        self._acked = number
        # A frame before the end of the snapshot: it only makes room in the window.
        if number < self._good_from:
            return []
        if position > self._sent:
            raise ProtocolError("an acknowledgement", reason="there was no such frame or position")
        self.position = max(self.position, position)
        if self.node is not None:
            self._log.acked(self.node, position)
        return []

    def _current(self) -> bool:
        return self._log.leads and self._log.terms.term == self._term

    def offer(self, snapshot: SnapshotFile) -> None:
        """Send `snapshot`, and close it afterwards."""
        self.needs_snapshot = False
        self._pieces.clear()
        self._snapshot = snapshot

    def next(self) -> bytes | None:
        """Return the next frame that may be sent; None when there is nothing to send now."""
        if not self.ready:
            return None
        if not self._current():
            return self._refuse("term", f"this connection was of term {self._term}")
        if self._snapshot is not None:
            return self._of_snapshot(self._snapshot)
        if not self._pieces and not self._read():
            return None
        more, piece = self._pieces.popleft()
        return self._numbered("entries", more, piece, self._log.last)

    def _numbered(self, kind: str, *rest: Any) -> bytes:
        self._number += 1
        return encode(kind, self._number, self._term, *rest)

    def _of_snapshot(self, snapshot: SnapshotFile) -> bytes:
        piece = snapshot.read(FRAME_BYTES)
        if piece:
            return self._numbered("chunk", piece)
        said = {
            "position": snapshot.position,
            "bytes": snapshot.size_bytes,
            "sha256": snapshot.sha256,
        }
        # Entries continue after the snapshot's position.
        self._sent = snapshot.position
        self.close()
        # From the next frame on, the one of `complete`: its acknowledgement says that the snapshot
        # is installed.
        self._good_from = min(self._good_from, self._number + 1)
        return self._numbered("complete", said)

    def _read(self) -> bool:
        if self._sent >= self._log.last:
            return False
        try:
            rows = self._log.rows(self._sent, _ROWS_BYTES)
        except PositionGone:
            # The follower was too slow for the log: it gets a snapshot instead of holding up the
            # trimming.
            self.needs_snapshot = True
            return False
        if not rows:
            return False
        packed = ormsgpack.packb(rows)
        # Position of what was read; `position`, the acknowledged one, follows when the follower has
        # it on disk.
        self._sent = rows[-1][0]
        for at in range(0, len(packed), FRAME_BYTES):
            self._pieces.append((at + FRAME_BYTES < len(packed), packed[at : at + FRAME_BYTES]))
        return True

    def beat(self) -> bytes | None:
        """Return a heartbeat; None when the follower has not been welcomed yet."""
        return encode("beat", self._term, self._log.last) if self.following else None

    def close(self) -> None:
        """Close a snapshot that is being sent."""
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None
