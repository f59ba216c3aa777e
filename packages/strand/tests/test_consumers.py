"""Several consumers of one ring, a producer without consumers, and the debug mode."""

import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import strand
from sennit_core.errors import Conflict, UsageError
from strand import layout

RECORDS = 4


@pytest.fixture
def small() -> Iterator[strand.Ring]:
    with strand.open_ring(strand.BLOCKS, RECORDS, 4096) as ring:
        yield ring


def write(writer: Any, first: int, count: int) -> None:
    for index in range(first, first + count):
        writer.write_bytes(b"%d" % index)


def received(view: Any, stop: int) -> list[bytes]:
    """Read and release the records before record `stop`."""
    found = []
    for seq in range(view.acknowledged_count, stop):
        found.append(bytes(view._read_block(seq)))
        view.acknowledge_read(seq + 1)
    return found


def test_every_consumer_reads_every_record(small: strand.Ring) -> None:
    views = [small.consumer() for _ in range(8)]
    with small.producer() as writer:
        for start in range(0, 40, RECORDS):
            write(writer, start, RECORDS)
            expected = [b"%d" % index for index in range(start, start + RECORDS)]
            assert [received(view, start + RECORDS) for view in views] == [expected] * 8
    with pytest.raises(strand.RoleTaken, match="eight"):
        small.consumer()


def test_the_slowest_consumer_limits_the_producer(small: strand.Ring) -> None:
    fast, slow = small.consumer(), small.consumer()
    with small.producer() as writer:
        write(writer, 0, RECORDS)
        received(fast, RECORDS)
        assert not writer._wait(1, 0, 0)
        slow.close()
        write(writer, RECORDS, RECORDS)
        assert received(fast, 2 * RECORDS) == [b"4", b"5", b"6", b"7"]


def test_a_successor_continues_where_the_furthest_reader_stopped(small: strand.Ring) -> None:
    with small.producer() as writer:
        first, second = small.consumer(), small.consumer()
        write(writer, 0, RECORDS)
        received(first, 3)
        received(second, 1)
        first.close()
        second.close()
        assert small.consumer().acknowledged_count == 3


def test_a_token_counts_like_a_consumer_of_its_own(small: strand.Ring) -> None:
    view = small.consumer()
    with small.producer() as writer:
        write(writer, 0, 2)
        joined = view.register_consumer("next")
        write(writer, 2, 2)
        view.acknowledge_read(4)
        assert view.window_start == 2
        with pytest.raises(UsageError):
            view.acknowledge_read(1, joined)
        view.release_consumer(joined)
        assert view.window_start == 4
        with pytest.raises(UsageError, match="token"):
            view.release_consumer(joined)


def test_a_view_that_is_read_by_its_tokens_alone_holds_nothing_back(small: strand.Ring) -> None:
    view = small.consumer()
    tokens = [view.register_consumer() for _ in range(2)]
    with small.producer() as writer:
        for start in range(0, 30, RECORDS):
            write(writer, start, RECORDS)
            assert view.wait_for_commit(start) == start + RECORDS
            assert bytes(view._read_block(start)) == b"%d" % start
            for token in tokens:
                view.acknowledge_read(start + RECORDS, token)
            assert view.acknowledged_count == start + RECORDS


def test_releasing_the_slowest_token_lets_the_view_follow_the_others(small: strand.Ring) -> None:
    view = small.consumer()
    slow, fast = view.register_consumer(), view.register_consumer()
    with small.producer() as writer:
        write(writer, 0, RECORDS)
        view.acknowledge_read(RECORDS, fast)
        assert not writer._wait(1, 0, 0)
        view.release_consumer(slow)
        write(writer, RECORDS, RECORDS)
        view.release_consumer(fast)
        assert received(view, 2 * RECORDS) == [b"4", b"5", b"6", b"7"]


@pytest.mark.parametrize(
    "begin", [lambda view: view.acknowledge_read(1), lambda view: next(view.payloads())]
)
def test_a_view_that_acknowledged_or_iterates_reads_for_itself(
    small: strand.Ring, begin: Callable[[strand.StrandView], object]
) -> None:
    with small.producer() as writer, small.consumer() as view:
        write(writer, 0, RECORDS)
        token = view.register_consumer()
        begin(view)
        before = view.acknowledged_count
        view.acknowledge_read(RECORDS, token)
        assert view.acknowledged_count == before < RECORDS


def test_one_view_may_have_eight_tokens(small: strand.Ring) -> None:
    view = small.consumer()
    with small.producer() as writer:
        write(writer, 0, 2)
        tokens = [view.register_consumer() for _ in range(7)] + [view.register_consumer("next")]
        assert sorted(tokens) == list(range(8))
        assert view._reads[tokens[-1]] == 2
        with pytest.raises(strand.RoleTaken, match="eight"):
            view.register_consumer()
        with pytest.raises(UsageError, match="register_consumer"):
            view.acknowledge_read(1)


@pytest.mark.parametrize("own_reads", [True, False])
def test_a_wait_that_cannot_end_names_the_consumer_that_must_move(
    small: strand.Ring, *, own_reads: bool
) -> None:
    view = small.consumer()
    fast, slow = view.register_consumer(), view.register_consumer()
    hint = f"token {slow}, which is at record 0"
    with small.producer() as writer:
        write(writer, 0, RECORDS)
        view.acknowledge_read(RECORDS, fast)
        if own_reads:
            view.acknowledge_read(1)
            view.acknowledge_read(RECORDS, slow)
            hint = r"own consumer is at record 1.*release_consumer\(\)"
        assert not writer._wait(RECORDS, 0, 0)
        with pytest.raises(strand.LeaseHeld) as failure:
            view.wait_for_commit(RECORDS)
        assert failure.value.hint is not None
        assert re.search(hint, failure.value.hint)
        writer.abort()


