"""Hand-overs of a simulated node: what `lake.peers.handovers.giving` and `accepting_hand_overs` do, and adoption of them.

The decisions (`handover_steps`), the terms and the signatures are those of the product.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lake.catalog.node_key import NodeKey
from lake.peers.copies.placement import Placement
from lake.peers.handovers import steps
from lake.peers.handovers.handovers import HANDOVERS_MAX, HandOvers, Term, givers_of
from lake.peers.handovers.messages import HandOverRefusal, HandOverReply, HandOverRequest
from lake.peers.handovers.rows import (
    ACCEPTING,
    OFFERED,
    REFUSED,
    SETTLED,
    SIGNED,
    STOPPED,
    HandOverRow,
    HandOverTable,
    Terms,
)
from lake.peers.handovers.steps import Answer
from lake.peers.sharing.adoption import _until_followed
from lake.peers.sharing.sharing import SharedDataset
from lake.peers.transport.machine import Effect, Failed, Replied
from lake.peers.transport.messages import Message
from sennit_core.errors import Denied, NotFound, SennitError
from sennit_core.records import DatasetInfo
from sennit_core.schema import Schema

from .simulated_data import Version, described

if TYPE_CHECKING:
    from .simulated_node import SimulatedNode

__all__ = ["Transfers", "key_of"]

NETWORK = "simulated"
STOPPED_SECONDS = 20.0
_RETRY_SECONDS = (0.5, 6.0)
_ASK_SECONDS = 3.0
UNDER_WAY = (STOPPED, SIGNED, ACCEPTING, REFUSED)


class _Key(NodeKey):
    """A key that follows from a number, so that a seed decides all signatures."""

    def __init__(self, number: int) -> None:
        super().__init__(Path())
        seed = hashlib.sha256(f"key {number}".encode()).digest()
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key().public_bytes_raw()


@cache
def key_of(number: int) -> NodeKey:
    """Return the key of a node of a simulated network."""
    return _Key(number)


@dataclass(slots=True, eq=False)
class _Attempt:
    at: float = 0.0
    wait: float = _RETRY_SECONDS[0]
    is_asking: bool = False


class Transfers:
    """The hand-overs of a simulated node.

    Args:
        node: The node, whose disk has the rows.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self.rows: dict[str, HandOverRow] = node.disk.setdefault("handovers", {})
        self._statements = HandOvers(node.world.keys[node.name], NETWORK)
        self._terms = Terms(node.name, cast("HandOverTable", self), self._statements)
        self._attempts: dict[str, _Attempt] = {}
        now = node.world.simulation.clock(node.name)
        self._stopped = {d: now for d, row in self.rows.items() if row.state == STOPPED}

    def get(self, dataset: str) -> HandOverRow:
        return self.rows.get(dataset) or HandOverRow(SETTLED)

    # What other parts of the node ask

    def writes(self, dataset: str) -> bool:
        """Return whether this node commits to a dataset."""
        known = self._node.shared.get(dataset)
        is_own = known is not None and known[0] == self._node.name
        return is_own and steps.commits(self.get(dataset))

    def is_frozen(self, dataset: str) -> bool:
        return self.get(dataset).state in (STOPPED, SIGNED)

    def needs(self, name: str) -> bool:
        """Return whether an object stays, though another node writes its dataset."""
        held = [d for d, row in self.rows.items() if row.state in (STOPPED, SIGNED, ACCEPTING)]
        return any(name in v.names for d in held for v in self._node.versions.get(d, ()))

    def chain_of(self, dataset: str) -> tuple[Any, ...]:
        return self.get(dataset).chain

    def moved(self) -> Iterator[SharedDataset]:
        """Yield what this node publishes of datasets that it wrote before."""
        for dataset, row in self.rows.items():
            known = self._node.shared.get(dataset)
            is_giver = self._node.name in givers_of(row.chain)
            if is_giver and known is not None and known[0] != self._node.name:
                yield SharedDataset(
                    dataset, dataset, "", "", "", 1, 1.0, ("*",), Placement(), handovers=row.chain
                )

    # Adoption

    def follow(self, publisher: str, shared: SharedDataset) -> tuple[Term, SharedDataset] | None:
        """Return by which term a node publishes a dataset; None if it wrote it before."""
        known = self._known(shared.id)
        if known is None or known.node == publisher:
            shared = _until_followed(shared, publisher)
        wall = self._node.world.wall(self._node.name)
        term = self._terms.follow(shared.id, known, publisher, shared.handovers, wall)
        if term is not None and shared.version < term.version:
            raise Denied("publishing a version from before it wrote the dataset")
        return None if term is None else (term, shared)

    def adopted(self, shared: SharedDataset) -> None:
        """Note, with the adoption of a dataset, who writes it."""
        row = self.get(shared.id)
        if row.chain == shared.handovers and row.state not in (STOPPED, SIGNED):
            return
        state = ACCEPTING if row.state == ACCEPTING else SETTLED
        peer = row.peer if state == ACCEPTING else ""
        self.rows[shared.id] = replace(row, state=state, peer=peer, chain=shared.handovers)

    def _known(self, dataset: str) -> DatasetInfo | None:
        known = self._node.shared.get(dataset)
        if known is None:
            return None
        row = self.get(dataset)
        writer = row.peer if row.state in (STOPPED, SIGNED) else known[0]
        node = None if writer == self._node.name else writer
        return DatasetInfo(dataset, dataset, "", Schema(()), node=node)

    # Users

    def offer(self, dataset: str, taker: str) -> None:
        row = self.get(dataset)
        is_free = row.state == SETTLED or (row.state == OFFERED and row.peer == taker)
        if self.writes(dataset) and is_free and len(row.chain) < HANDOVERS_MAX:
            self._store(dataset, steps.offered(row, taker))

    def accept(self, dataset: str) -> None:
        row, known = self.get(dataset), self._node.shared.get(dataset)
        if row.state in (SETTLED, REFUSED) and known is not None and known[0] != self._node.name:
            self._store(dataset, steps.accepted(row, known[0], "ann"))

    def undo(self, dataset: str) -> None:
        row = self.get(dataset)
        if row.state in (OFFERED, STOPPED):
            self._store(dataset, steps.ended(row))
        elif row.state == ACCEPTING:
            self._store(dataset, steps.refused(row, "undone"))

    # The giver

    def serve(self, peer: str, message: Message) -> HandOverReply:
        """Answer the node to which a dataset was offered."""
        assert isinstance(message, HandOverRequest | HandOverRefusal)
        dataset = message.dataset
        row = self.get(dataset)
        if not steps.is_asked_by(row, peer):
            raise NotFound("dataset offered to this node", dataset, suggestion=None)
        if isinstance(message, HandOverRefusal):
            if row.state != SIGNED:
                self._store(dataset, steps.ended(row, message.reason))
            return HandOverReply(row.chain if row.state == SIGNED else ())
        self._stopped[dataset] = self._node.world.simulation.clock(self._node.name)
        versions = self._node.versions[dataset]
        head = versions[-1]
        match steps.answer(row, message.manifest, head.manifest, [v.manifest for v in versions]):
            case Answer.REPEAT:
                return HandOverReply(row.chain)
            case Answer.STOP:
                self._store(dataset, replace(row, state=STOPPED))
            case Answer.SIGN:
                return HandOverReply(self._sign(dataset, row, head))
        return HandOverReply()

    def _sign(self, dataset: str, row: HandOverRow, head: Version) -> tuple[Any, ...]:
        known = self._known(dataset)
        assert known is not None
        statement = self._statements.sign(
            dataset, self._terms.current(dataset, known), row.peer,
            (f"s{head.number}", head.manifest, head.number),
            self._node.world.wall(self._node.name),
        )  # fmt: skip
        signed = replace(row, state=SIGNED, chain=(*row.chain, statement))
        return signed.chain if self._store(dataset, signed) else ()

    # Time

    def tick(self, now: float) -> Iterator[Effect]:
        for dataset, asked_at in list(self._stopped.items()):
            row = self.get(dataset)
            if row.state != STOPPED:
                del self._stopped[dataset]
            elif now - asked_at > STOPPED_SECONDS:
                self._store(dataset, steps.resumed(row))
        for dataset, row in list(self.rows.items()):
            if row.state in (ACCEPTING, REFUSED):
                attempt = self._attempts.setdefault(dataset, _Attempt())
                if not attempt.is_asking and attempt.at <= now:
                    attempt.at = now + attempt.wait
                    attempt.wait = min(2 * attempt.wait, _RETRY_SECONDS[1])
                    yield from self._ask(dataset, row, attempt)

    def _ask(self, dataset: str, row: HandOverRow, attempt: _Attempt) -> Iterator[Effect]:
        message: Message
        if row.state == REFUSED:
            message = HandOverRefusal(dataset, row.refusal)
        elif missing := self._missing(dataset):
            self._fetch(dataset, row.peer, missing)
            return
        else:
            message = HandOverRequest(dataset, self._node.versions[dataset][-1].manifest)
        attempt.is_asking = True
        yield self._node.call(row.peer, message, _ASK_SECONDS, (self, dataset, row.state), 0)

    def _missing(self, dataset: str) -> list[str]:
        names = {name for version in self._node.versions[dataset] for name in version.names}
        return sorted(names - self._node.objects.keys())

    def _fetch(self, dataset: str, writer: str, names: Iterable[str]) -> None:
        transfers, sources = self._node.transfers, [writer, *self._node.members.alive()]
        for name in names:
            if (
                dataset,
                name,
            ) not in transfers.objects:  # new sources would keep what is nowhere from its end
                transfers.want(dataset, name, sources, by="hand-over")

    def ended(self, dataset: str, state: str, result: Replied | Failed) -> None:
        """Handle the answer of the giver."""
        self._attempts[dataset].is_asking = False
        row = self.get(dataset)
        if row.state != state:
            return
        if isinstance(result, Replied):
            self._attempts[dataset].wait = _RETRY_SECONDS[0]
        chain = result.message.chain if isinstance(result, Replied) else ()  # type: ignore[attr-defined]
        is_refused = isinstance(result, Failed) and result.code == "not-found"
        if state == REFUSED and chain:
            self._store(dataset, steps.accepted(row, row.peer, row.owner))
        elif state == REFUSED and (is_refused or isinstance(result, Replied)):
            self._store(dataset, steps.ended(row, row.refusal))
        elif state == ACCEPTING and is_refused:
            self._store(dataset, steps.refused(row, "not offered"))
        elif state == ACCEPTING and chain:
            self._take(dataset, row, chain)

    def _take(self, dataset: str, row: HandOverRow, chain: tuple[Any, ...]) -> None:
        """Become the writer, in one write."""
        node, known = self._node, self._known(dataset)
        assert known is not None
        head = node.versions[dataset][-1]
        try:
            wall = node.world.wall(node.name)
            term = self._terms.follow(dataset, known, node.name, chain, wall)
        except SennitError:  # a clock is wrong, or it follows another writer meanwhile
            return
        is_last = chain[-1].body["manifest"] == head.manifest
        if term is None or known.node is None or not is_last or self._missing(dataset):
            return
        shared = SharedDataset.from_json(described(head, node.world.size.factor))
        if self._store(dataset, HandOverRow(SETTLED, chain), replace(shared, handovers=chain)):
            node.copies.soon()

    def _store(self, dataset: str, row: HandOverRow, own: SharedDataset | None = None) -> bool:
        """Write a row, with a crash before or after that; return whether the node still runs.

        Args:
            dataset: The dataset's id.
            row: The row.
            own: How this node describes the dataset from now on, in the same write.
        """
        node = self._node
        if node.world.crashes_now(node.name):
            return False
        self.rows[dataset] = row
        if own is not None:
            node.take(own)
        return not node.world.crashes_now(node.name)
