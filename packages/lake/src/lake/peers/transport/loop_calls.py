"""What other threads than the loop's call of a part of the network: the base of such interfaces."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from lake.peers.exchange import Exchange
from lake.peers.members.roster import Roster

__all__ = ["CalledNetwork", "LoopCalls"]

T = TypeVar("T")


class CalledNetwork(Protocol):
    """What the calls need of the network."""

    roster: Roster
    exchange: Exchange | None


class LoopCalls:
    """Runs coroutines and functions in the event loop of the network.

    Args:
        call: Runs a coroutine in the loop, and waits for it.
        network: Returns the network, or raises `Conflict` while the node is in none.
    """

    def __init__(
        self,
        call: Callable[[Coroutine[Any, Any, Any]], Any],
        network: Callable[[], CalledNetwork],
    ) -> None:
        self._call = call
        self._network = network

    def _now(self, compute: Callable[[], T]) -> T:
        """Return what a function returns that is called in the loop."""

        async def work() -> T:
            return compute()

        found: T = self._call(work())
        return found

    def _exchange(self) -> Exchange:
        exchange = self._network().exchange
        assert exchange is not None, "the service has a lake"
        return exchange