# ---- no consumers --------------------------------------------------------------------------------


def test_a_ring_is_kept_for_its_first_consumer(small: strand.Ring) -> None:
    with small.producer() as writer:
        write(writer, 0, RECORDS)
        assert not writer._wait(1, 0, 0)
        writer._wait_for_room(1)  # no error: a consumer may still join
        assert received(small.consumer(), RECORDS) == [b"0", b"1", b"2", b"3"]


def test_a_producer_that_waits_continues_with_the_next_consumer(small: strand.Ring) -> None:
    with small.producer(when_unread="wait") as writer:
        small.consumer().close()
        write(writer, 0, RECORDS)
        writer._wait_for_room(1)
        view = small.consumer()
        received(view, 1)
        write(writer, RECORDS, 1)
        assert received(view, RECORDS + 1) == [b"1", b"2", b"3", b"4"]


def test_a_producer_that_discards_overwrites_unread_records(small: strand.Ring) -> None:
    with small.producer(when_unread="discard") as writer:
        write(writer, 0, 3 * RECORDS + 1)
        with small.consumer() as view:
            seen = received(view, 3 * RECORDS + 1)
            assert seen == [b"%d" % index for index in range(13 - len(seen), 13)]
            assert seen
            write(writer, 13, RECORDS)
            assert not writer._wait(14, 0, 0)  # a consumer reads: nothing is discarded
        write(writer, 17, 100)


def test_when_unread_is_one_of_three_policies(small: strand.Ring) -> None:
    word: Any = "ignore"
    with pytest.raises(UsageError, match="ignore"):
        small.producer(when_unread=word)
    small.producer().finalize()


# ---- resets --------------------------------------------------------------------------------------


def test_a_reset_does_not_wait_and_loses_nothing(small: strand.Ring) -> None:
    view, other = small.consumer(), small.consumer()
    writer = small.producer()
    write(writer, 0, 2)
    with pytest.raises(UsageError, match="finalize or abort"):
        writer.reset()
    writer.abort("enough")
    received(view, 2)
    with pytest.raises(Conflict, match="2 unacknowledged records"):
        writer.reset()
    other.close()
    writer.reset()
    assert small.status == "initializing"
    write(writer, 10, 2)
    writer.finalize()
    with pytest.raises(strand.StreamReset):
        view.wait_for_commit(2)
    assert received(view, 2) == [b"10", b"11"]
    assert small.consumer().acknowledged_count == 2


# ---- debug mode ------------------------------------------------------------------------------------


@pytest.fixture
def debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRAND_DEBUG", "1")


POISON = b"\xdd"


def test_debug_mode_overwrites_released_records(small: strand.Ring, debug: None) -> None:
    with small.producer() as writer, small.consumer() as view:
        write(writer, 10, 2)
        kept = memoryview(view._read_block(0))
        view.acknowledge_read(1)
        assert bytes(kept) == POISON * 2
        assert bytes(small.memory[layout.HEADER_BYTES :][:16]) == POISON * 16
        assert bytes(view._read_block(1)) == b"11"
        kept.release()


def test_debug_mode_overwrites_strings_and_arrays_too(debug: None) -> None:
    schema = strand.build_schema([("name", "utf8"), ("data", "bytes")])
    with (
        strand.open_ring(schema, 4, 128, version=5) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        writer.write(("name", b"data"))
        heap = memoryview(ring.memory)[ring.map.heap_start :]
        assert bytes(heap[:8]) == b"namedata"
        view.acknowledge_read(1)
        assert bytes(heap[:8]) == POISON * 8
        heap.release()


def test_debug_mode_keeps_records_that_another_consumer_reads(
    small: strand.Ring, debug: None
) -> None:
    with small.producer() as writer, small.consumer() as view, small.consumer() as other:
        write(writer, 10, 1)
        view.acknowledge_read(1)
        assert received(other, 1) == [b"10"]


def test_debug_mode_overwrites_nothing_of_a_new_stream(small: strand.Ring, debug: None) -> None:
    view, writer = small.consumer(), small.producer()
    write(writer, 0, 1)
    received(view, 1)
    writer.finalize()
    writer.reset()
    write(writer, 10, 3)
    with pytest.raises(UsageError):
        view.acknowledge_read(3)  # of a stream that it does not follow yet
    assert view.wait_for_commit(0) == 3
    assert received(view, 3) == [b"10", b"11", b"12"]


# ---- readers that know v5 alone --------------------------------------------------------------------


def test_a_plain_v5_reader_counts_and_is_checked_before_a_reset() -> None:
    schema = strand.build_schema([("n", "u8")])
    with strand.open_ring(schema, RECORDS, 128, version=5) as ring:
        writer = ring.producer(when_unread="wait")
        struct.pack_into("<I", ring.memory, 60, 0)  # it claims the second consumer slot
        writer.write_record_batch([(n,) for n in range(RECORDS)])
        assert not writer._wait(1, 0, 0)
        struct.pack_into("<I", ring.memory, 60, 2)
        writer.write_record_batch([(n,) for n in range(2)])
        writer.finalize()
        with pytest.raises(Conflict, match="read 2 of 6"):
            writer.reset()
        struct.pack_into("<I", ring.memory, 60, 6)
        writer.reset()
        writer.write_record_batch([(n,) for n in range(RECORDS)])
        assert not writer._wait(1, 0, 0)
        assert struct.unpack_from("<2I", ring.memory, 56) == (layout.VACANT, 0)
