"""One writer for each upload at a time, and bodies that end where their client breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect

__all__ = ["BreakableBody", "UploadLocked", "UploadWriters"]

WAIT_SECONDS = 5.0
"""How long a request waits for the one that it interrupts, which makes what it has received durable."""


class UploadLocked(Exception):
    """Another request writes to the upload, and does not end."""


class BreakableBody:
    """The bytes of a request's body up to where the client disconnects, or `interrupt` is called.

    Args:
        stream: The body.
    """

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._task: asyncio.Task[object] | None = (
            None  # the one that waits for bytes, while it does
        )
        self._interrupted = False
        self.is_whole = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they arrive."""
        while not self._interrupted:
            task = self._task = asyncio.current_task()
            try:
                piece = await anext(self._stream, None)
            except ClientDisconnect:
                break
            except asyncio.CancelledError:
                if task is None or not self.is_interrupted():
                    raise
                task.uncancel()  # it was cancelled to wake up from here
                break
            finally:
                self._task = None
            if piece is None:
                return
            yield piece
        self.is_whole = False

    def is_interrupted(self) -> bool:
        """Return whether another request ended this one."""
        return self._interrupted

    def interrupt(self) -> None:
        """Let the body end now."""
        self._interrupted = True
        if self._task is not None:
            self._task.cancel()


class UploadWriters:
    """The requests that write to uploads; used by one event loop.

    A client whose connection is lost comes back before the server notices that. So a new request
    interrupts the earlier one, which keeps what it has received.
    """

    def __init__(self) -> None:
        # The body of the request that writes, and an event for its end.
        self._writing: dict[str, tuple[BreakableBody, asyncio.Event]] = {}

    @asynccontextmanager
    async def exclusive(self, upload_id: str, body: BreakableBody) -> AsyncIterator[None]:
        """Interrupt the request that writes to an upload, and keep others out meanwhile.

        Raises:
            UploadLocked: That request does not end.
        """
        current = self._writing.get(upload_id)
        if current is not None:
            current[0].interrupt()
            try:
                await asyncio.wait_for(current[1].wait(), WAIT_SECONDS)
            except TimeoutError:
                raise UploadLocked from None
            if upload_id in self._writing:  # a third request was faster
                raise UploadLocked
        ended = asyncio.Event()
        self._writing[upload_id] = (body, ended)
        try:
            yield
        finally:
            del self._writing[upload_id]
            ended.set()
