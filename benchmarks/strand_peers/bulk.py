"""Large arrays: how near a transport comes to one memcpy inside one process."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

import strand
from strand_peers.arrow import socket_stream
from strand_peers.fifo import fifo
from strand_peers.iceoryx import loans
from strand_peers.jobs import ArrayJob, FillJob, touch
from strand_peers.measure import FORK, Clock, Figure, Receive, Send, Transport
from strand_peers.standard import pipe, queue
from strand_peers.tables import Row, Table, Target
from strand_peers.tables import transport_row as row
from strand_peers.zeromq import sockets

__all__ = ["arrays"]

_LIMIT = "np.copyto in one process"


def arrays(mebibytes: int, quick: bool) -> Table:
    """Arrays of float64; the receiver reads one value of each page."""
    count = max(6, (512 if quick else 4096) // mebibytes)
    job = partial(ArrayJob, count, mebibytes)
    filled = partial(FillJob, count, mebibytes)
    slow = partial(ArrayJob, max(6, count // 8), mebibytes)
    copied = Target(ratio=0.55, to=_LIMIT)
    in_place = Target(ratio=0.75 if mebibytes == 1 else 0.85, to=_LIMIT)
    size = mebibytes << 20
    return Table(
        f"bulk {mebibytes} MiB",
        f"Arrays of {mebibytes} MiB; the receiver reads a value of each page",
        "GB/s",
        (
            Row(_LIMIT, lambda: _copy_here(job()), "limit"),
            row("strand, write_bytes; payloads", partial(_ring, size, _write), job, copied),
            row(
                "strand, filled in place; payloads",
                partial(_ring, size, partial(_fill, size)),
                filled,
                in_place,
            ),
            row("mp.Queue", partial(queue, _touch_each, 2), slow),
            row("mp.Pipe, into one array", partial(_pipe, mebibytes), slow),
            row("faster-fifo", partial(fifo, _touch_each, capacity_bytes=4 * size + 4096), slow),
            row("pyzmq ipc, no copy", partial(sockets, _touch_each, _put, _get, 2), slow),
            row("Arrow IPC over a socket pair", _arrow, slow),
            row("iceoryx2, copied into a loan", partial(_loans, size, _copy_to), job),
            row(
                "iceoryx2, filled in place", partial(_loans, size, partial(_fill_at, size)), filled
            ),
            row("shared memory, two semaphores", partial(_semaphores, size), job),
        ),
        scale=1e9,
        cpu_unit="CPU s/GB",
    )


def _copy_here(job: ArrayJob) -> Figure:
    """What no transport that copies once can pass: the copy alone, in one process."""
    target = np.zeros_like(job.array)
    for _ in range(2):
        np.copyto(target, job.array)
    clock = Clock()
    total = 0.0
    for _ in range(job.units):
        np.copyto(target, job.array)
        total += touch(target)
    began, ended, used = clock.read()
    assert total == job.checksum
    work = job.units * job.weight
    return Figure(work / (ended - began), used, work)


# --- strand


def _ring(size: int, write: Callable[[Any, Any], None]) -> Transport:
    ring = strand.open_ring(strand.BLOCKS, 16, max(2 * size, 4 << 20))

    @contextmanager
    def sender() -> Iterator[Send]:
        with strand.attach_ring(ring.fileno()) as own, own.producer() as writer:

            def send(arrays: Sequence[Any]) -> None:
                for array in arrays:
                    write(writer, array)

            yield send

    @contextmanager
    def receiver() -> Iterator[Receive]:
        with ring, ring.consumer() as view:
            payloads: Any = view.payloads()
            yield partial(_touch_each, lambda: np.frombuffer(next(payloads)))
            payloads.close()

    return Transport(sender, receiver)


def _write(writer: Any, array: Any) -> None:
    writer.write_bytes(array)


def _fill(size: int, writer: Any, value: float) -> None:
    """Make the values where they will be read, as a decoder or a generator would."""
    with writer.claim_payload(size) as target:
        np.frombuffer(target).fill(value)


# --- peers


def _touch_each(get: Callable[[], Any], count: int) -> float:
    total = 0.0
    for _ in range(count):
        total += touch(get())
    return total


def _pipe(mebibytes: int) -> Transport:
    into = np.zeros(mebibytes << 17)

    def put(connection: Any, array: Any) -> None:
        connection.send_bytes(array.view(np.uint8))

    def get(connection: Any) -> Any:
        connection.recv_bytes_into(into.view(np.uint8))
        return into

    return pipe(_touch_each, put, get)


def _put(socket: Any, array: Any) -> None:
    socket.send(array.view(np.uint8), copy=False)


def _get(socket: Any) -> Any:
    return np.frombuffer(socket.recv(copy=False))


def _arrow() -> Transport:
    def eat(get: Callable[[], pa.RecordBatch], count: int) -> float:
        return _touch_each(lambda: get().column(0).to_numpy(), count)

    schema = pa.schema([("values", "float64")])
    return socket_stream(schema, eat, lambda array: pa.record_batch({"values": array}))


def _loans(size: int, fill: Callable[[int, Any], object]) -> Transport:
    def take(sample: Any) -> float:
        return touch(_array_at(sample.payload_ptr, size))

    def eat(get: Callable[[], float], count: int) -> float:
        return sum(get() for _ in range(count))

    return loans(eat, lambda _: size, fill, take, size)


def _copy_to(address: int, array: Any) -> None:
    ctypes.memmove(address, array.ctypes.data, array.nbytes)


def _fill_at(size: int, address: int, value: float) -> None:
    _array_at(address, size).fill(value)


def _array_at(address: int, size: int) -> Any:
    window: Any = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(window)


def _semaphores(size: int) -> Transport:
    """The least there is: one copy into shared memory of two places, and nothing else."""
    memory = mmap.mmap(-1, 2 * size)
    places = np.frombuffer(memory).reshape(2, -1)
    places[:] = 0
    free, full = FORK.Semaphore(2), FORK.Semaphore(0)

    @contextmanager
    def sender() -> Iterator[Send]:
        turn = 0

        def send(arrays: Sequence[Any]) -> None:
            nonlocal turn
            for array in arrays:
                free.acquire()
                np.copyto(places[turn & 1], array)
                full.release()
                turn += 1

        yield send

    @contextmanager
    def receiver() -> Iterator[Receive]:
        turn = 0

        def receive(count: int) -> float:
            nonlocal turn
            total = 0.0
            for _ in range(count):
                full.acquire()
                total += touch(places[turn & 1])
                free.release()
                turn += 1
            return total

        yield receive

    return Transport(sender, receiver)
