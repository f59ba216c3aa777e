"""Waits in which each side waits for the other, with naps that never end."""

import threading
from collections.abc import Iterator

import pytest

import strand
from strand import role, view, writer

HEAP = 256


@pytest.fixture(autouse=True)
def endless_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (role, view, writer):
        monkeypatch.setattr(module, "NAP_NANOSECONDS", 10**15, raising=False)


@pytest.fixture
def ring() -> Iterator[strand.Ring]:
    """Eight slots, and a heap that two payloads fill."""
    with strand.open_ring(strand.BLOCKS, records=8, heap=HEAP) as made:
        yield made


def write_four(ring: strand.Ring) -> None:
    with ring.producer() as out:
        for _ in range(4):
            out.write_bytes(bytes(HEAP // 2))


def test_a_wait_for_many_records_returns_those_that_fit_the_heap(ring: strand.Ring) -> None:
    with ring.consumer() as reader:
        thread = threading.Thread(target=write_four, args=(ring,))
        thread.start()
        read, steps = 0, []
        while (committed := reader.wait_for_commit(read, min_records=4)) > read:
            steps.append(committed - read)
            read = committed
            reader.acknowledge_read(read)
        thread.join()
    assert (read, steps[0]) == (4, 2)


def test_a_consumer_that_holds_records_the_producer_needs_is_reported_at_once(
    ring: strand.Ring,
) -> None:
    with ring.consumer() as reader:
        thread = threading.Thread(target=write_four, args=(ring,))
        thread.start()
        assert reader.wait_for_commit(0, min_records=2) == 2
        with pytest.raises(strand.LeaseHeld):
            reader.wait_for_commit(2)
        reader.acknowledge_read(2)
        assert reader.wait_for_commit(2, min_records=2) == 4
        reader.acknowledge_read(4)
        thread.join()


def test_an_abandoned_wait_is_not_counted(
    ring: strand.Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, view = ring.producer(), ring.consumer()
    for _ in range(4):
        writer.write_bytes(b"x")

    def interrupt(threshold: int) -> None:
        writer._arm(threshold)
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_wait_for_room", interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer.write_bytes(b"y")
    assert view.wait_for_commit(4, timeout_seconds=0) == 4  # and no LeaseHeld
