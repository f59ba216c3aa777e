"""Answers requests of members about restricted datasets, in the event loop of the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from lake.peers.changes.claims import Claims
from lake.peers.queries.fragments import stream_pieces
from lake.peers.queries.restricted import DescribeRestricted, RestrictedQuery, RestrictedReads
from lake.peers.transport.limits import Slots
from lake.peers.transport.messages import Message
from lake.peers.transport.session import Handler, Piece, Session
from lake.peers.transport.signed import Statement
from lake.statements.limits import Requester
from sennit_core.errors import Denied

__all__ = ["RestrictedServer"]


class RestrictedServer:
    """Checks the claims of requests, and answers them.

    Args:
        reads: Answers them.
        claims: Checks claims.
        wall: Returns Unix seconds.
        known_as: Returns the name of a node.
    """

    def __init__(
        self,
        reads: RestrictedReads,
        claims: Claims,
        wall: Callable[[], float],
        known_as: Callable[[str], str],
    ) -> None:
        self._known_as = known_as
        self._reads = reads
        self._claims = claims
        self._wall = wall
        self._slots = Slots("queries")

    def handlers(self) -> dict[type[Message], Handler]:
        """Return what answers which request."""
        return {DescribeRestricted: self._describe, RestrictedQuery: self._query}

    async def _describe(self, session: Session, message: DescribeRestricted, _: bytes) -> Piece:
        user = self._user(session, message, message.claim)
        with self._slots.take(session.peer):
            return await asyncio.to_thread(self._reads.describe, message.dataset, user), b""

    async def _query(
        self, session: Session, message: RestrictedQuery, _: bytes
    ) -> AsyncGenerator[Piece, None]:
        user = self._user(session, message, message.claim)
        with self._slots.take(session.peer):
            shown_as = f"{user.name}@{self._known_as(user.node)}"
            run = stream_pieces(lambda stop: self._reads.run(message, user, shown_as, stop))
            async with aclosing(run) as pieces:
                async for piece in pieces:
                    yield piece

    def _user(self, session: Session, message: Message, claim: Statement | None) -> Requester:
        if claim is None:
            raise Denied("reading a restricted dataset without a claim")
        return self._claims.check(claim, session.peer, message, self._wall())
