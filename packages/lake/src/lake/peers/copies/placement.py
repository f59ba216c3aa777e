"""Which nodes are to hold a copy: weighted rendezvous hashing over zones.

Every node computes the same answer from the same members, so no node assigns copies. Each pair of key
and node has a score that only depends on the two and on the node's capacity (Thaler and Ravishankar 1998;
the weighted form is Schindelhauer and Schomaker's, 2005), so a node that comes or goes moves only the copies
that it gains or loses.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sennit_core.errors import UsageError
from sennit_core.records import Record

__all__ = ["FACTOR_MAX", "Candidate", "Placement", "holders"]

FACTOR_MAX = 16
_HASH_BITS = 64


@dataclass(frozen=True, slots=True)
class Placement(Record):
    """Where a dataset's copies are to be.

    Args:
        factor: How many nodes are to hold each shard, the writer included.
        pins: Nodes that hold every shard, by id; they count towards the factor.
        only: The only nodes that may hold one, by id; empty for any that may read the dataset.
    """

    factor: int = 1
    pins: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def is_elsewhere(self) -> bool:
        """Whether other nodes than the writer are to hold copies."""
        return self.factor > 1 or bool(self.pins)

    def with_writer(self, writer: str) -> Placement:
        """Return a placement in which the writer holds every shard."""
        only = (*self.only, writer) if self.only else ()
        return replace(self, pins=(writer, *self.pins), only=only)

    def check(self) -> None:
        """Refuse a placement that cannot be.

        Raises:
            UsageError: A number is out of range, or a pin is not among the only nodes.
        """
        if not 1 <= self.factor <= FACTOR_MAX:
            raise UsageError(f"a replication factor is from 1 to {FACTOR_MAX}, not {self.factor}")
        if self.only and not set(self.pins) <= set(self.only):
            raise UsageError(
                "a node is to hold every shard that is not among those which may hold any",
                hint="name it with --only-on too, or omit its --hold-on",
            )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may hold copies.

    Args:
        node: Its id.
        zone: Its failure domain; "" if it is one of its own.
        capacity: Bytes that it offers, its weight; nodes without are not chosen, but may be pinned.
    """

    node: str
    zone: str = ""
    capacity: int = 1


def holders(key: str, placement: Placement, candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Return the nodes that are to hold a shard: the pinned ones, then others by score.

    Zones are used one after the other: a second copy in a zone only when each zone has one. There are fewer than
    `placement.factor` if there are not enough candidates.

    Args:
        key: What is placed together: the object's id, or the bucket of co-partitioned datasets.
        placement: Where copies are to be.
        candidates: The nodes that may hold one.
    """
    allowed = [c for c in candidates if not placement.only or c.node in placement.only]
    known = {candidate.node: candidate for candidate in allowed}
    chosen = [known[node] for node in placement.pins if node in known]
    ranked = sorted(
        (c for c in allowed if c.capacity > 0 and c not in chosen),
        key=lambda candidate: (-_score(key, candidate), candidate.node),
    )
    while len(chosen) < placement.factor and ranked:
        chosen.append(_next(ranked, chosen))
        ranked.remove(chosen[-1])
    return tuple(candidate.node for candidate in chosen)


def _next(ranked: Sequence[Candidate], chosen: Sequence[Candidate]) -> Candidate:
    """Return the best of the candidates whose zone has the fewest copies."""
    used: dict[str, int] = {}
    for candidate in chosen:
        used[_zone(candidate)] = used.get(_zone(candidate), 0) + 1
    fewest = min(used.get(_zone(candidate), 0) for candidate in ranked)
    return next(c for c in ranked if used.get(_zone(c), 0) == fewest)


def _zone(candidate: Candidate) -> str:
    return f"zone {candidate.zone}" if candidate.zone else f"node {candidate.node}"


def _score(key: str, candidate: Candidate) -> float:
    digest = hashlib.blake2b(f"{key}\n{candidate.node}".encode(), digest_size=8).digest()
    # In (0, 1), as the logarithm of 0 has no value and 1 would make all scores equal.
    share = (int.from_bytes(digest, "little") + 0.5) / 2**_HASH_BITS
    return candidate.capacity / -math.log(share)
