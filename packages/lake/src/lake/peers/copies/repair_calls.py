"""Repairs for other threads than the loop's: what the interfaces call."""

from __future__ import annotations

from lake.peers.copies.repairs import Repairs, Suspected
from lake.peers.transport.loop_calls import LoopCalls

__all__ = ["RepairCalls"]


class RepairCalls(LoopCalls):
    """See `lake.peers.copies.repairs`."""

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

    def _repairs(self) -> Repairs:
        return self._exchange().repairs
