"""Terms: who led when, so that two logs can be compared without reading them.

Each promotion begins a term, under a random id: two stores that were promoted at the same time have
the same number but not the same id. Positions and the leads up to them say whether one log is a
beginning of another.
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
    """What a store knows of terms.

    Args:
        term: what its new entries carry, and what it has followed last.
        leads: who led, oldest first; empty until the first follower comes.
        fenced: the highest term that another leader was heard to have; 0 for none.
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
        return tuple(lead for lead in self.leads if lead.start < position)

    def term_at(self, position: int) -> int:
        """Return the term in which the entry at `position` was written."""
        leads = self.until(position)
        return leads[-1].term if leads else 1

    def includes(self, position: int, leads: Sequence[Lead]) -> bool:
        """Whether `position` entries written under `leads` are a beginning of this history."""
        if position == 0:
            return True
        if not leads or self.leads[: len(leads)] != tuple(leads):
            return False
        later = self.leads[len(leads) :]
        return not later or position <= later[0].start

    def named(self) -> Terms:
        """Return the same with a first lead, when there was none."""
        return self if self.leads else replace(self, leads=(Lead(self.term, 0, _new_id()),))

    def promoted(self, position: int) -> Terms:
        """Return the terms of a store that leads from `position` on."""
        term = max(self.term, self.fenced) + 1
        return Terms(term, (*self.until(position), Lead(term, position, _new_id())))

    def heard(self, term: int) -> Terms:
        """Return the terms after `term` was heard of."""
        return replace(self, fenced=max(self.fenced, term))

    def pack(self) -> bytes:
        """Return the row that keeps them."""
        return ormsgpack.packb([self.term, [list(lead) for lead in self.leads], self.fenced])

    @staticmethod
    def unpack(packed: bytes | None) -> Terms:
        """Read a row; None for a store that was never promoted nor followed."""
        if packed is None:
            return Terms()
        term, leads, fenced = ormsgpack.unpackb(packed)
        return Terms(term, leads_of(leads), fenced)


def leads_of(rows: Any) -> tuple[Lead, ...]:
    """Read leads as they are sent; raises `ValueError` or `TypeError` for other things."""
    return tuple(Lead(int(term), int(start), str(name)) for term, start, name in rows)


def _new_id() -> str:
    return secrets.token_hex(8)
