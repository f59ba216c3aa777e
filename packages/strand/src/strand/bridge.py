"""Frames that carry a ring to a browser, which cannot map it: spec/strand-wire.md, "Bridge frames".

The receiver has memory of the same geometry and stores the bytes at the same offsets, so no record is
encoded here: a frame is a head of a few words, followed by unmodified spans of the ring.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator

from sennit_core.errors import Closed, Corrupt, UsageError
from strand import layout
from strand.aio import wait_for_commit
from strand.errors import LeaseHeld, ProducerDied, StrandAbortError, StreamReset
from strand.view import StrandView

__all__ = ["FRAME_BYTES", "FRAME_BYTES_MAX", "Bridge", "frames", "length_prefixed"]

FRAME_BYTES = 256 * 1024
FRAME_BYTES_MAX = 1 << 20

_FORMAT = 1
_KIND_HELLO, _KIND_RECORDS, _KIND_END, _KIND_ACKNOWLEDGE, _KIND_ABORT = 1, 2, 3, 16, 17
_HELLO = struct.Struct("<BBHIQQ")
_RECORDS = struct.Struct("<B3xIQQI4x")
_END = struct.Struct("<BBHIQ")
_MESSAGE = struct.Struct("<B7xQ")
_HEAP_COMMIT_AT = layout.PRODUCER_AT + 24
# Bytes 28 to 87 of a new header: the receiver's counters are its own.
_CONTROL_WORDS = struct.pack("<7i8i", *[0] * 7, *[layout.VACANT] * 8)
_NAP_SECONDS = 0.15  # how soon `close` ends an iteration that waits

Outcome = LeaseHeld | ProducerDied | StrandAbortError | StreamReset
_OUTCOMES = (LeaseHeld, ProducerDied, StrandAbortError, StreamReset)


class Bridge:
    """Converts the records of a ring to frames; iterate over it once.

    Without `credit`, records are acknowledged when the next frame is requested, so a slow transport
    slows the producer (the body of a response). With `credit`, records are acknowledged when
    `receive` gets the receiver's acknowledgement, and at most as many are in flight as its ring
    holds (WebSockets, whose protocol has no flow control for messages).

    Iterating blocks; `receive` and `close` may be called from another thread meanwhile. In an event
    loop use `serve` or `stream`.
    """

    def __init__(
        self, view: StrandView, *, credit: bool = False, frame_bytes: int = FRAME_BYTES
    ) -> None:
        """Send the records of `view`, from its position on.

        Args:
            view: a consumer used only by this bridge; the caller closes it.
            credit: whether the receiver acknowledges records.
            frame_bytes: the longest frame, 16 KiB to 1 MiB.

        Raises:
            UsageError: another frame length.
        """
        if not 16384 <= frame_bytes <= FRAME_BYTES_MAX:
            raise UsageError(f"frames have 16384 to {FRAME_BYTES_MAX} bytes, not {frame_bytes}")
        self._view = view
        self._map = view.map
        self._credit = credit
        self._frame_bytes = frame_bytes
        self._sent = view.acknowledged_count  # records sent: the first of the next frame
        self._heap = 0  # heap bytes sent or skipped; never above the ring's heap counter
        self._started = False  # whether the heap before the first unread payload was skipped
        self._stopped = False  # set by `close`, maybe in another thread, and by the last frame

    def __iter__(self) -> Iterator[bytes]:
        """Yield the frames of the stream; the last one reports how it ended."""
        try:
            yield self._hello()
            while not self._stopped:
                try:
                    found: int | Outcome = self._view.wait_for_commit(self._sent, _NAP_SECONDS)
                except _OUTCOMES as error:
                    found = error
                yield from self._frames_for(found)
        except (Closed, ValueError):  # the view was closed, and its memory released
            if not self._stopped:
                raise

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the frames in an event loop; only the loop's thread may use the view meanwhile."""
        try:
            yield self._hello()
            while not self._stopped:
                try:
                    found: int | Outcome = await wait_for_commit(
                        self._view, self._sent, _NAP_SECONDS
                    )
                except _OUTCOMES as error:
                    found = error
                for frame in self._frames_for(found):
                    yield frame
        finally:
            self.close()

    async def serve(
        self, send: Callable[[bytes], Awaitable[object]], messages: AsyncIterable[object]
    ) -> None:
        """Send the stream over a connection until the receiver has read it all or disconnects.

        Args:
            send: sends one binary message.
            messages: the messages of the receiver; ends with the connection.

        Raises:
            Corrupt: the receiver sent an invalid message; close the connection.
        """
        listening = asyncio.create_task(self._listen(messages))
        try:
            async for frame in self.stream():
                await send(frame)
            await listening  # a receiver closes when it has read everything
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, messages: AsyncIterable[object]) -> None:
        try:
            async for message in messages:
                self.receive(message)
        finally:
            self.close()

    def receive(self, message: object) -> None:
        """Handle a message of the receiver: an acknowledgement or an abort.

        Raises:
            Corrupt: the message is invalid; close the connection.
        """
        if not isinstance(message, bytes) or len(message) != _MESSAGE.size:
            found = f"{len(message)} bytes" if isinstance(message, bytes) else repr(message)[:40]
            raise Corrupt("a bridge message", f"{_MESSAGE.size} bytes", found)
        kind, upto = _MESSAGE.unpack(message)
        if kind == _KIND_ABORT:
            self._view.signal_abort()
        elif kind != _KIND_ACKNOWLEDGE or not self._credit:
            raise Corrupt("a bridge message", "an acknowledgement or an abort", f"kind {kind}")
        # The receiver is not trusted: it cannot take an acknowledgement back, nor acknowledge
        # records that were not sent, which the producer would then overwrite.
        elif not self._view.acknowledged_count <= upto <= self._sent:
            expected = f"an acknowledgement of at most {self._sent} records"
            raise Corrupt("a bridge message", expected, str(upto))
        else:
            self._view.acknowledge_read(upto)

    def close(self) -> None:
        """End the iteration at the next nap; the stream in the ring continues."""
        self._stopped = True

    def _frames_for(self, found: int | Outcome) -> Iterator[bytes]:
        """Yield the frames for the result of a wait: records, the end, or none."""
        if isinstance(
            found, LeaseHeld
        ):  # the ring is full of sent records: the receiver must acknowledge
            return
        if isinstance(found, StrandAbortError):
            yield self._end(layout.ERROR, found.reason)
        elif isinstance(found, ProducerDied):
            yield self._end(layout.ERROR, str(found))
        elif isinstance(found, StreamReset):  # a reset requires that all records were acknowledged
            yield self._end(layout.EOS)
        elif found > self._sent:
            for frame in self._records(found):
                yield frame
                if not self._credit:
                    self._view.acknowledge_read(self._sent)
        elif self._has_ended() and found == self._view.committed_count:  # read after the status
            yield self._end(layout.EOS)

    def _has_ended(self) -> bool:
        return self._view.status not in ("initializing", "streaming")

    def _hello(self) -> bytes:
        # Unread records use at most the last `heap_bytes` bytes of the heap.
        self._heap = max(0, self._heap_count() - self._map.heap_bytes)
        head = bytearray(self._view.memory[: layout.METADATA_END])
        head[28:88] = _CONTROL_WORDS
        fields = (_KIND_HELLO, _FORMAT, 0, len(head), self._sent, self._heap)
        return _HELLO.pack(*fields) + head

    def _records(self, committed: int) -> Iterator[bytes]:
        """Yield frames of the slots up to `committed` and of their heap bytes, payloads first."""
        heap = self._heap_count()  # read after `committed`: includes the payloads of all records
        if not self._started:
            self._skip_heap(committed, heap)
            self._started = True
        stride = self._map.stride
        room = self._frame_bytes - _RECORDS.size
        while self._sent < committed:
            # payload bytes first, then as many slots as fit behind them
            payload = min(heap - self._heap, room)
            count = min(committed - self._sent, (room - payload) // stride)
            if self._heap + payload < heap:
                count = 0  # a record is sent only after all its payloads
            head = _RECORDS.pack(_KIND_RECORDS, count, self._sent, self._heap, payload)
            slots = self._spans(
                layout.HEADER_BYTES, self._map.records * stride, self._sent * stride, count * stride
            )
            payloads = self._spans(self._map.heap_start, self._map.heap_bytes, self._heap, payload)
            self._sent += count
            self._heap += payload
            yield b"".join([head, *slots, *payloads])

    def _spans(self, start: int, size: int, at: int, count: int) -> tuple[memoryview, memoryview]:
        """Return `count` bytes of a region from monotonic offset `at` on, wrapping at its end."""
        at %= size  # the same arithmetic as for slots and heap in the ring
        straight = min(count, size - at)
        memory = self._view.memory
        return memory[start + at : start + at + straight], memory[start : start + count - straight]

    def _skip_heap(self, committed: int, heap: int) -> None:
        """Skip the heap bytes before the first payload of the unread records."""
        pointers = [
            (self._map.slots.offsets[at], bit)
            for at, (field, bit) in enumerate(
                zip(self._map.schema.fields, self._map.schema.null_bits, strict=True)
            )
            if field.facts.heap
        ]
        lowest, memory = heap, self._view.memory
        for seq in range(self._sent, committed):
            slot = self._map.index_start + seq % self._map.records * self._map.stride
            for at, bit in pointers:
                if bit is None or memory[slot + bit // 8] >> (bit & 7) & 1:
                    lowest = min(lowest, self._payload_start(slot + at, heap))
        self._heap = max(self._heap, lowest)

    def _payload_start(self, at: int, heap: int) -> int:
        if self._map.version == 5:
            offset, size = struct.unpack_from("<IH", self._view.memory, at)
            # v5 stores the low 32 bits: the highest such offset below the counter is meant, because
            # the heap is smaller than 2**32 bytes
            offset = heap - ((heap - offset) & 0xFFFFFFFF)
        else:
            offset, size = struct.unpack_from("<QI", self._view.memory, at)
        return offset if size else heap

    def _heap_count(self) -> int:
        count: int = struct.unpack_from("<Q", self._view.memory, _HEAP_COMMIT_AT)[0]
        return count

    def _end(self, status: int, reason: str = "") -> bytes:
        self._stopped = True
        text = reason.encode(errors="replace")[: layout.REASON_BYTES_MAX]
        text = text.decode(errors="ignore").encode()
        return _END.pack(_KIND_END, status, 0, len(text), self._sent) + text


def frames(
    view: StrandView, *, credit: bool = False, frame_bytes: int = FRAME_BYTES
) -> Iterator[bytes]:
    """Yield the frames of a ring's stream from the position of `view` on; see `Bridge`."""
    return iter(Bridge(view, credit=credit, frame_bytes=frame_bytes))


def length_prefixed(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Prefix each frame with its length (u32), for transports that do not delimit messages."""
    for part in parts:
        yield struct.pack("<I", len(part)) + part
