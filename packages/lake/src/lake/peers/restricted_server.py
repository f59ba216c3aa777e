"""Answers requests of members about restricted datasets, in the event loop of the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from lake.limits import Requester
from lake.peers.claims import Claims
from lake.peers.fragments import stream_pieces
from lake.peers.messages import Message
from lake.peers.restricted import DescribeRestricted, RestrictedQuery, RestrictedReads
from lake.peers.session import Handler, Piece, Session
from lake.peers.signed import Statement
from sennit_core.errors import Busy, Denied

__all__ = ["RestrictedServer"]

_REQUESTS_MAX = 32
"""Requests at a time, of all members together; each holds a thread."""


class RestrictedServer:
    """Checks the claims of requests, and answers them.

    Args:
        reads: Answers them.
        claims: Checks claims.
        wall: Returns Unix seconds.
    """

    def __init__(self, reads: RestrictedReads, claims: Claims, wall: Callable[[], float]) -> None:
        self._reads = reads
        self._claims = claims
        self._wall = wall
        self._running = 0

    def handlers(self) -> dict[type[Message], Handler]:
        """Return what answers which request."""
        return {DescribeRestricted: self._describe, RestrictedQuery: self._query}

    async def _describe(self, session: Session, message: DescribeRestricted, _: bytes) -> Piece:
        user = self._user(session, message, message.claim)
        self._enter()
        try:
            return await asyncio.to_thread(self._reads.describe, message.dataset, user), b""
        finally:
            self._running -= 1

    async def _query(
        self, session: Session, message: RestrictedQuery, _: bytes
    ) -> AsyncGenerator[Piece, None]:
        user = self._user(session, message, message.claim)
        self._enter()
        try:
            run = stream_pieces(lambda stop: self._reads.run(message, user, stop))
            async with aclosing(run) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._running -= 1

    def _enter(self) -> None:
        if self._running >= _REQUESTS_MAX:
            raise Busy("the node", hint="it runs too many queries of other nodes")
        self._running += 1

    def _user(self, session: Session, message: Message, claim: Statement | None) -> Requester:
        if claim is None:
            raise Denied("reading a restricted dataset without a claim")
        return self._claims.check(claim, session.peer, message, self._wall())
