"""Repairs for other threads than the loop's: what the interfaces call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from lake.peers.repairs import Repairs, Suspected

if TYPE_CHECKING:
    from lake.peers.joined import JoinedNetwork

__all__ = ["RepairCalls"]

T = TypeVar("T")


class RepairCalls:
    """See `lake.peers.repairs`.

    Args:
        call: Runs a coroutine in the loop, and waits for it.
        network: Returns the network, or raises `Conflict` while the node is in none.
    """

    def __init__(
        self,
        call: Callable[[Coroutine[Any, Any, Any]], Any],
        network: Callable[[], JoinedNetwork],
    ) -> None:
        self._call = call
        self._network = network

    def repair(self) -> None:
        """Let all nodes look at their copies now, and count nodes as lost as soon as they are dead."""
        self._call(self._repairs().repair_everywhere())

    def ask_for_copies(self) -> None:
        """Ask again where copies are that no node has confirmed."""
        self._now(self._repairs().ask_for_copies)

    def missing_chunks(self) -> int:
        """Return how many chunks of copies this node is still to fetch."""
        return self._now(self._repairs().missing_chunks)

    def suspected(self) -> list[Suspected]:
        """Return the nodes that do not answer and are not counted as dead yet."""
        return self._now(self._repairs().suspected)

    def _now(self, compute: Callable[[], T]) -> T:
        async def work() -> T:
            return compute()

        found: T = self._call(work())
        return found

    def _repairs(self) -> Repairs:
        exchange = self._network().exchange
        assert exchange is not None, "the service has a lake"
        return exchange.repairs
