"""How a stream starts, waits, ends and is aborted."""

import signal
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

import strand
from sennit_core.errors import Closed, DeadlineExceeded, UsageError
from strand.layout import JOIN_POSITION_AT, PRODUCER_AT
from strand.role import Role


def test_leaving_the_with_ends_the_stream(ring: strand.Ring) -> None:
    with ring.producer() as writer:
        writer.write_bytes(b"one")
        assert ring.status == "streaming"
    with ring.consumer() as view:
        assert [bytes(data) for data in view.payloads()] == [b"one"]
        assert view.status == "eos"
        assert view.wait_for_commit(1) == 1


def fail_after_one(writer: Any) -> None:
    writer.write_bytes(b"one")
    raise ZeroDivisionError("bad luck")


def test_an_exception_aborts_the_stream_after_the_written_records(
    ring: strand.Ring, peer: Any
) -> None:
    with pytest.raises(ZeroDivisionError), ring.producer() as writer:
        fail_after_one(writer)
    received: list[bytes] = []
    with ring.consumer() as view, pytest.raises(strand.StrandAbortError, match="bad luck"):
        peer.collect(view, received)
    assert received == [b"one"]


def test_a_long_abort_message_is_cut_at_a_character(ring: strand.Ring) -> None:
    ring.producer().abort("é" * 400)
    with ring.consumer() as view, pytest.raises(strand.StrandAbortError) as aborted:
        view.wait_for_commit(0)
    assert aborted.value.reason == "é" * 158


def test_closing_a_ring_aborts_unfinalized_streams(ring: strand.Ring) -> None:
    with strand.attach_ring(ring.fileno()) as other:
        other.producer()
    with ring.consumer() as view, pytest.raises(strand.StrandAbortError, match="before the end"):
        view.wait_for_commit(0)


def test_an_abort_by_the_consumer_reaches_the_next_write(ring: strand.Ring) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        writer.write_bytes(b"one")
        view.signal_abort()
        with pytest.raises(strand.StrandAbortError):
            writer.write_bytes(b"two")
        assert view.wait_for_commit(0) == 1
        with pytest.raises(strand.StrandAbortError):
            view.wait_for_commit(1)


def test_no_wait_exceeds_its_timeout(ring: strand.Ring) -> None:
    with ring.producer(), ring.consumer() as view:
        assert view.wait_for_commit(0, timeout_seconds=0) == 0
        assert view.wait_for_commit(0, timeout_seconds=0.02) == 0
        with pytest.raises(DeadlineExceeded):
            next(view.payloads(timeout_seconds=0.02))


