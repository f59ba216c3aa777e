"""Addresses of members that the owner of a node has set, for when none is reached where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from lake.peers.members.roster import Roster
from lake.peers.transport.channel import Channel, dial_any
from lake.peers.transport.identity import Identity
from sennit_core.errors import SennitError

__all__ = ["Bootstrap"]


class Bootstrap:
    """Connects to the members at some addresses, which know where the others are.

    Args:
        identity: This node's.
        roster: The members.
        addresses: Where to try. No peer has announced them, so they may be any.
    """

    def __init__(self, identity: Identity, roster: Roster, addresses: Sequence[str]) -> None:
        self._identity = identity
        self._roster = roster
        self._addresses = tuple(addresses)
        # Of all members that are dialed at the same time, one tries the addresses.
        self._lock = asyncio.Lock()

    async def reach(
        self,
        node: str,
        is_isolated: Callable[[], bool],
        start: Callable[[Channel], Awaitable[object]],
    ) -> Channel | None:
        """Start a session with each member that answers; return the channel to the wanted node.

        Args:
            node: The wanted node, whose session the caller starts.
            is_isolated: Whether there is no session with any node, so that this is needed.
            start: Starts a session over a channel.
        """
        async with self._lock:
            if not is_isolated():
                return None
            for address in self._addresses:
                with suppress(SennitError):
                    channel = await dial_any(self._identity, self._is_other, address)
                    if channel.peer == node:
                        return channel
                    await start(channel)
        return None

    def _is_other(self, node: str) -> bool:
        return node != self._identity.id and self._roster.is_member(node)
