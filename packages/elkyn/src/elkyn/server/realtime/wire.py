"""Messages of the realtime wire protocol, version 5, as text: frames in and out, JSON inside.

A message longer than a frame goes as the number of frames and then the frames. Messages have two
layers, control (`c`) and data (`d`); requests of the data layer carry a number that the answer
repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elkyn.server.bodies.codec import dump, load
from sennit_core.errors import TooLarge, UsageError

__all__ = [
    "FRAME_CHARS",
    "Assembler",
    "Message",
    "control",
    "frames_of",
    "hello",
    "parse",
    "push",
    "reply",
]

# The size at which Firebase's SDKs split messages.
FRAME_CHARS = 16_384
# The SDKs treat a frame of at most 6 characters that is a number as a count of frames.
_COUNT_CHARS_MAX = 6
_FRAMES_MAX = 9999


class Assembler:
    """Joins the frames of messages.

    Args:
        chars_max: maximum length of one message.
    """

    def __init__(self, chars_max: int) -> None:
        self._chars_max = chars_max
        # Frames of the current message so far; empty once it is discarded.
        self._frames: list[str] = []
        # Frames that the current message still lacks; 0 between messages.
        self._missing = 0
        # Length of the current message so far, discarded frames included: the limit holds for them
        # too.
        self._chars = 0
        # True from `discard` until the last frame of the message has come.
        self._discards = False

    @property
    def first_frame(self) -> str | None:
        """The only frame so far of a message that is not complete; None at any other time."""
        return self._frames[0] if self._missing and len(self._frames) == 1 else None

    def discard(self) -> None:
        """Drop the received and the remaining frames of the current message."""
        self._frames, self._discards = [], True

    def feed(self, frame: str) -> str | None:
        """Process a frame; returns the message that it completes, if any.

        Raises:
            UsageError: the count of frames is too large.
            TooLarge: the message exceeds the limit.
        """
        if not self._missing:
            if len(frame) > _COUNT_CHARS_MAX or not (frame.isascii() and frame.isdecimal()):
                self._check(len(frame))
                return frame
            count = int(frame)  # 0 is a keep-alive
            if count > _FRAMES_MAX:
                raise UsageError(f"a message may have at most {_FRAMES_MAX} frames, not {count}")
            self._missing = count
            return None
        self._chars += len(frame)
        self._check(self._chars)
        if not self._discards:
            self._frames.append(frame)
        self._missing -= 1
        if self._missing:
            return None
        if self._discards:
            self._chars, self._discards = 0, False
            return None
        message = "".join(self._frames)
        self._frames, self._chars = [], 0
        return message

    def _check(self, chars: int) -> None:
        if chars > self._chars_max:
            raise TooLarge("a message", self._chars_max)


def frames_of(message: str) -> list[str]:
    """Split a message into frames: the message itself, or a count and its parts."""
    if len(message) <= FRAME_CHARS:
        return [message]
    frames = [message[at : at + FRAME_CHARS] for at in range(0, len(message), FRAME_CHARS)]
    return [str(len(frames)), *frames]


@dataclass(frozen=True, slots=True)
class Message:
    """A request of a client.

    Args:
        number: repeated in the answer; -1 for control messages, which have none.
        action: `q`, `p` and so on; for control messages `control:` and their kind.
        body: its fields.
    """

    number: int
    action: str
    body: Mapping[str, Any] = field(default_factory=dict)


def parse(text: str) -> Message:
    """Parse a message of a client.

    Raises:
        UsageError: the text is not a message of the protocol.
    """
    try:
        message = load(text.encode())
        layer, inner = message["t"], message["d"]
        if layer == "c":
            return Message(-1, f"control:{inner['t']}")
        number, action, body = inner["r"], inner["a"], inner.get("b")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError("this is not a message of the realtime protocol") from None
    if layer != "d" or type(number) is not int or type(action) is not str:
        raise UsageError("this is not a message of the realtime protocol")
    return Message(number, action, body if isinstance(body, dict) else {})


def control(kind: str, data: Any) -> str:
    """Return a control message: `h` hello, `s` shutdown, `r` reset, `o` pong."""
    return dump({"t": "c", "d": {"t": kind, "d": data}}).decode()


def hello(session_id: str, host: str, now_ms: int) -> str:
    """Return the first message of a connection."""
    return control("h", {"ts": now_ms, "v": "5", "h": host, "s": session_id})


def reply(number: int, status: str, data: Any = "") -> str:
    """Return the answer to a request."""
    return dump({"t": "d", "d": {"r": number, "b": {"s": status, "d": data}}}).decode()


def push(action: str, body: Mapping[str, Any]) -> str:
    """Return an unsolicited message: `d` set, `m` merge, `c` and `ac` revoked, `sd` a text."""
    return dump({"t": "d", "d": {"a": action, "b": body}}).decode()
