"""A producer and a consumer that are processes of their own."""

import struct
from typing import Any

import pytest

import strand
from strand.layout import SLEEP_AT


def test_payloads_arrive_whole_and_in_order_while_the_ring_wraps(
    ring: strand.Ring, spawn: Any, peer: Any
) -> None:
    spawn("produce", ring, 5000)
    with ring.consumer() as view:
        received = [bytes(data) for data in view.payloads()]
    assert received == [peer.payload(index) for index in range(5000)]


def test_a_consumer_process_reads_records_of_this_process(
    ring: strand.Ring, spawn: Any, peer: Any
) -> None:
    consumer = spawn("consume", ring)
    with ring.producer() as writer:
        peer.write_all(writer, 1000)
    assert consumer.wait(30) == 0


@pytest.mark.parametrize("version", [5, 6])
def test_typed_rows_arrive(spawn: Any, peer: Any, version: Any) -> None:
    with (
        strand.open_ring(peer.ROWS, records=16, heap=256, version=version) as ring,
        ring.consumer() as view,
    ):
        spawn("produce-rows", ring, 500)
        cursor = view.allocate_cursor()
        rows: list[tuple[Any, ...]] = []
        while (committed := view.wait_for_commit(len(rows))) > len(rows):
            while len(rows) < committed:
                assert cursor.seek(len(rows))
                rows.append(cursor.to_tuple())
            view.acknowledge_read(committed)
    assert rows == [(index, f"row {index}") for index in range(500)]


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("copy", [True, False])
def test_arrow_batches_arrive(spawn: Any, copy: bool) -> None:
    with strand.open_ring(strand.BLOCKS, records=4, heap="64KiB") as ring:
        spawn("produce-arrow", ring, 50)
        with ring.consumer() as view:
            rows = [batch.to_pylist() for batch in view.batches(copy=copy)]
    expected = [[{"n": n, "s": "a"}, {"n": n + 1, "s": None}] for n in range(50)]
    assert rows == expected


def test_a_full_ring_stops_the_producer_until_a_record_is_released(
    ring: strand.Ring, spawn: Any
) -> None:
    spawn("produce", ring, 9)
    with ring.consumer() as view:
        assert view.wait_for_commit(0, min_records=8) == 8
        while struct.unpack_from("<Q", ring.memory, SLEEP_AT)[0] != 1:
            pass  # until the producer sleeps for the first acknowledgement
        assert view.committed_count == 8
        view.acknowledge_read(1)
        assert view.wait_for_commit(8) == 9


def test_the_producer_stops_when_the_consumer_aborts(ring: strand.Ring, spawn: Any) -> None:
    producer = spawn("produce", ring, 1000)
    with ring.consumer() as view:
        view.wait_for_commit(0, min_records=8)
        view.signal_abort()
        assert producer.wait(30) != 0
        assert view.status == "error"


def test_a_second_producer_is_refused_at_once(ring: strand.Ring, spawn: Any) -> None:
    producer = spawn("produce", ring, 100)
    assert producer.stdout.readline() == "attached\n"
    with pytest.raises(strand.RoleTaken) as refused:
        ring.producer()
    assert refused.value.pid == producer.pid


def test_a_ring_is_found_by_name(spawn: Any, peer: Any) -> None:
    with strand.open_ring(strand.BLOCKS, 8, 4096, name="test-by-name") as ring:
        spawn("produce", ring, 10)
        with strand.attach_ring(name="test-by-name") as other, other.consumer() as view:
            assert sum(1 for _ in view.payloads()) == 10
