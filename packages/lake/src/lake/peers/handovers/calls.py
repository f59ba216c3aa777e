"""Hand-overs for other threads than the loop's: what the interfaces call."""

from __future__ import annotations

from lake.peers.exchange import Exchange
from lake.peers.transport.loop_calls import LoopCalls

__all__ = ["HandOverCalls"]


class HandOverCalls(LoopCalls):
    """See `lake.peers.handovers.giving` and `lake.peers.handovers.accepting`."""

    def offer(self, dataset: str, node: str) -> None:
        """Let a node take a dataset over; raises as `Giver.offer`.

        Args:
            dataset: Its id.
            node: Id or name of a member.
        """
        taker = self._network().roster.find(node).id
        self._call(self._exchange().giver.offer(dataset, taker))

    def undo(self, dataset: str) -> None:
        """Withdraw an offer, or stop accepting one; raises as `Giver.undo`."""
        self._call(_undo(self._exchange(), dataset))

    def accept(self, dataset: str, owner: str) -> None:
        """Begin to accept a dataset that its writer has offered; raises as `Taker.accept`."""
        self._call(self._exchange().taker.accept(dataset, owner))


async def _undo(exchange: Exchange, dataset: str) -> None:
    if not await exchange.taker.undo(dataset):
        await exchange.giver.undo(dataset)
