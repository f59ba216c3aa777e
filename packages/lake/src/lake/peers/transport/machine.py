"""What a protocol state machine of peers is: events in, effects out; no clock, no thread, no I/O.

`lake.peers.service` performs the effects over real connections, `lake.testing.simulation` over a
simulated network. A machine gets the time as an argument, and is called at least every
`TICK_SECONDS`, so it needs no timers. It draws random numbers from a generator that it was given, so
that a history can be replayed from its seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from lake.peers.transport.messages import Message

__all__ = ["TICK_SECONDS", "Call", "Effect", "Failed", "Replied", "Send"]

TICK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message, which may be lost, to a peer.

    Args:
        peer: The node's id.
        message: The message.
    """

    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class Call:
    """Send a request to a peer; leads to exactly one `Replied` or `Failed`.

    Args:
        peer: The node's id.
        id: The machine's number for the request.
        message: The request.
        timeout_seconds: After this time it has failed.
    """

    peer: str
    id: int
    message: Message
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Replied:
    """A peer has answered a request.

    Args:
        id: The number of the request.
        message: The answer.
        body: Its bytes.
    """

    id: int
    message: Message
    body: bytes | memoryview = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """A request has failed: the peer refused it, is unreachable, or did not answer in time.

    Args:
        id: The number of the request.
        code: The error's code, `unavailable` or `deadline-exceeded` if there was no answer.
        reason: In one sentence.
    """

    id: int
    code: str
    reason: str = ""


Effect: TypeAlias = object
"""`Send`, `Call`, or an effect that the machine's own module defines."""