def test_a_signal_is_answered_while_waiting(ring: strand.Ring) -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise InterruptedError("alarm")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ring.producer(), ring.consumer() as view:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(InterruptedError):
                view.wait_for_commit(0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_producer_does_not_wait_for_a_consumer_that_closed_its_view(ring: strand.Ring) -> None:
    with ring.producer() as writer:
        ring.consumer().close()
        for _ in range(8):
            writer.write_bytes(b"stored for a next consumer.")
        with pytest.raises(strand.ConsumerDied) as gone:
            writer.write_bytes(b"one too many")
    assert gone.value.reason == "closed its view"


def test_a_consumer_that_joins_later_starts_at_its_position(ring: strand.Ring) -> None:
    with ring.producer() as writer:
        for text in (b"1", b"2", b"3"):
            writer.write_bytes(text)
        with ring.consumer() as view:
            assert bytes(next(view.payloads())) == b"1"
            view.acknowledge_read(1)
        with ring.consumer() as view:
            assert view.acknowledged_count == 1
        with ring.consumer(start="next") as view:
            writer.write_bytes(b"4")
            assert bytes(next(view.payloads())) == b"4"
    with pytest.raises(UsageError):
        ring.consumer(start=cast("Any", "newest"))


def test_a_stream_has_one_producer_in_its_life(ring: strand.Ring) -> None:
    with ring.producer(), pytest.raises(strand.RoleTaken):
        ring.producer()
    with pytest.raises(Closed):
        ring.producer()


def test_use_after_close_raises_closed(ring: strand.Ring) -> None:
    writer, view = ring.producer(), ring.consumer()
    writer.finalize()
    view.close()
    view.close()
    for act in (lambda: writer.write_bytes(b""), writer.finalize, lambda: view.committed_count):
        with pytest.raises(Closed):
            act()
    ring.close()
    for refuse in (ring.fileno, ring.producer, ring.signal_abort):
        with pytest.raises(Closed):
            refuse()


def test_a_ring_of_blocks_and_one_of_rows_are_not_mixed_up(ring: strand.Ring) -> None:
    with strand.open_ring(strand.build_schema([("n", "u8")]), 2, 128) as typed:
        with pytest.raises(UsageError), typed.producer() as writer:
            writer.write_bytes(b"no")
        with pytest.raises(UsageError), typed.consumer() as view:
            next(view.payloads())


def preset(ring: strand.Ring, records: int, heap: int = 0) -> None:
    """Set the counters of a fresh ring as if `records` had gone through it."""
    struct.pack_into("<4Q", ring.memory, PRODUCER_AT, records, records, heap, heap)
    struct.pack_into("<Q", ring.memory, JOIN_POSITION_AT, records)


def test_a_v5_ring_stops_before_its_counters_overflow() -> None:
    schema = strand.build_schema([("n", "u8")])
    last = 2**31 - 1
    with strand.open_ring(schema, 2, 128, version=5) as ring:
        preset(ring, last - 2)
        with ring.consumer() as view, ring.producer() as writer:
            assert view.acknowledged_count == last - 2
            assert writer.write_record_batch([(1,), (2,)]) == 2
            view.acknowledge_read(last)
            with pytest.raises(strand.RingExhausted):
                writer.write((3,))
            assert view.committed_count == last


@pytest.mark.parametrize("start", [2**31 - 2, 2**32 - 2, 2**63])
def test_a_v6_ring_continues_beyond_32_bits(ring: strand.Ring, peer: Any, start: int) -> None:
    preset(ring, start, heap=2**32 - 4096)
    received: list[bytes] = []
    with ring.consumer() as view:
        reader = threading.Thread(target=peer.collect, args=(view, received))
        reader.start()
        with ring.producer() as writer:
            peer.write_all(writer, 200)
        reader.join()
        assert view.committed_count == start + 200
    assert received == [peer.payload(index) for index in range(200)]


def test_records_flow_with_naps_that_never_end(
    ring: strand.Ring, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (strand.consumer, strand.producer):
        monkeypatch.setattr(module, "NAP_NANOSECONDS", 10**12)
    monkeypatch.setattr(Role, "spin_nanoseconds", 0)
    received: list[bytes] = []
    with ring.consumer() as view:
        reader = threading.Thread(target=peer.collect, args=(view, received))
        reader.start()
        with ring.producer() as writer:
            peer.write_all(writer, 3000)
        reader.join()
    assert received == [peer.payload(index) for index in range(3000)]


# ---- claims that cannot be met ------------------------------------------------------------------


class Stalled(Exception):
    """The writer would have waited for so many acknowledged records."""


def stall(threshold: int) -> None:
    raise Stalled(threshold)


def test_an_abort_ends_a_wait_for_heap_room(ring: strand.Ring) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        writer.write_bytes(bytes(2048))
        writer.write_bytes(bytes(2000))
        writer.claim_slot()
        view.signal_abort()
        with pytest.raises(strand.StrandAbortError):
            writer.claim_heap_bytes(2048)


@pytest.mark.parametrize("count", [0, 6, 9, 2**64 - 3])
def test_slots_that_could_never_be_released_are_refused(ring: strand.Ring, count: int) -> None:
    with ring.consumer(), ring.producer() as writer:
        writer.claim_slots(3)
        with pytest.raises(UsageError, match="1 to 8 slots"):
            writer.claim_slots(count)
        writer.claim_slots(5)
        with pytest.raises(UsageError, match="not 9"):
            writer.claim_slot()


def test_a_payload_claimed_before_its_slot_overwrites_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with strand.open_ring(strand.BLOCKS, 2, 4096) as ring:
        view, writer = ring.consumer(), ring.producer()
        writer.write_bytes(b"0")
        view.acknowledge_read(1)
        writer.write_bytes(b"1" * 1500)
        writer.write_bytes(b"2" * 1500)
        monkeypatch.setattr(writer, "_wait_for_room", stall)
        with pytest.raises(Stalled, match="2"):
            writer.claim_heap_bytes(2000)
        view.acknowledge_read(2)
        writer.claim_heap_bytes(500)
        assert bytes(view._read_block(2)) == b"2" * 1500


def test_heap_bytes_that_were_published_and_abandoned_are_reclaimed(
    ring: strand.Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        monkeypatch.setattr(writer, "_wait_for_room", stall)
        for _ in range(10):
            writer.claim_slot()
            writer.claim_heap_bytes(1000)
            writer.commit_heap()
            writer.abandon()
        writer.write_bytes(b"x" * 2048)
        assert bytes(view._read_block(0)) == b"x" * 2048


# ---- closing and resetting while a process waits -------------------------------------------------


def call_in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[Exception]]:
    """Start a call that will fail; its error comes into the list."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the caller looks at it
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


@pytest.mark.parametrize("when_unread", ["raise", "wait"])
def test_closing_a_writer_ends_its_wait_in_another_thread(
    ring: strand.Ring, peer: Any, when_unread: Any
) -> None:
    with ring.consumer() as view:
        writer = ring.producer(when_unread=when_unread)
        thread, errors = call_in_thread(lambda: peer.write_all(writer, 9))
        view.wait_for_commit(0, min_records=8)
        while not view._producer_waits():
            time.sleep(0.001)
        writer.close()
        thread.join(10)
        assert [type(error) for error in errors] == [Closed]


def test_closing_a_view_ends_its_wait_in_another_thread(ring: strand.Ring) -> None:
    with ring.producer():
        view = ring.consumer()
        thread, errors = call_in_thread(lambda: view.wait_for_commit(0))
        while ring.stats().sleeps == 0:
            time.sleep(0.001)
        view.close()
        thread.join(10)
        assert [type(error) for error in errors] == [Closed]


def test_registering_in_a_new_stream_does_not_hide_that_it_began(ring: strand.Ring) -> None:
    view, writer = ring.consumer(), ring.producer()
    writer.write_bytes(b"old")
    view.acknowledge_read(1)
    writer.finalize()
    writer.reset()
    for text in (b"new", b"newer"):
        writer.write_bytes(text)
    view.register_consumer()
    with pytest.raises(strand.StreamReset):
        view.wait_for_commit(1)
    assert view.wait_for_commit(0) == 2
    assert bytes(view._read_block(0)) == b"new"


def test_the_payloads_of_a_batch_of_claims_stay_until_the_last_is_read() -> None:
    with strand.open_ring(strand.BLOCKS, 4, 256) as ring:
        view, writer = ring.consumer(), ring.producer()
        (first, _), (second, _) = writer.claim_slots(2)
        for slot in (first, second):
            at, offset = writer.claim_heap_bytes(64)
            writer.memory[at : at + 64] = b"\x01" * 64
            struct.pack_into("<QI", writer.memory, slot, offset, 64)
        writer.commit_slots(0, 2)
        view.acknowledge_read(1)
        writer.write_bytes(b"\x02" * 128)
        vars(writer)["_wait_for_room"] = stall
        with pytest.raises(Stalled, match="2"):
            writer.write_bytes(b"\x03" * 128)
        assert bytes(view._read_block(1)) == b"\x01" * 64
