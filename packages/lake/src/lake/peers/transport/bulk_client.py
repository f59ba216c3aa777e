"""Bulk streams to other nodes: requests whose answers come in a thread of their own.

A stream is opened to a node that is asked for much, if the node has announced that it serves streams, has a
direct session with this one, and listens. Until it is open, and whenever it fails, requests take the session. A node
whose stream could not be opened, was too slow, or sent what is no answer, gets none for a minute.

One thread has one stream: it sends all requests that wait, and reads one answer into a buffer of its own.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from lake.peers.transport import bulk_frames
from lake.peers.transport.addresses import parse_address
from lake.peers.transport.bulk_frames import PREFACE
from lake.peers.transport.identity import Identity, id_of_certificate
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.session import ErrorReply, Piece
from lake.peers.transport.traffic import Traffic
from sennit_core.errors import BadInput, Denied, SennitError, Unavailable, error_from_json
from sennit_core.logs import get_logger

__all__ = ["BulkClient"]

_log = get_logger(__name__)
STREAMS_MAX = 8
BUSY_REQUESTS, BUSY_SECONDS = 4, 2.0
"""A node that is asked so often in this time gets a stream; a few chunks are not worth a handshake."""
_RETRY_SECONDS = 60.0
_CONNECT_SECONDS = 3.0
_ADDRESSES_TRIED = 3
_IDLE_SECONDS = 10.0
"""Less than what the serving side waits, so that no request meets a stream that it has just closed."""
_REQUEST_SECONDS = 5.0
ANSWER_SECONDS = 12.0
"""In which an answer must come after the one before: 87 KB/s for a chunk. A request has time left for the session then."""
_Waiting: TypeAlias = "tuple[Message, asyncio.Future[Piece]]"


class BulkClient:
    """The streams of one node to others; used in one event loop.

    Args:
        identity: The node's own.
        codec: Of messages.
        addresses: Returns where a node may be dialed; none if it serves no streams, or has no direct session.
        traffic: Returns what counts the bytes that are exchanged with a node.
    """

    def __init__(
        self,
        identity: Identity,
        codec: MessageCodec,
        addresses: Callable[[str], Sequence[str]],
        traffic: Callable[[str], Traffic],
    ) -> None:
        self._identity = identity
        self._codec = codec
        self._addresses = addresses
        self._traffic = traffic
        self._streams: dict[str, _Stream] = {}
        # When each node was asked for something last, and until when it gets no stream.
        self._asked: dict[str, deque[float]] = {}
        self._retry_at: dict[str, float] = {}
        self._stopped = False
        self.answers = 0
        """Answers that came by streams."""

    async def call(self, peer: str, message: Message) -> Piece | None:
        """Send a request; return its answer, or None if the session is to be used.

        Raises:
            SennitError: The error of the other side.
        """
        stream = self._stream(peer)
        if stream is None:
            return None
        try:
            reply, body = await stream.ask(message)
        except ConnectionError:
            return None
        self.answers += 1
        self._traffic(peer).note_received(body)  # the heads are a thousandth of it
        if isinstance(reply, ErrorReply):
            raise error_from_json(reply.error)
        return reply, body

    async def stop(self) -> None:
        """End all streams, and wait for their threads."""
        self._stopped = True
        for stream in list(self._streams.values()):
            await stream.close()

    def _stream(self, peer: str) -> _Stream | None:
        """Return an open stream to a node; begins to open one if it is asked for much."""
        now = asyncio.get_running_loop().time()
        asked = self._asked.setdefault(peer, deque(maxlen=BUSY_REQUESTS))
        asked.append(now)
        stream = self._streams.get(peer)
        if stream is not None:
            return stream if stream.is_open else None
        is_busy = len(asked) == BUSY_REQUESTS and now - asked[0] <= BUSY_SECONDS
        if not is_busy or self._stopped or len(self._streams) >= STREAMS_MAX:
            return None
        if now < self._retry_at.get(peer, 0.0):
            return None
        addresses = list(self._addresses(peer))[:_ADDRESSES_TRIED]
        if addresses:
            with suppress(RuntimeError):  # the machine has no more threads
                self._streams[peer] = _Stream(
                    peer, addresses, self._identity, self._codec, self._ended
                )
        return None

    def _ended(self, stream: _Stream) -> None:
        self._streams.pop(stream.peer, None)
        if stream.problem:
            self._retry_at[stream.peer] = asyncio.get_running_loop().time() + _RETRY_SECONDS
            _log.info("no bulk stream of node %s for a while: %s", stream.peer[:16], stream.problem)


class _Stream:
    """A stream to one node, and its thread. `is_open` is changed in the loop only."""

    def __init__(
        self,
        peer: str,
        addresses: Sequence[str],
        identity: Identity,
        codec: MessageCodec,
        on_end: Callable[[_Stream], None],
    ) -> None:
        self.peer = peer
        self.is_open = False
        self.problem = ""
        self._addresses = addresses
        self._identity = identity
        self._codec = codec
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        # None ends the thread.
        self._requests: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        # Requests without an answer: the thread has sent those at the front.
        self._unanswered: set[asyncio.Future[Piece]] = set()
        self._connection: socket.socket | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="lake-bulk", daemon=True)
        self._thread.start()

    # In the loop

    async def ask(self, message: Message) -> Piece:
        """Send a request; return its answer.

        Raises:
            ConnectionError: The stream was lost.
        """
        answer: asyncio.Future[Piece] = self._loop.create_future()
        self._unanswered.add(answer)
        self._requests.put((message, answer))
        try:
            return await answer
        finally:
            self._unanswered.discard(answer)

    async def close(self) -> None:
        """End the stream, and wait for its thread."""
        self._is_closing = True
        self._requests.put(None)
        if self._connection is not None:
            bulk_frames.end(self._connection)
        await asyncio.to_thread(self._thread.join)

    def _opened(self) -> None:
        self.is_open = True

    def _closed(self) -> None:
        self.is_open = False
        for answer in self._unanswered:
            if not answer.done():
                answer.set_exception(ConnectionError("the stream was lost"))
        self._on_end(self)

    # In the thread

    def _run(self) -> None:
        try:
            with self._connect() as tls:
                self._loop.call_soon_threadsafe(self._opened)
                self._exchange(tls)
        except (OSError, SennitError) as error:
            self.problem = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - logged; what a peer sends must not end the node
            self.problem = "an unexpected error"
            _log.exception("a bulk stream of node %s", self.peer[:16], exc_info=error)
        finally:
            self._loop.call_soon_threadsafe(self._closed)

    def _exchange(self, tls: ssl.SSLSocket) -> None:
        """Send requests and read answers until none comes for some seconds."""
        sent: deque[asyncio.Future[Piece]] = deque()
        while True:
            while (waiting := self._next(is_idle=not sent)) is not None:
                message, answer = waiting
                if answer.done():  # who asked waits no more
                    continue
                bulk_frames.send(tls, self._codec, message, seconds=_REQUEST_SECONDS)
                sent.append(answer)
            if not sent:
                return
            reply, body = bulk_frames.receive(tls, self._codec, seconds=ANSWER_SECONDS)
            if reply is None:
                raise BadInput("an answer of a peer", reason="it is of an unknown kind")
            self._loop.call_soon_threadsafe(_settle, sent.popleft(), (reply, body))

    def _next(self, *, is_idle: bool) -> _Waiting | None:
        try:
            return self._requests.get(block=is_idle, timeout=_IDLE_SECONDS if is_idle else None)
        except queue.Empty:
            return None

    def _connect(self) -> ssl.SSLSocket:
        """Return a connection to the node, whose key was compared with its id.

        Raises:
            OSError: Nothing answers at any of its addresses.
            Denied: Another node answers there.
        """
        problem: OSError | SennitError = Unavailable(f"node {self.peer[:16]}")
        for address in self._addresses:
            if self._is_closing:
                break
            try:
                return self._connect_to(address)
            except (OSError, SennitError) as error:
                problem = error
        raise problem

    def _connect_to(self, address: str) -> ssl.SSLSocket:
        plain = socket.create_connection(parse_address(address), timeout=_CONNECT_SECONDS)
        try:
            self._connection = plain
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.sendall(PREFACE)
            context = self._identity.client_context()
            tls = context.wrap_socket(plain, do_handshake_on_connect=False)
        except BaseException:
            plain.close()
            raise
        try:
            self._connection = tls
            tls.do_handshake()
            certificate = tls.getpeercert(binary_form=True)
            found = "" if certificate is None else id_of_certificate(certificate)
            if found != self.peer:
                raise Denied(
                    f"using {address} as node {self.peer[:16]}: another node answers there"
                )
        except BaseException:
            tls.close()
            raise
        return tls


def _settle(answer: asyncio.Future[Piece], piece: Piece) -> None:
    if not answer.done():
        answer.set_result(piece)
