"""Frames of a ring, applied by a receiver that knows the specification and nothing else."""

import asyncio
import contextlib
import struct
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

import strand
from sennit_core.errors import Corrupt, UsageError
from strand.bridge import Bridge, frames, length_prefixed

SCHEMA = strand.build_schema(
    [("id", "u32"), {"name": "text", "type": "utf8", "nullable": True}, ("samples", "i32_array")]
)


def record(n: int) -> tuple[Any, ...]:
    return n, None if n % 3 == 0 else "x" * (n % 23), [n] * (n % 4)


class Mirror:
    """A ring of the same geometry, filled from frames."""

    def __init__(self) -> None:
        self.memory = bytearray()
        self.first = self.records = self.heap = 0
        self.end: tuple[int, int, str] | None = None

    def apply(self, frame: bytes) -> None:
        assert self.end is None
        getattr(self, {1: "hello", 2: "slots", 3: "ended"}[frame[0]])(frame)

    def hello(self, frame: bytes) -> None:
        kind, form, zero, size, self.first, self.heap = struct.unpack_from("<BBHIQQ", frame)
        assert (kind, form, zero, size) == (1, 1, 0, len(frame) - 24)
        self.records = self.first
        self.map = strand.read_header(frame[24:] + bytes(1024), 1 << 40)
        self.memory = bytearray(self.map.total_bytes)
        self.memory[:size] = frame[24:]
        assert self.memory[28:56] == bytes(28)

    def slots(self, frame: bytes) -> None:
        count, first, heap, size = struct.unpack_from("<4xIQQI", frame)
        assert len(frame) == 32 + count * self.map.stride + size
        assert (first, frame[1:4], frame[28:32]) == (self.records, bytes(3), bytes(4))
        assert heap >= self.heap
        split = len(frame) - size
        index_bytes = self.map.records * self.map.stride
        self.copy(self.map.index_start, index_bytes, first * self.map.stride, frame[32:split])
        self.copy(self.map.heap_start, self.map.heap_bytes, heap, frame[split:])
        self.records, self.heap = first + count, heap + size

    def ended(self, frame: bytes) -> None:
        status, size, committed = struct.unpack_from("<xB2xIQ", frame)
        assert len(frame) == 16 + size
        self.end = (status, committed, frame[16:].decode())

    def copy(self, start: int, size: int, at: int, data: bytes) -> None:
        for index, byte in enumerate(data):
            self.memory[start + (at + index) % size] = byte

    def rows(self, first: int) -> list[tuple[Any, ...]]:
        """Read by setting the counters in memory as a receiver would."""
        struct.pack_into("<I", self.memory, 3072, 0x53454E36)
        struct.pack_into("<2Q", self.memory, 3136, self.records, self.records)
        struct.pack_into("<2Q", self.memory, 3152, self.heap, self.heap)
        struct.pack_into("<Q", self.memory, 3224, first)
        with (
            strand.attach_ring(buffer=bytearray(self.memory)) as ring,
            ring.consumer() as view,
        ):
            return [(n, t, list(s)) for n, t, s in view.tuples(first, self.records)]


def mirrored(parts: Iterable[bytes]) -> tuple[Mirror, list[tuple[Any, ...]]]:
    """Apply all frames; the mirror, and every record as it was when it came."""
    mirror = Mirror()
    rows: list[tuple[Any, ...]] = []
    for frame in parts:
        before = mirror.records
        mirror.apply(frame)
        if frame[0] == 2 and mirror.records > before:
            rows += mirror.rows(before)
    return mirror, rows


@contextlib.contextmanager
def producing(ring: strand.Ring, count: int) -> Iterator[None]:
    def produce() -> None:
        with ring.producer() as writer:
            writer.write_record_batch(record(n) for n in range(count))

    thread = threading.Thread(target=produce)
    thread.start()
    yield
    thread.join()


@pytest.fixture(params=[5, 6])
def ring(request: pytest.FixtureRequest) -> Iterator[strand.Ring]:
    with strand.open_ring(SCHEMA, 16, 2048, version=request.param) as made:
        yield made


def test_frames_carry_every_record_and_the_end(ring: strand.Ring) -> None:
    with ring.consumer() as view, producing(ring, 500):
        mirror, rows = mirrored(frames(view))
    assert rows == [record(n) for n in range(500)]
    assert mirror.end == (2, 500, "")


def test_frames_are_no_longer_than_requested() -> None:
    with strand.open_ring(strand.BLOCKS, 64, "512KiB") as ring, ring.consumer() as view:
        payloads = [bytes([n]) * 20_000 * n for n in range(8)]
        with ring.producer() as writer:
            for payload in payloads[:6]:
                writer.write_bytes(payload)
        sent = list(frames(view, frame_bytes=16384))
    assert max(map(len, sent)) <= 16384
    mirror = Mirror()
    for frame in sent:
        mirror.apply(frame)
    offset, size = struct.unpack_from("<QI", mirror.memory, 4096 + 5 * 16)
    at = mirror.map.heap_start + offset % mirror.map.heap_bytes
    assert mirror.memory[at : at + size] == payloads[5]


