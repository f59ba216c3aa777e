"""Send queue of a socket, with its size."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from elkyn.server.send_buffer import LARGE_BYTES, ClientSendBuffer

__all__ = ["SendQueue"]

CHARS_MAX = 4 * 1024 * 1024  # of one socket; over it no further request is read


class SendQueue:
    """A queue of frames; the reader of a client's requests waits in `wait_for_room` while it is full.

    Args:
        send_buffer: the client's counter of unsent bytes; counts the queue once it is large.
        chars_max: the queue is full when it holds more.
    """

    def __init__(self, send_buffer: ClientSendBuffer, chars_max: int = CHARS_MAX) -> None:
        self._frames: deque[str] = deque()
        # The length of all frames in the queue.
        self._chars = 0
        self._chars_max = chars_max
        self._send_buffer = send_buffer
        self._counted = 0  # how much of `_chars` is added to `_send_buffer`
        # Set iff `_chars` is at most `_chars_max`. A client that does not read is no longer read
        # either, so its own requests cannot grow the queue.
        self._room = asyncio.Event()
        self._room.set()

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add(self, frames: Iterable[str]) -> None:
        """Queue frames."""
        for frame in frames:
            self._frames.append(frame)
            self._chars += len(frame)
        # Small queues are not counted, as small answers are not (see `ClientSendBuffer`).
        if self._chars > LARGE_BYTES:
            self._count(self._chars)
            if self._chars > self._chars_max:
                self._room.clear()

    def next(self) -> str:
        """Remove and return the first frame."""
        frame = self._frames.popleft()
        self._chars -= len(frame)
        if self._counted:
            self._count(self._chars)
        if self._chars <= self._chars_max:
            self._room.set()
        return frame

    def _count(self, chars: int) -> None:
        self._send_buffer.add(chars - self._counted)
        self._counted = chars

    def clear(self) -> None:
        """Drop all frames: the connection has ended."""
        self._frames.clear()
        self._chars = 0
        self._count(0)
        self._room.set()

    async def wait_for_room(self) -> None:
        """Wait until the queue is not full."""
        await self._room.wait()
