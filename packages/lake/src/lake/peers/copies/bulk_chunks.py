"""The chunks that bulk streams send: what a peer may have, as for requests of its session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lake.peers.copies.chunks import ChunkRequest
from lake.peers.copies.copies import Copies
from lake.peers.transport.messages import Message
from sennit_core.errors import Busy, NotFound, Unsupported

__all__ = ["ChunkServer"]

_GRANT_SECONDS = 1.0
"""For so long a peer that may have one chunk of an object may have others of it."""


class ChunkServer:
    """Serves chunks to sessions and bulk streams.

    Args:
        copies: The copies.
        may_send: Of a peer, a dataset and an object: whether this node has it, and the peer may read it.
    """

    def __init__(self, copies: Copies, may_send: Callable[[str, str, str], bool]) -> None:
        self._copies = copies
        self._may_send = may_send

    def subject(self, request: Message) -> str:
        """Return the dataset and the object that a request is about.

        Raises:
            Unsupported: It is not for a chunk.
        """
        if not isinstance(request, ChunkRequest):
            raise Unsupported(f"a bulk stream serves no request {request.kind!r}")
        return f"{request.dataset}/{request.object}"

    async def admit(self, peer: str, request: Message) -> float:
        """Return for how many seconds a peer may have more chunks of the same object.

        Raises:
            NotFound: It may not have it: the same answer for an object that is not here.
            Busy: The bandwidth of copies is used up, or this is not their hour.
        """
        assert isinstance(request, ChunkRequest), "see `subject`"
        if not self._may_send(peer, request.dataset, request.object):
            raise NotFound("object", request.object[:64], suggestion=None)
        bandwidth = self._copies.bandwidth
        if not bandwidth.is_limited:
            return _GRANT_SECONDS
        size = await asyncio.to_thread(self._copies.chunk_size, request)
        if not bandwidth.may_send(peer, size, is_urgent=not request.background):
            raise Busy("the node", hint="it sends no more copies now")
        return 0.0

    def read(self, request: Message) -> tuple[Message, bytes]:
        """Return a chunk, for threads that may wait for the disk; raises as `Copies.chunk`."""
        assert isinstance(request, ChunkRequest), "see `subject`"
        return self._copies.chunk(request)
