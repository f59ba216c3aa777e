"""Messages of the replication protocol: MessagePack arrays, one per WebSocket message.

    follower   hello  version, {node, term, position, leads, mark, fresh}
               ack    number, term, position        the frame is processed, `position` is durable
    leader     welcome version, {term, leads, last, diverged, snapshot}
               refuse reason, text, term            then the connection ends
               entries number, term, more, bytes, last    [[position, row], …] once `more` is false
               chunk  number, term, bytes           part of a snapshot's file
               complete number, term, {position, bytes, sha256}
               beat   term, last

Frames with a number are acknowledged; at most `WINDOW` of them are in flight.
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

VERSION = 3
"""Version 2: rows may name the receipt of their write. Version 3: the account state, and the
principal of a credential, name the leader's unnamed credentials `admin_secrets`."""
FRAME_BYTES = 256 * 1024
"""The maximum payload of a frame."""

# More than a frame's payload with its envelope; checked before the message is parsed.
MESSAGE_BYTES_MAX = 1024 * 1024
# Eight frames of 256 KiB: for a follower that does not acknowledge, the leader's memory holds 2 MiB
# in flight, and one read of the log.
WINDOW = 8
BATCH_BYTES_MAX = 256 * 1024 * 1024
"""The largest row that a follower accepts, split over frames."""

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
    """The other side of a replication connection sent an invalid message."""


def encode(*message: Any) -> bytes:
    """Return the frame of a message."""
    return ormsgpack.packb(message, default=list)


def decode(frame: bytes) -> list[Any]:
    """Return the message of a frame.

    Raises:
        ProtocolError: the frame is not a valid message.
    """
    if len(frame) > MESSAGE_BYTES_MAX:
        raise ProtocolError("a replica's message", reason=f"it is too large ({len(frame)} bytes)")
    try:
        message = ormsgpack.unpackb(frame)
    except ValueError:
        raise ProtocolError("a replica's message", reason="it is not MessagePack") from None
    kind = message[0] if isinstance(message, list) and message else None
    if not isinstance(kind, str) or _LENGTHS.get(kind) != len(message):
        raise ProtocolError("a replica's message", reason="its type is unknown")
    found: list[Any] = message
    return found
