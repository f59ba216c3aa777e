"""What leader and follower say to each other: MessagePack arrays, one a message of a WebSocket.

    follower   hello  version, {node, term, position, leads, mark, fresh}
               ack    number, term, position        the frame is dealt with, `position` is durable
    leader     welcome version, {term, leads, last, diverged}
               refuse reason, text, term            then the connection ends
               entries number, term, more, bytes, last    [[position, row], …] once `more` is false
               chunk  number, term, bytes           some of a snapshot's file
               complete number, term, {position, bytes, sha256}
               beat   term, last

Frames with a number are acknowledged; only `WINDOW` of them are under way at a time.
"""

from __future__ import annotations

from typing import Any

import ormsgpack

from sennit_core.errors import BadInput

__all__ = [
    "BATCH_BYTES_MAX",
    "FRAME_BYTES",
    "MESSAGE_BYTES_MAX",
    "VERSION",
    "WINDOW",
    "ProtocolError",
    "decode",
    "encode",
]

VERSION = 2
"""2: rows may name the receipt of their write."""
FRAME_BYTES = 256 * 1024
"""How much of a log or file one frame carries."""

MESSAGE_BYTES_MAX = 1024 * 1024
WINDOW = 8
BATCH_BYTES_MAX = 256 * 1024 * 1024
"""The largest row that a follower takes, in as many frames as that needs."""

_LENGTHS = {
    "hello": 3,
    "ack": 4,
    "welcome": 3,
    "refuse": 4,
    "entries": 6,
    "chunk": 4,
    "complete": 4,
    "beat": 3,
}


class ProtocolError(BadInput):
    """The other side of a replica's connection said what makes no sense."""


def encode(*message: Any) -> bytes:
    """Return the frame of a message."""
    return ormsgpack.packb(message, default=list)


def decode(frame: bytes) -> list[Any]:
    """Return the message of a frame.

    Raises:
        ProtocolError: it is none.
    """
    if len(frame) > MESSAGE_BYTES_MAX:
        raise ProtocolError("a replica's message", reason=f"{len(frame)} bytes are too many")
    try:
        message = ormsgpack.unpackb(frame)
    except ValueError:
        raise ProtocolError("a replica's message", reason="it is not MessagePack") from None
    kind = message[0] if isinstance(message, list) and message else None
    if not isinstance(kind, str) or _LENGTHS.get(kind) != len(message):
        raise ProtocolError("a replica's message", reason="it is none of the known ones")
    found: list[Any] = message
    return found
