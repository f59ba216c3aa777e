"""How long after a signal its waiter runs again: asleep, and while it still spins."""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import strand
from strand_peers.fifo import open_fifo
from strand_peers.iceoryx import open_node, place
from strand_peers.measure import FORK, Clock, Figure, telling_failures
from strand_peers.tables import Row, Table, Target
from strand_peers.zeromq import address, pull_socket, push_socket

__all__ = ["of_a_sleeper", "of_a_spinner"]

_ASLEEP_SECONDS = 1e-3  # between two wakes: long after every spin has given up
_SPINNING_NANOSECONDS = 3_000  # the waiter began to wait about so long ago


class Doorbell(NamedTuple):
    """Two ends, entered in the process they belong to; each yields a function without arguments."""

    ringer: Callable[[], Any]
    waiter: Callable[[], Any]
    has_feeder: bool = False
    """Whether a thread of the ringer's does the ringing, and must have its turn."""


def of_a_sleeper(quick: bool) -> Table:
    """One wake each millisecond."""
    return _table(
        "wake asleep", "Wake of a sleeper, one each ms", 200 if quick else 1000, 10.0, asleep=True
    )


def of_a_spinner(quick: bool) -> Table:
    """The next wake three microseconds after the last was answered; CPU is the waiter's."""
    title = "Wake within the spin window, 3 µs after the wait began"
    return _table("wake spinning", title, 2000 if quick else 20_000, 2.0, asleep=False)


def _table(key: str, title: str, count: int, goal: float, *, asleep: bool) -> Table:
    doorbells = {
        "strand, write; wait_for_commit": _ring,
        "os.pipe": _os_pipe,
        "eventfd": _eventfd,
        "socketpair": _socketpair,
        "mp.Semaphore": _semaphore,
        "mp.Condition": _condition,
        "mp.Pipe": _pipe,
        "mp.Queue": _queue,
        "faster-fifo": _faster_fifo,
        "pyzmq ipc": _zeromq,
        "iceoryx2, event": _iceoryx,
    }
    rows = [
        Row(
            name,
            partial(_measure, doorbell, count, asleep=asleep),
            "ours" if name.startswith("strand") else "peer",
            Target(goal) if name.startswith("strand") else None,
        )
        for name, doorbell in doorbells.items()
    ]
    return Table(key, title + ", median", "µs", rows, 1e-6, "CPU µs/wake", less_is_better=True)


def _measure(doorbell: Callable[[], Doorbell], count: int, *, asleep: bool) -> Figure:
    ends = doorbell()
    shared = memoryview(mmap.mmap(-1, 4096)).cast("Q")  # [0] rung at, [1] answered
    used = FORK.RawValue("d", 0.0)
    gate = FORK.Barrier(2)

    def ring_often() -> None:
        with telling_failures(), ends.ringer() as ring:
            gate.wait()
            clock = Clock()
            for at in range(count):
                if asleep:
                    time.sleep(_ASLEEP_SECONDS)
                else:
                    while shared[1] != at:
                        if ends.has_feeder:
                            time.sleep(0)
                    begin = time.perf_counter_ns() + _SPINNING_NANOSECONDS
                    while time.perf_counter_ns() < begin:
                        pass
                shared[0] = time.perf_counter_ns()
                ring()
            used.value = clock.read()[2]

    child = FORK.Process(target=ring_often)
    child.start()
    taken = []
    with ends.waiter() as wait:
        gate.wait()
        clock = Clock()
        for at in range(count):
            wait()
            taken.append(time.perf_counter_ns() - shared[0])
            shared[1] = at + 1
        mine = clock.read()[2]
        child.join()
    taken.sort()
    p50, p99 = (taken[int(count * part)] * 1e-9 for part in (0.5, 0.99))
    theirs = used.value if asleep else 0.0  # the ringer of the spinning table spins by itself
    return Figure(p50, (mine + theirs) * 1e6, count * 1e-6, note=f"p99 {p99 * 1e6:.1f}")


# --- doorbells


def _ring() -> Doorbell:
    ring = strand.open_ring(strand.build_schema([("at", "u32")]), 64, 4096)

    @contextmanager
    def ringer() -> Iterator[Callable[[], object]]:
        with strand.attach_ring(ring.fileno()) as own, own.producer() as writer:
            yield partial(writer.write, (1,))

    @contextmanager
    def waiter() -> Iterator[Callable[[], object]]:
        with ring, ring.consumer() as view:
            seq = 0

            def wait() -> None:
                nonlocal seq
                seq = view.wait_for_commit(seq)
                view.acknowledge_read(seq)

            yield wait

    return Doorbell(ringer, waiter)


def _plain(ring: Callable[[], object], wait: Callable[[], object]) -> Doorbell:
    """Ends that need nothing opened or closed in their process."""

    @contextmanager
    def end(act: Callable[[], object]) -> Iterator[Callable[[], object]]:
        yield act

    return Doorbell(partial(end, ring), partial(end, wait))


def _os_pipe() -> Doorbell:
    reading, writing = os.pipe()
    return _plain(lambda: os.write(writing, b"x"), lambda: os.read(reading, 1))


def _eventfd() -> Doorbell:
    bell = os.eventfd(0, os.EFD_SEMAPHORE)
    return _plain(lambda: os.eventfd_write(bell, 1), lambda: os.eventfd_read(bell))


def _socketpair() -> Doorbell:
    ours, theirs = socket.socketpair()
    return _plain(lambda: theirs.send(b"x"), lambda: ours.recv(1))


def _semaphore() -> Doorbell:
    semaphore = FORK.Semaphore(0)
    return _plain(semaphore.release, semaphore.acquire)


def _condition() -> Doorbell:
    condition = FORK.Condition()
    rung = FORK.RawValue("Q", 0)
    seen = 0

    def ring() -> None:
        with condition:
            rung.value += 1
            condition.notify()

    def wait() -> None:
        nonlocal seen
        with condition:
            condition.wait_for(lambda: rung.value > seen)
            seen += 1

    return _plain(ring, wait)


def _pipe() -> Doorbell:
    receiving, sending = FORK.Pipe(duplex=False)
    return _plain(partial(sending.send, 1), receiving.recv)


def _queue() -> Doorbell:
    queue: Any = FORK.Queue()
    return _plain(partial(queue.put, 1), queue.get)._replace(has_feeder=True)


def _faster_fifo() -> Doorbell:
    queue = open_fifo(100_000)
    return _plain(partial(queue.put, 1), partial(queue.get, timeout=60))


def _zeromq() -> Doorbell:
    import zmq  # noqa: F401 - missing is told before the fork

    where = address()

    @contextmanager
    def ringer() -> Iterator[Callable[[], object]]:
        with push_socket(where, 1000) as opened:
            yield partial(opened.send, b"x")

    @contextmanager
    def waiter() -> Iterator[Callable[[], object]]:
        with pull_socket(where, 1000) as opened:
            yield opened.recv

    return Doorbell(ringer, waiter)


def _iceoryx() -> Doorbell:
    where = place()

    @contextmanager
    def ringer() -> Iterator[Callable[[], object]]:
        node, name = open_node(where)
        service = node.service_builder(name).event().open_or_create()
        notifier = service.notifier_builder().create()
        yield notifier.notify
        notifier.delete()

    @contextmanager
    def waiter() -> Iterator[Callable[[], object]]:
        node, name = open_node(where)
        service = node.service_builder(name).event().open_or_create()
        listener = service.listener_builder().create()

        def wait() -> None:
            while not listener.blocking_wait():
                pass

        yield wait
        listener.delete()

    return Doorbell(ringer, waiter)
