"""A channel through a third node, for members that cannot be dialed.

    A ── session ──▶ R ── session ──▶ B        A: RelayOpen to R, R: RelayAccept to B
    └────── TLS 1.3 with A's and B's keys ──┘  R forwards bytes that it cannot read

The bytes from B are the pieces of the answers to both requests; those to B are the bodies of
`RelayWrite` requests, whose answers slow the sender down to what B consumes. Inside is an ordinary TLS
connection, over memory buffers, in which both sides present their certificates.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar

from lake.peers.transport.channel import FRAME_BYTES_MAX, ChannelClosed
from lake.peers.transport.identity import Identity, id_of_certificate
from lake.peers.transport.messages import BODY_BYTES_MAX, Message
from lake.peers.transport.session import Piece, Session
from lake.peers.transport.tasks import TaskSet, cancel_once
from sennit_core.errors import BadInput, Busy, Denied, NotFound, SennitError, Unavailable
from sennit_core.units import KIB

__all__ = ["MESSAGES", "Relay", "RelayAccept", "RelayChannel", "RelayOpen", "RelayWrite"]

TUNNELS_MAX = 256
TUNNELS_PER_NODE_MAX = 32
"""That one node may open through a relay, or bring to a node; so no member takes all of them."""
PIECE_BYTES_MAX = 64 * KIB
"""Of the bytes of a tunnel: a relay holds a window of them for a node that does not read."""
_WRITE_SECONDS = 60.0
_IDLE_SECONDS = 300.0
_HANDSHAKE_SECONDS = 20.0
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class RelayOpen(Message):
    """Ask the receiver to open a tunnel to another node; answered by what that node sends."""

    kind: ClassVar[str] = "relay-open"
    to: str
    tunnel: str


@dataclass(frozen=True, slots=True)
class RelayAccept(Message):
    """Ask the receiver to accept a tunnel from another node; answered by what it sends."""

    kind: ClassVar[str] = "relay-accept"
    source: str
    tunnel: str


@dataclass(frozen=True, slots=True)
class RelayReady(Message):
    """The first piece of an answer: the other end has accepted the tunnel."""

    kind: ClassVar[str] = "relay-ready"


@dataclass(frozen=True, slots=True)
class RelayWrite(Message):
    """Bytes for the other end of a tunnel, in the body; none ends it."""

    kind: ClassVar[str] = "relay-write"
    tunnel: str


@dataclass(frozen=True, slots=True)
class RelayBytes(Message):
    """Bytes of the other end of a tunnel, in the body; or the acknowledgement of a write."""

    kind: ClassVar[str] = "relay-bytes"


MESSAGES: tuple[type[Message], ...] = (RelayOpen, RelayAccept, RelayReady, RelayWrite, RelayBytes)


class Relay:
    """The tunnels that a node forwards, and those that end at it.

    Args:
        identity: The node's own.
        session_to: Returns an open session with a node, None if there is none.
        is_member: Whether a node belongs to the network.
        certificates: Those of the members.
        on_channel: Called with each tunnel that another node has opened to this one.
    """

    def __init__(
        self,
        identity: Identity,
        session_to: Callable[[str], Session | None],
        is_member: Callable[[str], bool],
        certificates: Callable[[], Iterable[bytes]],
        on_channel: Callable[[RelayChannel], None],
    ) -> None:
        self._identity = identity
        self._session_to = session_to
        self._is_member = is_member
        self._certificates = certificates
        self._on_channel = on_channel
        # What is written into a tunnel goes there, by tunnel and the node that writes.
        self._inboxes: dict[tuple[str, str], asyncio.Queue[bytes]] = {}
        # Tunnels that are forwarded: where the writes of its opener go.
        self._forwarded: dict[tuple[str, str], Session] = {}
        self._tasks = TaskSet("relayed connections")

    async def open(self, relay: Session, peer: str) -> RelayChannel:
        """Return a channel to a node through another one.

        Raises:
            Unavailable: The relay has no session with the node.
            Denied: Another node answers.
        """
        tunnel = secrets.token_hex(16)
        incoming = await _opened(relay, RelayOpen(peer, tunnel))

        async def write(data: bytes) -> None:
            await relay.call(RelayWrite(tunnel), data, timeout_seconds=_WRITE_SECONDS)

        context = self._identity.client_context()
        channel = RelayChannel(
            _bodies(incoming), write, context, relay=relay.peer, server_side=False
        )
        try:
            return await _verified(channel, lambda found: found == peer)
        except BaseException:
            await incoming.aclose()  # cancels it at the relay
            raise

    async def serve_open(
        self, session: Session, message: RelayOpen, _body: bytes
    ) -> AsyncGenerator[Piece, None]:
        """Forward a tunnel."""
        target = self._session_to(message.to)
        if target is None or not self._is_member(message.to):
            raise Unavailable(f"node {message.to[:16]} through this node")
        key = (message.tunnel, session.peer)
        if key in self._forwarded or _is_full(self._forwarded, session.peer):
            raise Busy("this node forwards too many connections")
        self._forwarded[key] = target
        try:
            accept = RelayAccept(session.peer, message.tunnel)
            async with aclosing(await _opened(target, accept)) as pieces:
                yield RelayReady(), b""
                async for piece in pieces:
                    if len(piece[1]) > PIECE_BYTES_MAX:
                        raise BadInput("a relayed connection", reason="its pieces are too large")
                    yield piece
        finally:
            del self._forwarded[key]

    async def serve_accept(
        self, session: Session, message: RelayAccept, _body: bytes
    ) -> AsyncGenerator[Piece, None]:
        """Accept a tunnel that ends here."""
        key = (message.tunnel, session.peer)
        if key in self._inboxes or _is_full(self._inboxes, session.peer):
            raise Busy("this node has too many relayed connections")
        inbox = self._inboxes[key] = asyncio.Queue(maxsize=1)
        outbox: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)
        context = self._identity.server_context(self._certificates())
        context.verify_mode = ssl.CERT_REQUIRED
        channel = RelayChannel(
            _queued(inbox), outbox.put, context, relay=session.peer, server_side=True
        )
        handing_over = self._tasks.spawn(self._hand_over(channel, outbox))
        try:
            yield RelayReady(), b""
            while data := await outbox.get():
                yield RelayBytes(), data
            yield RelayBytes(), b""
        finally:
            cancel_once(handing_over)
            del self._inboxes[key]
            # Nothing reads the outbox any more, so the end cannot be sent; but what waits for bytes, or
            # for room in the outbox, must learn of it.
            channel.abort()
            for queue in (inbox, outbox):
                while not queue.empty():
                    queue.get_nowait()
            inbox.put_nowait(b"")

    async def serve_write(self, session: Session, message: RelayWrite, body: bytes) -> Piece:
        """Forward written bytes, or hand them to the channel that ends here."""
        key = (message.tunnel, session.peer)
        inbox, target = self._inboxes.get(key), self._forwarded.get(key)
        if inbox is not None:
            await inbox.put(body)
        elif target is not None:
            await target.call(message, body, timeout_seconds=_WRITE_SECONDS)
        else:
            raise NotFound("tunnel", message.tunnel[:16], suggestion=None)
        return RelayBytes(), b""

    async def _hand_over(self, channel: RelayChannel, outbox: asyncio.Queue[bytes]) -> None:
        try:
            self._on_channel(await _verified(channel, self._is_member))
        except SennitError:
            await outbox.put(b"")


class RelayChannel:
    """A channel whose bytes another node forwards; see `lake.peers.transport.channel.Channel`.

    Args:
        incoming: The bytes of the other end.
        write: Sends bytes to the other end; none ends the tunnel.
        context: Of the TLS connection inside.
        relay: The node that forwards them.
        server_side: Whether the other end has opened it.
    """

    def __init__(
        self,
        incoming: AsyncIterator[bytes | memoryview],
        write: Callable[[bytes], object],
        context: ssl.SSLContext,
        *,
        relay: str,
        server_side: bool,
    ) -> None:
        self.peer = ""
        self.relay = relay
        self.host = ""
        self._incoming = incoming
        self._write = write
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side)
        # TLS records must leave in the order in which they were made.
        self._sending = asyncio.Lock()
        self._buffer = bytearray()
        self._closed = False

    async def handshake(self) -> None:
        """Do the TLS handshake, and set `peer`."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
                continue
            except ssl.SSLError as error:
                raise Denied(f"a relayed connection: {error.reason}") from None
            break
        await self._flush()
        certificate = self._tls.getpeercert(binary_form=True)
        self.peer = "" if certificate is None else id_of_certificate(certificate)

    async def send(self, frame: bytes) -> None:
        """Send a frame."""
        if self._closed:
            raise self._closed_error()
        async with self._sending:
            self._tls.write(_LENGTH.pack(len(frame)) + frame)
            await self._flush_locked()

    async def receive(self) -> bytes:
        """Return the next frame."""
        (length,) = _LENGTH.unpack(await self._read(_LENGTH.size))
        if length > FRAME_BYTES_MAX:
            raise BadInput("a frame of a peer", reason=f"it has {length} bytes")
        return await self._read(length)

    def abort(self) -> None:
        """Mark the tunnel as ended, without sending anything."""
        self._closed = True

    async def close(self, reason: str = "") -> None:
        """End the tunnel; the reason is not sent."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._send_bytes(b"")
        except (SennitError, OSError):
            return

    async def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                found = self._tls.read(BODY_BYTES_MAX)
            except ssl.SSLWantReadError:
                await self._fill()
                continue
            except ssl.SSLError:
                raise self._closed_error() from None
            if not found:
                raise self._closed_error()
            self._buffer += found
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _fill(self) -> None:
        try:
            data = await anext(self._incoming)
        except (StopAsyncIteration, SennitError):
            data = b""
        if not data or self._closed:
            self._closed = True
            raise self._closed_error()
        self._in.write(data)

    async def _flush(self) -> None:
        async with self._sending:
            await self._flush_locked()

    async def _flush_locked(self) -> None:
        while self._out.pending:
            if self._closed:
                raise self._closed_error()
            try:
                await self._send_bytes(self._out.read(PIECE_BYTES_MAX))
            except SennitError:
                # Records of TLS are lost, so nothing that follows could be read.
                self._closed = True
                raise self._closed_error() from None

    async def _send_bytes(self, data: bytes) -> None:
        result = self._write(data)
        assert asyncio.iscoroutine(result), "`write` is asynchronous"
        await result

    def _closed_error(self) -> ChannelClosed:
        return ChannelClosed(f"node {self.peer[:16]}")


async def _verified(channel: RelayChannel, is_expected: Callable[[str], bool]) -> RelayChannel:
    """Do the handshake of a channel; close it if another node is at its end."""
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            await channel.handshake()
        if not is_expected(channel.peer):
            raise Denied(f"a relayed connection: node {channel.peer[:16]} is at its end")
    except TimeoutError:
        await channel.close()
        raise Unavailable("the node at the end of a relayed connection") from None
    except BaseException:
        await channel.close()
        raise
    return channel


def _is_full(tunnels: Mapping[tuple[str, str], object], node: str) -> bool:
    """Return whether there are as many tunnels as there may be, of all nodes or of one."""
    of_node = sum(each == node for _, each in tunnels)
    return len(tunnels) >= TUNNELS_MAX or of_node >= TUNNELS_PER_NODE_MAX


async def _opened(session: Session, request: Message) -> AsyncGenerator[Piece, None]:
    """Return what a node answers to `RelayOpen` or `RelayAccept` after its `RelayReady`.

    Nothing may be written into a tunnel before it is known at all three nodes.

    Raises:
        Unavailable: It did not answer in time.
        BadInput: It opened no tunnel.
    """
    pieces = session.stream(request, timeout_seconds=_IDLE_SECONDS)
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            first = await anext(pieces, None)
        if first is None or not isinstance(first[0], RelayReady):
            raise BadInput(f"the answer of node {session.peer[:16]}", reason="it opened no tunnel")
    except TimeoutError:
        await pieces.aclose()
        raise Unavailable(f"a connection through node {session.peer[:16]}") from None
    except BaseException:
        await pieces.aclose()
        raise
    return pieces


async def _bodies(pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes | memoryview]:
    async for _, body in pieces:
        yield body


async def _queued(inbox: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while data := await inbox.get():
        yield data
