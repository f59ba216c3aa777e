"""Write request bodies to the part store: batched, hashed and written off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from sennit_core.errors import BadInput
from sennit_core.units import MIB

if TYPE_CHECKING:
    from lake.uploads.part_writer import PartWriter
    from lake.uploads.parts import PartStore
    from lake.uploads.upload import UploadInfo

__all__ = ["BytesWriter", "WholeUpload", "receive", "receive_body"]

_BODY_READER = "elkyn.body_reader"  # `elkyn.server.asgi.BODY_READER`
BATCH_BYTES = MIB
"""Bytes passed to a thread at once. One batch is written while the next arrives, so a request holds
at most two batches, regardless of the size of its body."""


class BytesWriter(Protocol):
    """A writer that keeps its bytes only on commit."""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        ...

    def commit(self) -> object:
        """Keep the bytes written so far."""
        ...


class Request(Protocol):
    """A request whose body is read as it arrives; one of Starlette."""

    @property
    def scope(self) -> MutableMapping[str, Any]:
        """The ASGI scope."""
        ...

    def stream(self) -> AsyncGenerator[bytes, None]:
        """Return the pieces of the body."""
        ...


class BodyReader(Protocol):
    """Reads a body in a thread; the server's scope extension `elkyn.body_reader`."""

    async def read_into(self, sink: Callable[[memoryview], None]) -> int:
        """Pass bytes to a function in a thread; return their number. The others come by ASGI."""
        ...


async def receive_body(request: Request, writer: BytesWriter) -> int:
    """Write a request's body, then commit it, as `receive`; in one thread if the server can.

    Args:
        request: The request.
        writer: As of `receive`.

    Returns:
        The size of the body in bytes.
    """
    reader: BodyReader | None = request.scope.get("extensions", {}).get(_BODY_READER)
    pieces = request.stream()
    size = 0
    if reader is not None:
        # The first piece comes by ASGI: what middleware has read, and after "100 Continue".
        first = await anext(pieces)
        await asyncio.to_thread(writer.write, first)
        size = len(first) + await reader.read_into(writer.write)
    return size + await receive(pieces, writer)


async def receive(pieces: AsyncIterator[bytes], writer: BytesWriter) -> int:
    """Write a body as it arrives, then commit it.

    Args:
        pieces: The body.
        writer: Receives the body; used by one thread at a time, never by the event loop's thread.

    Returns:
        The size of the body in bytes.

    Raises:
        SennitError: The writer's error; nothing is committed.
    """
    loop = asyncio.get_running_loop()
    batch: list[bytes] = []
    batch_bytes = total_bytes = 0
    writing: asyncio.Future[None] | None = None
    try:
        async for piece in pieces:
            batch.append(piece)
            batch_bytes += len(piece)
            if batch_bytes >= BATCH_BYTES:
                # One write at a time, in order; while it runs the next batch arrives.
                if writing is not None:
                    await writing
                writing = loop.run_in_executor(None, _write, writer, batch)
                total_bytes += batch_bytes
                batch, batch_bytes = [], 0
        if writing is not None:
            await writing
        writing = loop.run_in_executor(None, _write, writer, batch)
        await writing
        writing = None
        await loop.run_in_executor(None, writer.commit)
    finally:
        if (
            writing is not None
        ):  # the body ended early: wait for the thread before the file is closed
            await asyncio.wait([writing])
            writing.exception()
    return total_bytes + batch_bytes


def _write(writer: BytesWriter, batch: list[bytes]) -> None:
    for piece in batch:
        writer.write(piece)


class WholeUpload:
    """Writes a whole file as the parts of an upload.

    Args:
        parts: The part store.
        upload: The upload, just started.
    """

    def __init__(self, parts: PartStore, upload: UploadInfo) -> None:
        self._parts = parts
        self._upload = upload
        self._index = 0
        # Bytes that the current part still lacks; 0 without one.
        self._room_bytes = 0
        self._part: PartWriter | None = None
        self._total_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes, which may span several parts."""
        rest = memoryview(data)
        while rest:
            if self._part is None:
                self._part = self._parts.open_part(self._upload.id, self._index)
                self._room_bytes = self._upload.part_bytes
            piece, rest = rest[: self._room_bytes], rest[self._room_bytes :]
            self._part.write(piece)
            self._total_bytes += len(piece)
            self._room_bytes -= len(piece)
            if not self._room_bytes:
                self._finish_part()

    def commit(self) -> None:
        """Keep the last part.

        Raises:
            BadInput: The file is shorter than was announced.
        """
        if self._upload.size is not None and self._total_bytes != self._upload.size:
            raise BadInput(
                what=self._upload.name,
                reason=f"received {self._total_bytes} of the {self._upload.size} announced bytes",
            )
        if self._part is not None:
            self._finish_part()

    def _finish_part(self) -> None:
        assert self._part is not None
        with self._part as part:
            self._part = None
            part.commit()
        self._index += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._part is not None:
            self._part.__exit__(kind, error, trace)
            self._part = None
