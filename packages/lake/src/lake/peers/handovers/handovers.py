"""Statements by which the writer of a dataset hands writing over, and what follows from them.

Each statement is signed by the node that wrote until then, names the node that writes from then on, and has the
next number and the digest of the one before:

    first writer ──1──▶ second ──2──▶ third ──▶ …

A node remembers the term of the writer that it believes (`Term`). It believes another writer only by
statements that continue this term, so no member can make itself the writer, an old statement cannot be shown again,
and of two that were signed under one number a node keeps to the one that it saw first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lake.catalog.node_key import NodeKey
from lake.peers.transport.signed import Statement, sign
from sennit_core.errors import Conflict, Denied
from sennit_core.records import Record

__all__ = ["HANDOVERS_MAX", "HandOver", "HandOvers", "Term", "givers_of"]

_KIND = "hand-over"
HANDOVERS_MAX = 16
"""Of one dataset; the chain is a part of its description."""


@dataclass(frozen=True, slots=True)
class HandOver(Record):
    """What the writer of a dataset signs when it stops.

    Args:
        network: The id of the network.
        dataset: The dataset's id.
        number: 1 for the first hand-over of the dataset, and so on.
        previous: Digest of the hand-over before; "" for the first.
        giver: The node that wrote.
        taker: The node that writes from now on.
        head: The last snapshot of the giver.
        manifest: Object id of its manifest.
        version: Its number.
    """

    network: str
    dataset: str
    number: int
    previous: str
    giver: str
    taker: str
    head: str
    manifest: str
    version: int


@dataclass(frozen=True, slots=True)
class Term(Record):
    """Who writes a dataset, and by which hand-over.

    Args:
        writer: The node.
        number: Of the hand-over; 0 if there was none.
        digest: Of the hand-over; "" if there was none.
        version: The first version that the writer may publish.
    """

    writer: str
    number: int = 0
    digest: str = ""
    version: int = 1

    @classmethod
    def of(cls, first: str, chain: Sequence[Statement]) -> Term:
        """Return the newest term of a chain that was checked; that of the first writer if it is empty."""
        if not chain:
            return cls(first)
        last = HandOver.from_known(chain[-1].body)
        return cls(last.taker, last.number, chain[-1].digest, last.version)


class HandOvers:
    """Signs hand-overs of this node, and checks those of others.

    Args:
        key: The node's key.
        network: The id of the network.
    """

    def __init__(self, key: NodeKey, network: str) -> None:
        self._key = key
        self._network = network

    def sign(
        self, dataset: str, term: Term, taker: str, head: tuple[str, str, int], now: float
    ) -> Statement:
        """Return the statement that ends this node's term.

        Args:
            dataset: The dataset's id.
            term: This node's.
            taker: The node that writes from now on.
            head: The last snapshot, the object id of its manifest, and its number.
            now: Unix seconds.

        Raises:
            Denied: Another node writes the dataset.
            Conflict: It was handed over too often.
        """
        if term.writer != self._key.id:
            raise Denied(f"handing dataset {dataset} over, which node {term.writer[:16]} writes")
        self.check_length(dataset, term)
        body = HandOver(
            self._network, dataset, term.number + 1, term.digest, self._key.id, taker, *head
        )
        # It has to convince nodes that were away for any time, so it never expires.
        return sign(self._key, _KIND, body.to_json(), now=now)

    @staticmethod
    def check_length(dataset: str, term: Term) -> None:
        """Refuse a term that cannot be ended by one more statement.

        Raises:
            Conflict: The dataset was handed over too often.
        """
        if term.number >= HANDOVERS_MAX:
            raise Conflict(
                f"dataset {dataset} was handed over {HANDOVERS_MAX} times, the most that are possible",
                hint="copy it under another name: platform fork",
            )

    def follow(self, dataset: str, term: Term, chain: Sequence[Statement], now: float) -> Term:
        """Return the newest term that a chain of statements leads to.

        Args:
            dataset: The dataset's id.
            term: The term that this node believes.
            chain: All hand-overs of the dataset, the oldest first, as its publisher sends them.
            now: Unix seconds.

        Raises:
            Denied: The chain is damaged, too long, of another dataset, older than the term, or does
                not contain the hand-over of the term.
        """
        if len(chain) > HANDOVERS_MAX:
            raise _refused(dataset, f"there are {len(chain)}, of at most {HANDOVERS_MAX}")
        if len(chain) < term.number:
            raise _refused(dataset, f"they end before hand-over {term.number}, which is known")
        if term.number and chain[term.number - 1].digest != term.digest:
            raise _refused(dataset, f"hand-over {term.number} is not the one that is known")
        for statement in chain[term.number :]:
            term = self._next(dataset, term, statement, now)
        return term

    def _next(self, dataset: str, term: Term, statement: Statement, now: float) -> Term:
        found = HandOver.from_known(statement.verify(_KIND, now, signer=term.writer))
        if (found.network, found.dataset, found.giver) != (self._network, dataset, term.writer):
            raise _refused(dataset, "one is of another dataset, network or writer")
        if (found.number, found.previous) != (term.number + 1, term.digest):
            raise _refused(dataset, f"the one after number {term.number} does not continue it")
        if found.version < term.version or found.taker == found.giver:
            raise _refused(dataset, f"number {found.number} is not possible")
        return Term(found.taker, found.number, statement.digest, found.version)


def givers_of(chain: Sequence[Statement]) -> list[str]:
    """Return the nodes that have signed hand-overs, the first writer first."""
    return [statement.signer for statement in chain]


def _refused(dataset: str, reason: str) -> Denied:
    return Denied(f"accepting the hand-overs of dataset {dataset[:40]}: {reason}")
