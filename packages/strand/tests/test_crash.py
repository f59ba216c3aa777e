"""Processes killed at named points: no half-written record is seen, no process waits for ever."""

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

import strand

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("point", ["claimed", "filled", "published"])
def test_records_of_a_killed_producer_are_delivered_then_its_death_is_reported(
    ring: strand.Ring, spawn: Any, peer: Any, point: str
) -> None:
    producer = spawn("produce", ring, 6, point)
    received: list[bytes] = []
    with ring.consumer() as view, pytest.raises(strand.ProducerDied) as died:
        peer.collect(view, received)
    assert received == [peer.payload(index) for index in range(6)]
    assert died.value.pid == producer.pid


def test_a_killed_producer_leaves_an_exact_prefix(ring: strand.Ring, spawn: Any, peer: Any) -> None:
    producer = spawn("produce", ring, 1_000_000)
    with ring.consumer() as view:
        payloads = view.payloads()
        received = [bytes(next(payloads)) for _ in range(500)]
        producer.kill()
        del payloads
        view.acknowledge_read(500)
        with pytest.raises(strand.ProducerDied):
            peer.collect(view, received)
    assert len(received) >= 500
    assert received == [peer.payload(index) for index in range(len(received))]


def test_a_producer_killed_while_it_waits_for_room_is_noticed(
    ring: strand.Ring, spawn: Any
) -> None:
    producer = spawn("produce", ring, 9)
    with ring.consumer() as view:
        assert view.wait_for_commit(0, min_records=8) == 8
        producer.kill()
        producer.wait()
        with pytest.raises(strand.ProducerDied):
            view.wait_for_commit(8)


@pytest.mark.parametrize(("point", "count"), [("attached", 0), ("reading", 1), ("reading", 3)])
def test_the_producer_learns_that_its_consumer_was_killed(
    ring: strand.Ring, spawn: Any, peer: Any, point: str, count: int
) -> None:
    consumer = spawn("consume", ring, count, point)
    with ring.producer() as writer, pytest.raises(strand.ConsumerDied) as died:
        peer.write_all(writer, 1000)
    assert died.value.pid == consumer.pid
    assert died.value.reason == "died"


def test_a_stopped_producer_is_not_a_dead_one(ring: strand.Ring, spawn: Any) -> None:
    producer = spawn("produce", ring, 100)
    assert producer.stdout.readline() == "attached\n"
    with ring.consumer() as view:
        view.wait_for_commit(0, min_records=8)
        os.kill(producer.pid, signal.SIGSTOP)
        view.acknowledge_read(8)
        seen = view.wait_for_commit(8, timeout_seconds=0.6, min_records=8)
        os.kill(producer.pid, signal.SIGCONT)
        assert seen <= 16
        assert sum(1 for _ in view.payloads()) == 92


def test_a_stopped_consumer_is_not_a_dead_one(ring: strand.Ring, spawn: Any, peer: Any) -> None:
    consumer = spawn("consume", ring)
    assert consumer.stdout.readline() == "attached\n"
    os.kill(consumer.pid, signal.SIGSTOP)
    with ring.producer() as writer:
        peer.write_all(writer, 8)
        assert not writer._wait(1, 0, 400_000_000)
        writer._wait_for_room(1)  # a nap and a look at the consumer: it lives
        os.kill(consumer.pid, signal.SIGCONT)
    assert consumer.wait(30) == 0


def test_a_stream_is_not_resumed_from_a_dead_producer(ring: strand.Ring, spawn: Any) -> None:
    producer = spawn("produce", ring, 2, "published")
    producer.wait()
    with pytest.raises(strand.ProducerDied):
        ring.producer()


def test_cleanup_removes_the_rings_of_killed_processes_alone() -> None:
    program = (
        "import os, signal, strand\n"
        "ring = strand.open_ring(strand.BLOCKS, 8, 4096, name='test-orphan')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    with strand.open_ring(strand.BLOCKS, 8, 4096, name="test-orphan-not"):
        assert strand.cleanup("test-orphan", dry_run=True) == ["/dev/shm/strand-test-orphan"]
        assert strand.cleanup("test-orphan") == ["/dev/shm/strand-test-orphan"]
        assert strand.cleanup("test-orphan") == []


def test_cleanup_keeps_a_ring_whose_creator_is_gone_while_it_has_a_reader() -> None:
    program = (
        "import os, signal, sys, strand\n"
        "ring = strand.open_ring(strand.BLOCKS, 8, 4096, name='test-inherited')\n"
        "print('made', flush=True)\n"
        "sys.stdin.read()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"made\n"
        ring = strand.attach_ring(name="test-inherited")
        view = ring.consumer()
    assert strand.cleanup("test-inherited") == []
    view.close()
    assert strand.cleanup("test-inherited") == ["/dev/shm/strand-test-inherited"]
    ring.close()
