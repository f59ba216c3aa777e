"""Messages that wait to be sent: for each node in their order, and at most so many.

A receiver may have to be dialed first, or may read nothing. Nobody waits for a message, so beyond the
limit the oldest one is dropped: the protocols repeat what does not arrive, and of two heartbeats only
the newer one counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from lake.peers.transport.messages import Message
from lake.peers.transport.session import Session
from lake.peers.transport.tasks import TaskSet
from sennit_core.errors import SennitError

__all__ = ["PENDING_MAX", "Outbox"]

PENDING_MAX = 96
"""Messages for one node: a roster of the greatest size is 64."""


class Outbox:
    """The messages of one node to all others; used in one event loop.

    Args:
        session: Returns a session with a node.
    """

    def __init__(self, session: Callable[[str], Awaitable[Session]]) -> None:
        self._session = session
        # Those of each node to which some are under way; its task ends when there are none.
        self._pending: dict[str, deque[Message]] = {}
        self._tasks = TaskSet("sending messages to nodes")
        self.dropped = 0
        """Messages that were dropped because of the limit."""

    def put(self, node: str, message: Message) -> None:
        """Send a message when those before it are sent; it may be lost."""
        pending = self._pending.get(node)
        if pending is None:
            pending = self._pending[node] = deque()
            self._tasks.spawn(self._send_all(node, pending))
        elif len(pending) >= PENDING_MAX:
            pending.popleft()
            self.dropped += 1
        pending.append(message)

    def is_busy(self, node: str) -> bool:
        """Return whether a node has still to be sent much, as when it reads more slowly than it asks."""
        return len(self._pending.get(node, ())) >= PENDING_MAX // 2

    async def end(self) -> None:
        """Drop what waits."""
        await self._tasks.end()

    async def _send_all(self, node: str, pending: deque[Message]) -> None:
        try:
            while pending:
                session = await self._session(node)
                with suppress(SennitError):  # closed meanwhile; the next one dials
                    await session.send(pending.popleft())
        finally:
            # Also if the node cannot be reached: what waits would be as old as the next attempt.
            del self._pending[node]
