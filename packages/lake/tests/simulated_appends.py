"""Queued appends of a simulated node: what `lake.distributed.queued_appends`, `deliveries` and the writer's server do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from lake.distributed.receipts import Receipt
from lake.peers.changes.append_queue import (
    ANSWER_SECONDS,
    AppendQueue,
    Deliver,
    DropAppend,
    QueuedAppend,
    StoreAppend,
)
from lake.peers.changes.forwarding import (
    ChangeLedger,
    ChangeReply,
    ChangeRequest,
    ChangeSender,
    Step,
)
from lake.peers.transport.machine import Call, Effect, Failed, Replied
from sennit_core.errors import NotFound

if TYPE_CHECKING:
    from .simulated_node import SimulatedNode

__all__ = ["Appends"]

_SQL = "INSERT INTO t VALUES (1)"


class Appends:
    """The appends that wait at a node, and those that it makes for others.

    Args:
        node: The node, whose disk has them.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._queued: dict[str, QueuedAppend] = node.disk.setdefault("queued", {})
        self._queue = AppendQueue(self._queued.values())
        self._senders: dict[str, ChangeSender] = {}
        self._receipts: dict[str, Receipt] = node.disk.setdefault("receipts", {})
        self._ledger = ChangeLedger(self._receipts.get)

    @property
    def waiting(self) -> int:
        """The number of appends that wait."""
        return len(self._queued)

    def add(self, append: str, dataset: str, writer: str, wall: float) -> bool:
        """Queue an append; return whether it was acknowledged."""
        stored = self._queue.add(
            QueuedAppend(
                append, 0, dataset, "t", writer, "ann", "writer", _SQL, "", 60.0, wall,
                wall + ANSWER_SECONDS,
            ),
            wall,
        )  # fmt: skip
        return stored is not None and self._perform(stored)

    def tick(self, now: float) -> Iterator[Effect]:
        wall, alive = self._node.world.wall(self._node.name), self._node.members.alive()
        for effect in list(self._queue.tick(now, wall, alive)):
            if isinstance(effect, Deliver):
                each = effect.append
                request = ChangeRequest(
                    each.id, each.dataset, "t", each.sql, "", 60.0, each.expires_at
                )
                self._senders[each.id] = ChangeSender(
                    each.writer, request, now=now, answer_seconds=2.0, was_sent=each.was_sent
                )
            elif not self._perform(effect):
                return
        for name, sender in list(self._senders.items()):
            yield from self._send(name, sender, now)
            self._end(name, now)

    def _send(self, name: str, sender: ChangeSender, now: float) -> Iterator[Effect]:
        for call in sender.tick(now):
            assert isinstance(call, Call), "a sender asks"
            if not self._node.world.can_reach(self._node.name, call.peer):
                sender.failed(Failed(call.id, ChangeSender.UNREACHED), now)
            else:
                noted = self._queue.sending(name, call.peer)
                if noted is None or self._perform(noted):
                    yield self._node.call(
                        call.peer, call.message, call.timeout_seconds, (self, name), call.id
                    )

    def ended(self, name: str, number: int, result: Replied | Failed, now: float) -> None:
        """Handle the answer of a request for an append."""
        sender = self._senders.get(name)
        if sender is None:
            return
        if isinstance(result, Replied):
            sender.replied(replace(result, id=number))
        else:
            sender.failed(replace(result, id=number), now)
        self._end(name, now)

    def _end(self, name: str, now: float) -> None:
        outcome = self._senders[name].outcome
        if outcome is None:
            return
        del self._senders[name]
        effect = self._queue.ended(name, outcome, now)
        if effect is None or self._perform(effect):
            self._queue.settled(name)

    def _perform(self, effect: StoreAppend | DropAppend) -> bool:
        """Store, with a crash before or after it; return whether the node still runs."""
        if self._node.world.crashes_now(self._node.name):
            return False
        if isinstance(effect, DropAppend):
            self._queued.pop(effect.append.id, None)
        else:
            self._queued[effect.append.id] = effect.append
        self._queue.apply(effect)
        return not self._node.world.crashes_now(self._node.name)

    def serve(self, peer: str, request: ChangeRequest) -> ChangeReply:
        """Make an append for another node: the version and its receipt are one write."""
        world, node = self._node.world, self._node
        if world.datasets.get(request.dataset) != node.name:
            raise NotFound("dataset", request.dataset, None)
        if self._ledger.begin(peer, request, world.wall(node.name)) is Step.RUN:
            world.write(request.dataset)
            world.made.append(request.id)
            key = self._ledger.key(peer, request.id)
            receipt = Receipt(request.dataset, request.digest, 1, request.expires_at)
            self._receipts[key] = receipt
            self._ledger.end(peer, request)
        return ChangeReply(1, 1)
