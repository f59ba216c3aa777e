"""Event streams (`text/event-stream`) with Firebase's events: put, patch, keep-alive, cancel.

On a path ending in `/.watch` the same events are unnamed messages `{"type", "path", "data"}`, which a
browser's `EventSource.onmessage` receives. Each event carries `id:`, the position of its commit: a
client that reconnects with `Last-Event-ID` receives the events that it missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias

from elkyn.errors import Diverged, NotReadable
from elkyn.server.asgi import DirectSend, send_body
from elkyn.server.bodies.codec import dump
from elkyn.server.realtime.feed import Batch, Feed, Opener, Opening
from elkyn.server.send_buffer import ClientSendBuffer
from elkyn.tree.events import Event
from sennit_core.errors import Busy, Closed, Denied

__all__ = ["Stream", "encode_put"]

Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# nginx buffers responses unless `x-accel-buffering` says no; an event would wait in its buffer.
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_CHUNKS = ("chunk", "unnamed chunk")
# Firebase's REST streaming names keep-alive and cancel, each with the data shown here, and
# auth_revoked, with the reason as its data (`Stream._end`). In unnamed messages a keep-alive is a
# comment line, which `onmessage` does not see (HTML standard, 9.2.6).
_KEEP_ALIVE = (b"event: keep-alive\ndata: null\n\n", b": keep-alive\n\n")
_CANCEL = (b"event: cancel\ndata: null\n\n", b'data: {"type":"cancel","path":"/","data":null}\n\n')


def encode_put(data: Any, name: str, *, unnamed: bool = False) -> bytes:
    """Return the first event of a stream: the whole value, with `name` as its id."""
    return _frame("put", "/", data, name, unnamed)


def _unreadable(code: str, *, unnamed: bool) -> bytes:
    """Return the event that ends a stream of an unreadable replica; clients reconnect after it."""
    if unnamed:
        return b"retry: 1000\ndata: %b\n\n" % dump({"type": code, "path": "/", "data": None})
    # `retry` sets the client's reconnection time to one second (HTML standard, section 9.2.6).
    return b"retry: 1000\nevent: %b\ndata: null\n\n" % code.encode()


def _frame(kind: str, path: str, data: Any, name: str, unnamed: bool) -> bytes:
    if unnamed:
        body = dump({"type": kind, "path": path, "data": data})
        return b"data: %b\nid: %b\n\n" % (body, name.encode())
    body = dump({"path": path, "data": data})
    return b"event: %b\ndata: %b\nid: %b\n\n" % (kind.encode(), body, name.encode())


class Stream:
    """One client's event stream, from its headers to its end.

    Args:
        send: ASGI's.
        opener: makes the first event, or the events that a reconnecting client has missed.
        check: raises `Denied` when the client may not read any more; called before each keep-alive
            and after `recheck` and `hold_for_recheck`.
        recheck_affected: called between dequeuing events and sending them; may call `hold_for_recheck`.
        unnamed: whether events are sent as unnamed messages instead of named events.
        keep_alive_seconds: silence after which a keep-alive is sent.
    """

    def __init__(
        self,
        send: Send,
        opener: Opener,
        check: Callable[[], None],
        *,
        unnamed: bool,
        keep_alive_seconds: float,
        recheck_affected: Callable[[], None] = lambda: None,
    ) -> None:
        self.direct: DirectSend | None = None
        self._send = send
        self._opener = opener
        self._check = check
        self._unnamed = unnamed
        self._keep_alive_seconds = keep_alive_seconds
        self._recheck_affected = recheck_affected
        # Set by every reason to run; `_step` finds out which one it is.
        self._woken = asyncio.Event()
        self._idle = False  # the stream's task waits for events only: a batch may bypass it
        self._closing = False
        self._recheck = False  # call `check` before the next event is sent
        self._silent = False  # a keep-alive is due
        self._sent_at: float | None = None  # None: something was sent since the last tick
        self._revoked: str | None = None  # why the credential ended
        self._diverged = False  # this replica may hold writes that the leader never had
        self.bytes_sent = 0
        self.events_sent = 0

    def wake(self, _feed: Feed | None = None) -> None:
        """Have the stream's task run; called in the loop."""
        self._idle = False
        self._woken.set()

    def try_send_nowait(self, batch: Batch) -> bool:
        """Send a batch without waking the stream's task; False unless the connection accepts it now."""
        if not self._idle:
            return False
        chunk: bytes | None = batch.encoded.get(_CHUNKS[self._unnamed])
        if chunk is None:
            chunk = self._chunk(batch)
        # The connection's buffer is full: the batch is queued, and the task waits for room with it.
        if not self.direct.chunk(chunk):  # type: ignore[union-attr]  # set while `_idle`
            return False
        self.events_sent += len(batch.events)
        self.bytes_sent += len(chunk)
        self._sent_at = None
        return True

    def _chunk(self, batch: Batch) -> bytes:
        data = self._encoded(batch)
        # Chunked transfer coding (RFC 9112, section 7.1), made once for all followers of the node.
        chunk: bytes = b"%x\r\n%b\r\n" % (len(data), data)
        batch.encoded[_CHUNKS[self._unnamed]] = chunk
        return chunk

    def tick(self, now: float) -> None:
        """Have a keep-alive sent when nothing was sent for `keep_alive_seconds`.

        Args:
            now: the event loop's time.
        """
        # The first tick after something was sent: silence is measured from here, without reading
        # the clock for each event. A keep-alive is delayed by at most two ticks.
        if self._sent_at is None:
            self._sent_at = now
        elif now - self._sent_at >= self._keep_alive_seconds:
            self._silent = True
            self.wake()

    def close(self) -> None:
        """End the stream after the current write."""
        self._closing = True
        self.wake()

    def recheck(self) -> None:
        """Check soon whether the client may still read: the rules or their data have changed."""
        self._recheck = True
        self.wake()

    def hold_for_recheck(self) -> None:
        """Check whether the client may still read before anything more is sent."""
        self._recheck = True
        # The task is not woken: the next batch goes through it, since `_idle` is False, and the
        # task checks first. If no batch comes, `recheck` follows within 0.1 s (see `WriteTracker`).
        self._idle = False

    def revoke(self, reason: str) -> None:
        """End the stream: its credential is no longer valid."""
        self._revoked = reason
        self.wake()

    def disconnect_diverged(self) -> None:
        """End the stream: it may have sent writes that the leader never had."""
        self._diverged = True
        self.close()

    async def refuse(self, code: str) -> None:
        """Answer with a stream of one event: why nothing can be read, and when to reconnect."""
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self._write(_unreadable(code, unnamed=self._unnamed), more=False)

    async def run(self, feed: Feed, send_buffer: ClientSendBuffer) -> None:
        """Send events until `close`, `revoke`, or reading is denied; the caller closes `feed`.

        Args:
            feed: the source of events.
            send_buffer: the client's counter of unsent bytes; counts whole values while they are sent.

        Raises:
            Busy: too many large values are being sent; nothing was sent yet.
        """
        # Before the head is sent: a denied read or a busy server can still be answered with a
        # status.
        first = self._opened(await feed.start(self._opener))
        send_buffer.check(len(first))
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        # A stream that has begun has no other way to report them than to end.
        with suppress(Closed, Busy):  # the client reconnects
            await self._write_value(first, send_buffer)
            # A whole value may be large, and the loop below runs for hours.
            del first
            try:
                while await self._step(feed, send_buffer):
                    pass
            except NotReadable as error:
                await self._write(_unreadable(error.code, unnamed=self._unnamed))
        await self._write(b"", more=False)

    def _opened(self, opening: Opening) -> bytes:
        frames = [
            self.encode(frame) if isinstance(frame, Event) else frame for frame in opening.frames
        ]
        self.events_sent += len(frames)
        return b"".join(frames)

    async def _write_value(self, data: bytes, send_buffer: ClientSendBuffer) -> None:
        if data:
            with send_buffer.hold(len(data)):
                await self._write(data)

    async def _step(self, feed: Feed, send_buffer: ClientSendBuffer) -> bool:
        """Wait until the stream is woken and handle the reason; False when the stream has ended."""
        if not self._woken.is_set():
            self._idle = self.direct is not None and not self._recheck
            await self._woken.wait()
            self._idle = False
        self._woken.clear()
        if self._closing or self._revoked is not None:
            return await self._end()
        # Dequeue, then recheck, then send: a write whose events were dequeued here was noted
        # before, so a permission that it ends is checked before they are sent.
        batches = feed.dequeue()
        self._recheck_affected()
        if self._recheck and not await self._recheck_permission():
            return False
        # The queue was dropped. The new opening contains what was lost.
        if batches is None:
            try:
                opening = await feed.start(self._opener)
            except Denied:
                return await self._write(_CANCEL[self._unnamed]) and False
            await self._write_value(self._opened(opening), send_buffer)
        elif batches:
            self.events_sent += sum(len(batch.events) for batch in batches)
            await self._write(b"".join([self._encoded(batch) for batch in batches]))
        return not self._silent or await self._recheck_permission()

    async def _recheck_permission(self) -> bool:
        silent, self._recheck, self._silent = self._silent, False, False
        try:
            self._check()
        except Denied:
            return await self._write(_CANCEL[self._unnamed]) and False
        return not silent or await self._write(_KEEP_ALIVE[self._unnamed])

    async def _end(self) -> bool:
        reason = self._revoked
        if self._diverged:
            await self._write(_unreadable(Diverged.code, unnamed=self._unnamed))
        elif reason is not None and self._unnamed:
            body = dump({"type": "auth_revoked", "path": "/", "data": reason})
            await self._write(b"data: %b\n\n" % body)
        elif reason is not None:
            await self._write(b"event: auth_revoked\ndata: %b\n\n" % dump(reason))
        return False

    def id_at(self, position: int, time_ms: int) -> str:
        """Return the id of the events of a write."""
        return str(position)

    def encode(self, event: Event) -> bytes:
        """Return the bytes of an event."""
        name = self.id_at(event.position, event.time_ms)
        return _frame(event.type, event.path, event.data, name, self._unnamed)

    def _encoded(self, batch: Batch) -> bytes:
        data: bytes | None = batch.encoded.get(self._unnamed)
        if data is None:
            data = b"".join([self.encode(event) for event in batch.events])
            batch.encoded[self._unnamed] = data
        return data

    async def _write(self, data: bytes, *, more: bool = True) -> bool:
        self.bytes_sent += len(data)
        self._sent_at = None
        await send_body(data, self._send, more=more)
        return True
