"""What waits to be sent on a socket, in order, and how much it is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from elkyn.server.unsent import LARGE_BYTES, Share

__all__ = ["Outbox"]

CHARS_MAX = 4 * 1024 * 1024


class Outbox:
    """Frames that wait; whoever adds them from a client's requests waits for room.

    Args:
        unsent: counts what waits here, once it is large.
        chars_max: there is room while less is queued.
    """

    def __init__(self, unsent: Share, chars_max: int = CHARS_MAX) -> None:
        self._frames: deque[str] = deque()
        self._chars = 0
        self._chars_max = chars_max
        self._unsent = unsent
        self._counted = 0
        self._room = asyncio.Event()
        self._room.set()

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add(self, frames: Iterable[str]) -> None:
        """Queue frames."""
        for frame in frames:
            self._frames.append(frame)
            self._chars += len(frame)
        if self._chars > LARGE_BYTES:
            self._count(self._chars)
            if self._chars > self._chars_max:
                self._room.clear()

    def next(self) -> str:
        """Take the first frame."""
        frame = self._frames.popleft()
        self._chars -= len(frame)
        if self._counted:
            self._count(self._chars)
        if self._chars <= self._chars_max:
            self._room.set()
        return frame

    def _count(self, chars: int) -> None:
        self._unsent.add(chars - self._counted)
        self._counted = chars

    def clear(self) -> None:
        """Drop what waits: the connection is gone."""
        self._frames.clear()
        self._chars = 0
        self._count(0)
        self._room.set()

    async def room(self) -> None:
        """Wait until less than the bound is queued."""
        await self._room.wait()
