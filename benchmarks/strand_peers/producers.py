"""Eight producers and one consumer: what multiprocessing.Queue is mostly used for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection
from typing import Any

import strand
from strand_peers.fifo import fifo
from strand_peers.jobs import RowJob, add_each, add_rows
from strand_peers.measure import FORK, Clock, Figure, Receive, Send, Transport, telling_failures
from strand_peers.records import SCHEMA, send_packed, take_packed
from strand_peers.standard import queue
from strand_peers.tables import Row, Table, Target
from strand_peers.zeromq import sockets

__all__ = ["eight_to_one"]

PRODUCERS = 8


def eight_to_one(quick: bool) -> Table:
    """Each producer sends its records one by one; the consumer sums all of them.

    pyzmq queues without bound here: with a high-water mark its senders stalled for good.
    """
    few, many = (4_000, 20_000) if quick else (15_000, 150_000)
    target = Target(ratio=10.0, to="mp.Queue")
    return Table(
        "fan-in",
        f"{PRODUCERS} producers to one consumer, one record a message",
        "M rec/s",
        (
            Row("strand, fan_in; write", partial(_measure, _fan_in, many), "ours", target),
            Row("mp.Queue", partial(_measure, partial(queue, add_each), few)),
            Row("mp.Pipe, one each", partial(_measure, _pipes, few)),
            Row(
                "faster-fifo put, get_many",
                partial(_measure, partial(fifo, add_rows, get_many=1000), few),
            ),
            Row(
                "pyzmq ipc, struct",
                partial(_measure, partial(sockets, add_each, send_packed, take_packed, 0), few),
            ),
        ),
        cpu_unit="CPU s/M",
    )


def _measure(transport: Callable[[], Transport], records: int) -> Figure:
    """As `run_transport`, with eight senders."""
    ends = transport()
    gate = FORK.Barrier(PRODUCERS + 1)
    used = FORK.RawArray("d", PRODUCERS)
    job = RowJob(records)

    def produce(index: int) -> None:
        with telling_failures():
            messages = job.messages()
            gc.collect()
            gc.freeze()
            with ends.sender() as send:
                send(messages[:100])
                gate.wait()
                clock = Clock()
                send(messages)
            used[index] = clock.read()[2]

    children = [FORK.Process(target=produce, args=(index,)) for index in range(PRODUCERS)]
    for child in children:
        child.start()
    with ends.receiver() as receive:
        receive(100 * PRODUCERS)
        gate.wait()
        clock = Clock()
        total = receive(records * PRODUCERS)
        began, ended, mine = clock.read()
        for child in children:
            child.join()
    if total != job.checksum * PRODUCERS:
        raise ValueError(f"the checksum is {total}, not {job.checksum * PRODUCERS}")
    work = records * PRODUCERS
    return Figure(work / (ended - began), mine + sum(used), work)


def _fan_in() -> Transport:
    fan = strand.fan_in(PRODUCERS, SCHEMA, records=4096, heap="256KiB")

    @contextmanager
    def sender() -> Iterator[Send]:
        with fan.producer() as writer:

            def send(rows: Sequence[Any]) -> None:
                write = writer.write
                for row in rows:
                    write(row)

            yield send

    @contextmanager
    def receiver() -> Iterator[Receive]:
        with fan, fan.consumer() as view:
            rows = iter(view)
            yield lambda records: add_each(rows.__next__, records)

    return Transport(sender, receiver)


def _pipes() -> Transport:
    """A pipe for each producer, so that none waits for a lock; the consumer polls them all."""
    ends = [FORK.Pipe(duplex=False) for _ in range(PRODUCERS)]
    turn = FORK.Value("i", 0)

    @contextmanager
    def sender() -> Iterator[Send]:
        with turn.get_lock():
            mine = ends[turn.value][1]
            turn.value += 1

        def send(rows: Sequence[Any]) -> None:
            for row in rows:
                mine.send(row)

        yield send

    @contextmanager
    def receiver() -> Iterator[Receive]:
        waited = [receiving for receiving, _ in ends]

        def receive(records: int) -> float:
            total = 0
            while records > 0:
                for ready in connection.wait(waited):
                    row = ready.recv()
                    total += row[0] + len(row[3])
                    records -= 1
            return total

        yield receive

    return Transport(sender, receiver)