def test_without_credit_records_are_released_when_the_next_frame_is_requested(
    ring: strand.Ring,
) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        writer.write_record_batch([record(n) for n in range(3)])
        parts = frames(view)
        assert next(parts)[0] == 1
        assert next(parts)[0] == 2
        assert view.acknowledged_count == 0
        writer.finalize()
        assert next(parts)[0] == 3
        assert view.acknowledged_count == 3


def test_with_credit_no_more_is_sent_than_the_receiver_has_room_for(ring: strand.Ring) -> None:
    with ring.consumer() as view, producing(ring, 100):
        bridge = Bridge(view, credit=True)
        mirror = Mirror()
        acknowledged = 0
        for frame in bridge:
            mirror.apply(frame)
            assert mirror.records - acknowledged <= 16
            assert view.acknowledged_count == acknowledged
            if mirror.records - acknowledged > 8:
                acknowledged = mirror.records - 3
                bridge.receive(struct.pack("<B7xQ", 16, acknowledged))
    assert mirror.end == (2, 100, "")


def test_a_transfer_that_starts_later_leaves_out_unneeded_records(ring: strand.Ring) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        for start in range(0, 40, 4):
            writer.write_record_batch([record(n) for n in range(start, start + 4)])
            view.acknowledge_read(start + 3)
        writer.finalize()
        mirror, rows = mirrored(frames(view))
    assert rows == [record(39)]
    assert (mirror.first, mirror.end) == (39, (2, 40, ""))


def test_an_aborted_stream_says_why(ring: strand.Ring) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        writer.write(record(1))
        writer.abort("the source is gone")
        mirror, rows = mirrored(frames(view))
    assert rows == [record(1)]
    assert mirror.end == (3, 1, "the source is gone")


def test_the_receiver_may_abort_the_stream(ring: strand.Ring) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        bridge = Bridge(view, credit=True)
        bridge.receive(struct.pack("<B7xQ", 17, 0))
        with pytest.raises(strand.StrandAbortError):
            writer.write(record(1))
        mirror, _ = mirrored(bridge)
    assert mirror.end is not None
    assert mirror.end[0] == 3


@pytest.mark.parametrize(
    "message",
    [b"", b"x" * 15, "text", struct.pack("<B7xQ", 3, 0), struct.pack("<B7xQ", 16, 1), None],
    ids=["empty", "short", "text", "kind", "beyond", "nothing"],
)
def test_a_receiver_that_says_something_else_is_refused(ring: strand.Ring, message: object) -> None:
    with ring.consumer() as view, pytest.raises(Corrupt):
        Bridge(view, credit=True).receive(message)


def test_frame_lengths_have_bounds(ring: strand.Ring) -> None:
    with ring.consumer() as view:
        for wrong in (16383, (1 << 20) + 1):
            with pytest.raises(UsageError):
                Bridge(view, frame_bytes=wrong)


def test_a_body_has_each_frames_length_before_it(ring: strand.Ring) -> None:
    assert list(length_prefixed([b"abc", b""])) == [b"\3\0\0\0abc", b"\0\0\0\0"]


def test_a_connection_carries_frames_down_and_acknowledgements_up(ring: strand.Ring) -> None:
    mirror = Mirror()
    messages: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def send(frame: bytes) -> None:
        mirror.apply(frame)
        await messages.put(None if mirror.end else struct.pack("<B7xQ", 16, mirror.records))

    async def credit_frames() -> AsyncIterator[bytes]:
        while (message := await messages.get()) is not None:
            yield message

    with ring.consumer() as view, producing(ring, 300):
        asyncio.run(Bridge(view, credit=True).serve(send, credit_frames()))
        assert view.acknowledged_count == 300
    assert mirror.end == (2, 300, "")


def test_a_connection_that_is_lost_stops_the_bridge_and_leaves_the_ring(ring: strand.Ring) -> None:
    sent: list[bytes] = []

    arrived = asyncio.Event()

    async def send(frame: bytes) -> None:
        sent.append(frame)
        arrived.set()

    async def lost() -> AsyncIterator[bytes]:
        await arrived.wait()
        for message in list[bytes]():
            yield message

    with ring.consumer() as view, ring.producer() as writer:
        asyncio.run(Bridge(view, credit=True).serve(send, lost()))
        writer.write(record(1))
        assert view.tuples(0, 1)[0][0] == 1
    assert [frame[0] for frame in sent] == [1]
