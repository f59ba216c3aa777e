"""Serves bulk streams: chunks for other members, in threads, without the event loop.

    listener ──▶ thread: preface, TLS, member? ──▶ request ──▶ may it have it? ──▶ read, send
                                  └── loop ──┘               └──── loop ────┘

What a member may have is decided in the loop, by the same function as for requests of sessions. Its answer for
one object counts for a second, unless the bandwidth is limited: then each chunk is asked for. A stream is of the
node whose key TLS has verified, and of no other, so a request needs no secret of its own that could be replayed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from lake.peers.transport import bulk_frames
from lake.peers.transport.bulk_frames import PREFACE
from lake.peers.transport.identity import id_of_certificate
from lake.peers.transport.limits import RateLimit
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.session import ErrorReply
from lake.peers.transport.traffic import Traffic
from sennit_core.errors import BadInput, Busy, Denied, InternalError, SennitError, Unsupported
from sennit_core.logs import get_logger

__all__ = ["BulkServer", "BulkSource"]

_log = get_logger(__name__)
STREAMS_MAX = 32
STREAMS_PER_PEER_MAX = 2
HANDSHAKES_MAX = 16
"""Streams whose node is not known yet; one without a room falls back to its session."""
QUESTIONS = (200.0, 400.0)
"""Requests of a stream that the loop decides about, in a second and at once: only the stream waits for more."""
_HANDSHAKE_SECONDS = 5.0
_IDLE_SECONDS = 30.0
_REQUEST_SECONDS = 5.0
_CHUNK_SECONDS = 20.0
"""In which the peer must take a chunk: 52 KB/s."""
_LOOP_SECONDS = 20.0


class BulkSource(Protocol):
    """What streams send."""

    def subject(self, request: Message) -> str:
        """Return what a request is about, such as an object of a dataset.

        Raises:
            Unsupported: No stream serves such requests.
        """
        ...

    async def admit(self, peer: str, request: Message) -> float:
        """Return for how many seconds a peer may have more of the same subject; called in the loop.

        Raises:
            SennitError: It may not have it now.
        """
        ...

    def read(self, request: Message) -> tuple[Message, bytes]:
        """Return the answer and its body; called in the thread of the stream, raises as `admit`."""
        ...


@dataclass(slots=True, eq=False)
class _Stream:
    """A stream. It has no `peer` before it is verified, and may have more of `subject` until `granted_until`.

    `sent_bytes` are those that the traffic of the node does not count yet.
    """

    connection: socket.socket
    thread: threading.Thread | None = None
    peer: str = ""
    subject: str = ""
    granted_until: float = 0.0
    questions: RateLimit = field(default_factory=lambda: RateLimit(*QUESTIONS))
    sent_bytes: int = 0


class BulkServer:
    """The streams that other nodes have opened to this one; made and stopped in the event loop.

    Args:
        codec: Of messages.
        is_member: Whether a node belongs to the network.
        source: What is sent.
        traffic: Returns what counts the bytes that are exchanged with a node.
    """

    def __init__(
        self,
        codec: MessageCodec,
        is_member: Callable[[str], bool],
        source: BulkSource,
        traffic: Callable[[str], Traffic],
    ) -> None:
        self._codec = codec
        self._is_member = is_member
        self._source = source
        self._traffic = traffic
        # Changed in the loop only. Those without a peer are in their handshake.
        self._streams: set[_Stream] = set()
        self._stopped = False
        self.refused = 0
        """Streams that were refused because of the limits, or proved to be of no member."""

    @property
    def peers(self) -> Counter[str]:
        """The number of verified streams of each node."""
        return Counter(each.peer for each in self._streams if each.peer)

    def accept(
        self, connection: socket.socket, context: ssl.SSLContext, verified: Callable[[], None]
    ) -> None:
        """Serve a connection that has begun with the preface.

        Args:
            connection: The connection.
            context: Of the listener; it trusts the members.
            verified: Called in the loop when the connection is of a member, or closed.
        """
        unknown = sum(not each.peer for each in self._streams)
        is_full = len(self._streams) >= STREAMS_MAX + HANDSHAKES_MAX
        if self._stopped or is_full or unknown >= HANDSHAKES_MAX:
            self.refused += 1
            connection.close()
            verified()
            return
        stream = _Stream(connection)
        loop = asyncio.get_running_loop()
        stream.thread = threading.Thread(
            target=self._run, args=(stream, loop, context, verified), name="lake-bulk", daemon=True
        )
        try:
            stream.thread.start()
        except RuntimeError:  # the machine has no more threads
            self.refused += 1
            connection.close()
            verified()
        else:
            self._streams.add(stream)

    async def stop(self) -> None:
        """End all streams, and wait for their threads."""
        self._stopped = True
        for stream in list(self._streams):
            bulk_frames.end(stream.connection)
        for stream in list(self._streams):
            assert stream.thread is not None, "it was started"
            await asyncio.to_thread(stream.thread.join)

    # The thread of a stream

    def _run(
        self,
        stream: _Stream,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        verified: Callable[[], None],
    ) -> None:
        def ask(work: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result(_LOOP_SECONDS)

        try:
            peer = self._handshake(stream, context)
            ask(self._verify(stream, peer, verified))
            self._serve(stream, ask)
        except (OSError, SennitError) as error:
            _log.debug("a bulk stream of node %s has ended: %s", stream.peer[:16] or "?", error)
        except Exception:  # noqa: BLE001 - logged; what a peer sends must end no other stream
            _log.exception("a bulk stream of node %s: an unexpected error", stream.peer[:16])
        finally:
            stream.connection.close()
            loop.call_soon_threadsafe(self._ended, stream, verified)

    def _handshake(self, stream: _Stream, context: ssl.SSLContext) -> str:
        """Return the node that TLS has verified."""
        stream.connection.settimeout(_HANDSHAKE_SECONDS)
        # In one piece, as it was sent: a listener has seen its first byte already.
        if stream.connection.recv(len(PREFACE)) != PREFACE:
            raise BadInput("a connection of a peer", reason="it begins with no known protocol")
        tls = context.wrap_socket(
            stream.connection, server_side=True, do_handshake_on_connect=False
        )
        stream.connection = tls
        tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls.do_handshake()
        certificate = tls.getpeercert(binary_form=True)
        if certificate is None:
            raise Denied("a bulk stream without a certificate")
        return id_of_certificate(certificate)

    def _serve(self, stream: _Stream, ask: Callable[[Any], Any]) -> None:
        tls = stream.connection
        assert isinstance(tls, ssl.SSLSocket), "after its handshake"
        while first := bulk_frames.wait(tls, _IDLE_SECONDS):
            request, _ = bulk_frames.receive(
                tls, self._codec, first, seconds=_REQUEST_SECONDS, body_bytes_max=0
            )
            reply, body = self._answer(stream, request, ask)
            bulk_frames.send(tls, self._codec, reply, body, seconds=_CHUNK_SECONDS)
            stream.sent_bytes += len(body)

    def _answer(
        self, stream: _Stream, request: Message | None, ask: Callable[[Any], Any]
    ) -> tuple[Message, bytes]:
        try:
            if request is None:
                raise Unsupported("the request is of a kind that only newer versions know")
            subject = self._source.subject(request)
            if stream.subject != subject or stream.granted_until <= time.monotonic():
                stream.subject = ""
                time.sleep(stream.questions.wait_seconds(1))
                stream.questions.take()
                seconds = ask(self._admit(stream, request))
                stream.subject, stream.granted_until = subject, time.monotonic() + seconds
            return self._source.read(request)
        except SennitError as error:
            return ErrorReply(error.to_json()), b""
        except OSError as error:
            _log.warning("a chunk was not read: %s", error)
            return ErrorReply(InternalError("the node could not read it").to_json()), b""

    # In the loop

    async def _verify(self, stream: _Stream, peer: str, verified: Callable[[], None]) -> None:
        """Give a stream to a node, within the limits."""
        if self._stopped or not self._is_member(peer):
            self.refused += 1
            raise Denied(f"a bulk stream to node {peer[:16]}")
        if self.peers[peer] >= STREAMS_PER_PEER_MAX or self.peers.total() >= STREAMS_MAX:
            self.refused += 1
            raise Busy("the node", hint="it has too many bulk streams")
        stream.peer = peer
        verified()

    async def _admit(self, stream: _Stream, request: Message) -> float:
        self._count(stream)
        if not self._is_member(stream.peer):
            raise Denied(f"serving node {stream.peer[:16]}: it was revoked")
        return await self._source.admit(stream.peer, request)

    def _count(self, stream: _Stream) -> None:
        self._traffic(stream.peer).sent_bytes += stream.sent_bytes
        stream.sent_bytes = 0

    def _ended(self, stream: _Stream, verified: Callable[[], None]) -> None:
        self._streams.discard(stream)
        if stream.peer:
            self._count(stream)
        else:
            verified()
