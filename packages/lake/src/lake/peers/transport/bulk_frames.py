"""Messages on a bulk stream: a blocking TLS connection that carries requests and their answers in order.

    stream  = PREFACE | TLS 1.3, in which both sides have shown their certificates | messages
    message = u32 bytes of the head, u32 bytes of the body, little-endian | head, as in `messages` | body

The preface goes before TLS, whose first byte is 22 (RFC 8446, 5.1): a listener knows by one byte which of its
connections are WebSockets. It says nothing about the node, and nothing else is sent before TLS.

Each function has a deadline for a whole message, so a peer that sends a byte now and then loses the stream. No
single read or write takes longer either, so a message takes twice its time at most: the time-out of a socket is set
once for a message, as setting it is a system call and a TLS record has 16 KiB.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import suppress

from lake.peers.transport.messages import BODY_BYTES_MAX, Message, MessageCodec
from sennit_core.errors import BadInput
from sennit_core.units import KIB

__all__ = ["PREFACE", "end", "receive", "send", "wait"]

PREFACE = b"\x00sennit-bulk-1\n"
HEAD_BYTES_MAX = 16 * KIB
"""A request for a chunk, or an error."""
_PREFIX = struct.Struct("<II")


def send(
    connection: ssl.SSLSocket,
    codec: MessageCodec,
    message: Message,
    body: bytes | memoryview = b"",
    *,
    seconds: float,
) -> None:
    """Send a message.

    Args:
        connection: The stream.
        codec: Of messages.
        message: The message.
        body: Its bytes.
        seconds: In which all of it must be sent.

    Raises:
        OSError: The other side has closed the stream, or reads too slowly (`TimeoutError`).
    """
    end_at = _end_at(connection, seconds)
    head = codec.encode(message)
    for part in (_PREFIX.pack(len(head), len(body)) + head, body):
        view, at = memoryview(part), 0
        while at < len(view):
            _check(end_at)
            at += connection.send(view[at:])


def wait(connection: ssl.SSLSocket, seconds: float) -> bytes:
    """Return the first byte of the next message; b"" if the other side has closed the stream.

    Raises:
        OSError: None came in time, or the connection was lost.
    """
    connection.settimeout(seconds)
    return connection.recv(1)


def receive(
    connection: ssl.SSLSocket,
    codec: MessageCodec,
    first: bytes = b"",
    *,
    seconds: float,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> tuple[Message | None, memoryview]:
    """Return the next message and its body; None for one of an unknown kind.

    Args:
        connection: The stream.
        codec: Of messages.
        first: What `wait` has returned.
        seconds: In which all of it must come.
        body_bytes_max: The longest body.

    Raises:
        BadInput: It is no message.
        OSError: It did not come in time, or the connection was lost.
    """
    end_at = _end_at(connection, seconds)
    prefix = first + bytes(_read(connection, _PREFIX.size - len(first), end_at))
    head_bytes, body_bytes = _PREFIX.unpack(prefix)
    if head_bytes > HEAD_BYTES_MAX or body_bytes > body_bytes_max:
        sizes = f"a head of {head_bytes} bytes and a body of {body_bytes}"
        raise BadInput("a message of a peer", reason=f"it has {sizes}")
    head = _read(connection, head_bytes, end_at)
    message, rest, _ = codec.decode(head)
    if len(rest):
        raise BadInput("a message of a peer", reason="its head is longer than it says")
    return message, _read(connection, body_bytes, end_at)


def end(connection: socket.socket) -> None:
    """End the reads and writes of a connection that another thread waits for."""
    # Not by `SSLSocket.shutdown`, which would let that thread go on without TLS.
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _read(connection: ssl.SSLSocket, size: int, end_at: float) -> memoryview:
    """Return so many bytes, read into one buffer."""
    view, at = memoryview(bytearray(size)), 0
    while at < size:
        _check(end_at)
        count = connection.recv_into(view[at:])
        if count == 0:
            raise ConnectionResetError("the other side has closed the stream")
        at += count
    return view


def _end_at(connection: ssl.SSLSocket, seconds: float) -> float:
    connection.settimeout(seconds)
    return time.monotonic() + seconds


def _check(end_at: float) -> None:
    if time.monotonic() > end_at:
        raise TimeoutError("the other side is too slow")
