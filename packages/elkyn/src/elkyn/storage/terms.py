"""Leader terms, which allow comparing the histories of two logs without reading them.

Each promotion begins a term with a random id: two stores that are promoted at the same time have the
same term number but different ids. The leads up to a position determine whether one log is a prefix
of another.

A line of positions, with two promotions:

    position   0 ........... 80 ........... 120 ......>
    leads      (1, 0, a)     (2, 80, b)     (3, 120, c)

    a follower at 100 that says (1, 0, a), (2, 80, b)    a prefix: it continues at 101
    one at 100 that says        (1, 0, a)                has entries 81 to 100 of the old leader
    one at 70 that says         (1, 0, a)                a prefix: term 2 began after its position

Terms have the role of Raft's (Ongaro and Ousterhout, "In Search of an Understandable Consensus
Algorithm", section 5.1), but nothing elects a leader: an operator promotes one, and two may be
promoted at once. Hence the random ids. Numbers alone were rejected: two promoted followers would
accept each other's entries.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import ormsgpack

__all__ = ["Lead", "Terms", "leads_of"]


class Lead(NamedTuple):
    """The entries after position `start` were written in `term`, by the leader that drew `id`."""

    term: int
    start: int
    id: str


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms that a store knows.

    Args:
        term: the term of its new entries, or of the leader that it followed last.
        leads: the leads, oldest first; empty until the first follower connects.
        fenced: the highest known term of another leader; 0 for none.
    """

    term: int = 1
    leads: tuple[Lead, ...] = ()
    fenced: int = 0

    @property
    def stale(self) -> bool:
        """Whether another store leads in a later term."""
        return self.fenced > self.term

    def until(self, position: int) -> tuple[Lead, ...]:
        """Return the leads under which the entries up to `position` were written."""
        # A lead at `start` begins with the entry after it, so one at exactly `position` has written
        # nothing yet.
        return tuple(lead for lead in self.leads if lead.start < position)

    def term_at(self, position: int) -> int:
        """Return the term in which the entry at `position` was written."""
        leads = self.until(position)
        return leads[-1].term if leads else 1

    def includes(self, position: int, leads: Sequence[Lead]) -> bool:
        """Whether `position` entries written under `leads` are a prefix of this history."""
        # An empty store is a prefix of every history.
        if position == 0:
            return True
        if not leads or self.leads[: len(leads)] != tuple(leads):
            return False
        # The follower's leads are a beginning of these; it must not have written on under the last
        # of them after the next one began.
        later = self.leads[len(leads) :]
        return not later or position <= later[0].start

    def named(self) -> Terms:
        """Return these terms, with a first lead if there was none."""
        return self if self.leads else replace(self, leads=(Lead(self.term, 0, _new_id()),))

    def promoted(self, position: int) -> Terms:
        """Return the terms of a store that leads from `position` on."""
        # Above every term that is known, so that the leaders of all of them step down when they
        # hear of it.
        term = max(self.term, self.fenced) + 1
        return Terms(term, (*self.until(position), Lead(term, position, _new_id())))

    def observe_term(self, term: int) -> Terms:
        """Return the terms after learning of another leader's `term`."""
        # `LeaderStore.observe_term` writes it to the disk: a deposed leader stays deposed after a
        # restart.
        return replace(self, fenced=max(self.fenced, term))

    def pack(self) -> bytes:
        """Return the terms packed as a row."""
        return ormsgpack.packb([self.term, [list(lead) for lead in self.leads], self.fenced])

    @staticmethod
    def unpack(packed: bytes | None) -> Terms:
        """Read a row; None for a store that was never promoted or followed."""
        if packed is None:
            return Terms()
        term, leads, fenced = ormsgpack.unpackb(packed)
        return Terms(term, leads_of(leads), fenced)


def leads_of(rows: Any) -> tuple[Lead, ...]:
    """Parse leads of a message; raises `ValueError` or `TypeError` for malformed ones."""
    return tuple(Lead(int(term), int(start), str(name)) for term, start, name in rows)


def _new_id() -> str:
    return secrets.token_hex(8)
