"""Hand-overs for other threads than the loop's: what the interfaces call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from lake.peers.exchange import Exchange
from lake.peers.roster import Roster

__all__ = ["HandOverCalls"]


class HandOverNetwork(Protocol):
    """What hand-overs need of the network."""

    roster: Roster
    exchange: Exchange | None


class HandOverCalls:
    """See `lake.peers.handing_over` and `lake.peers.accepting_hand_overs`.

    Args:
        call: Runs a coroutine in the loop, and waits for it.
        network: Returns the network, or raises `Conflict` while the node is in none.
    """

    def __init__(
        self,
        call: Callable[[Coroutine[Any, Any, None]], None],
        network: Callable[[], HandOverNetwork],
    ) -> None:
        self._call = call
        self._network = network

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
        self._call(self._exchange().giver.undo(dataset))

    def accept(self, dataset: str, owner: str) -> None:
        """Begin to accept a dataset that its writer has offered; raises as `Taker.accept`."""
        self._call(self._exchange().taker.accept(dataset, owner))

    def _exchange(self) -> Exchange:
        exchange = self._network().exchange
        assert exchange is not None, "the service has a lake"
        return exchange
