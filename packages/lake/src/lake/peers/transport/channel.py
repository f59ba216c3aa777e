"""A channel carries frames between two nodes, in order, encrypted, with a verified identity.

A direct channel is a WebSocket over TLS 1.3; `lake.peers.transport.relay` has one through a third node. Code that
uses a channel need not know which it is.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidURI

from lake.peers.transport.identity import Identity, id_of_certificate
from lake.peers.transport.messages import BODY_BYTES_MAX, HEAD_BYTES_MAX
from sennit_core.errors import Denied, Unavailable

__all__ = [
    "CLOSE_SECONDS",
    "FRAME_BYTES_MAX",
    "QUEUED_FRAMES",
    "Channel",
    "ChannelClosed",
    "WebSocketChannel",
    "dial",
    "dial_any",
    "peer_of",
]

FRAME_BYTES_MAX = 4 + HEAD_BYTES_MAX + BODY_BYTES_MAX
_DIAL_SECONDS = 10.0
CLOSE_SECONDS = 2.0
"""How long to wait until the other side confirms that a connection is closed."""
QUEUED_FRAMES = 4
"""Frames that are read ahead; each may have `FRAME_BYTES_MAX`."""


class ChannelClosed(Unavailable):
    """The other side has closed the channel, or its connection was lost."""


class Channel(Protocol):
    """Frames in both directions."""

    peer: str
    """The id of the other node; "" if it has not proved one."""
    relay: str
    """The id of the node that forwards it; "" if it is direct."""
    host: str
    """The IP address that it has, as this node sees it; "" if it is not known."""

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the other side accepts no data.

        Raises:
            ChannelClosed: The channel is closed.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next frame; raises as `send`."""
        ...

    async def close(self, reason: str = "") -> None:
        """Close the channel; may be called twice."""
        ...

    def abort(self) -> None:
        """Close it without a message to the other side."""
        ...


class WebSocketChannel:
    """A channel over a WebSocket.

    Args:
        connection: The connection, after its handshake.
        peer: The id of the other node.
    """

    def __init__(self, connection: Connection, peer: str) -> None:
        self.peer = peer
        self.relay = ""
        self.host = str(connection.remote_address[0])
        self._connection = connection

    async def send(self, frame: bytes) -> None:
        """Send a frame."""
        try:
            await self._connection.send(frame)
        except ConnectionClosed as error:
            raise self._closed(error) from None

    async def receive(self) -> bytes:
        """Return the next frame."""
        try:
            frame = await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise self._closed(error) from None
        assert isinstance(frame, bytes), "decode=False"
        return frame

    async def close(self, reason: str = "") -> None:
        """Close the connection."""
        # RFC 6455, 5.5: the reason of a close frame has at most 123 bytes.
        await self._connection.close(1000, reason.encode()[:123].decode(errors="ignore"))

    def abort(self) -> None:
        """Close the connection without a handshake."""
        self._connection.transport.abort()

    def _closed(self, error: ConnectionClosed) -> ChannelClosed:
        reason = error.rcvd.reason if error.rcvd is not None else ""
        return ChannelClosed(f"node {self.peer[:16]}", hint=reason or None)


async def dial(
    identity: Identity, peer: str, address: str, *, anonymous: bool = False
) -> WebSocketChannel:
    """Connect to a node.

    Args:
        identity: This node's.
        peer: The id that the other side must have; nothing is sent to any other.
        address: `host:port`.
        anonymous: Whether to present no certificate, as a node that is no member yet.

    Raises:
        Unavailable: Nothing answers there, or it does not accept this node.
        Denied: Another node answers there.
    """
    channel = await _connect(identity, f"node {peer[:16]} at {address}", address, anonymous)
    if channel.peer != peer:
        await channel.close()
        raise Denied(f"using {address} as node {peer[:16]}: node {channel.peer[:16]} answers there")
    return channel


async def dial_any(
    identity: Identity, is_member: Callable[[str], bool], address: str
) -> WebSocketChannel:
    """Connect to any member that answers at an address; raises as `dial`.

    Args:
        identity: This node's.
        is_member: Whether a node is one; nothing is sent to any other.
        address: `host:port`.
    """
    channel = await _connect(identity, address, address, anonymous=False)
    if not is_member(channel.peer):
        await channel.close()
        raise Denied(f"using {address}: node {channel.peer[:16]} answers there, which is no member")
    return channel


async def _connect(
    identity: Identity, what: str, address: str, anonymous: bool
) -> WebSocketChannel:
    context = identity.client_context(anonymous=anonymous)
    try:
        connection = await connect(
            f"wss://{address}/peers",
            ssl=context,
            proxy=None,
            compression=None,
            max_size=FRAME_BYTES_MAX,
            max_queue=QUEUED_FRAMES,
            open_timeout=_DIAL_SECONDS,
            close_timeout=CLOSE_SECONDS,
            user_agent_header=None,
        )
    except (TimeoutError, OSError, InvalidHandshake, InvalidMessage, InvalidURI) as error:
        raise Unavailable(what, hint=str(error) or None) from None
    return WebSocketChannel(connection, peer_of(connection))


def peer_of(connection: Connection) -> str:
    """Return the id of the node that TLS has verified; "" if it presented no certificate."""
    tls: ssl.SSLObject | None = connection.transport.get_extra_info("ssl_object")
    assert tls is not None, "peers connect by TLS only"
    certificate = tls.getpeercert(binary_form=True)
    return "" if certificate is None else id_of_certificate(certificate)
