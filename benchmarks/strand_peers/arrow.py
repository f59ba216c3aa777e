"""Arrow batches with strings from process to process, and an answer as an executor sends it."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pyarrow as pa

import strand
from strand_peers.jobs import TextJob
from strand_peers.measure import FORK, Receive, Send, Transport
from strand_peers.standard import Eat, pipe, queue
from strand_peers.tables import Table, Target
from strand_peers.tables import transport_row as row
from strand_peers.zeromq import sockets

__all__ = ["block_ring", "executor_path", "socket_stream", "string_batches"]

_EXECUTOR_RECORDS, _EXECUTOR_HEAP = 256, "2MiB"  # as an executor's result ring is opened
_PIECE_BYTES = 512 * 1024  # a quarter of that heap: the most an executor emits at once
_READ_BYTES = 1 << 20


def string_batches(rows: int, quick: bool) -> Table:
    """Whole Arrow batches; the peer to beat pickles them through a Pipe."""
    job = partial(TextJob, max(16, (1 << 20 if quick else 1 << 23) // rows), rows)
    heap = "4MiB" if rows <= 1000 else "16MiB"  # a handful of batches, so that their pages are warm
    schema = TextJob(1, 1).batch.schema
    target = Target(ratio=5.0, to="mp.Pipe, pickled")
    return Table(
        f"arrow {rows}",
        f"Arrow batches of {rows:,} rows with strings, nulls and times",
        "GB/s",
        (
            row(
                "strand, write_arrow; zero copy",
                partial(block_ring, copy=False, heap=heap),
                job,
                target,
            ),
            row("strand, write_arrow; copied out", partial(block_ring, copy=True, heap=heap), job),
            row("mp.Pipe, pickled", partial(pipe, _add_batches), job),
            row("mp.Pipe, IPC message", partial(_pipe_messages, schema), job),
            row("mp.Queue", partial(queue, _add_batches, 16), job),
            row("Arrow IPC over a socket pair", partial(socket_stream, schema, _add_batches), job),
            row("pyzmq ipc, IPC message", partial(_zeromq_messages, schema), job),
        ),
        scale=1e9,
        cpu_unit="CPU s/GB",
    )


def executor_path(quick: bool) -> Table:
    """An executor's answer: IPC messages of 16,384 rows, in pieces that its result ring takes."""
    job = partial(TextJob, 64 if quick else 512, 16384)
    sized = partial(block_ring, records=_EXECUTOR_RECORDS, heap=_EXECUTOR_HEAP)
    return Table(
        "executor",
        "An executor's Arrow answer, 16,384 rows a batch, through 2 MiB of ring",
        "GB/s",
        (
            row("strand, pieces as executors emit", _ring_of_pieces, job, Target(ratio=1.0)),
            row("strand, write_arrow; zero copy", partial(sized, copy=False), job),
            row("strand, write_arrow; copied out", partial(sized, copy=True), job),
            row("socket pair, the same pieces", _socket_of_pieces, job),
            row("mp.Pipe, the same pieces", _pipe_of_pieces, job),
        ),
        scale=1e9,
        cpu_unit="CPU s/GB",
    )


def socket_stream(
    schema: pa.Schema, eat: Eat, encode: Callable[[Any], pa.RecordBatch] | None = None
) -> Transport:
    """An Arrow IPC stream over a socket pair; `encode` turns a message into a batch."""
    ours, theirs = socket.socketpair()

    @contextmanager
    def sender() -> Iterator[Send]:
        ours.close()
        with (
            suppress(BrokenPipeError),  # at the end, when the receiver has all it asked for
            theirs,
            theirs.makefile("wb", buffering=1 << 20) as file,
            pa.ipc.new_stream(file, schema) as stream,
        ):

            def send(messages: Sequence[Any]) -> None:
                for message in messages:
                    stream.write_batch(encode(message) if encode else message)
                file.flush()

            yield send

    @contextmanager
    def receiver() -> Iterator[Receive]:
        theirs.close()
        with ours, ours.makefile("rb", buffering=1 << 20) as file:
            opened: list[Any] = []

            def receive(units: int) -> float:
                if not opened:
                    opened.append(pa.ipc.open_stream(file))
                return eat(opened[0].read_next_batch, units)

            yield receive

    return Transport(sender, receiver)


def _add_batches(get: Callable[[], pa.RecordBatch], rows: int) -> float:
    """Sum the first column of batches, whole or in slices, until `rows` rows came."""
    total = 0
    while rows > 0:
        column = get().column(0)
        rows -= len(column)
        total += int(column.to_numpy().sum())
        del column  # a batch that looks into the ring goes back before the next is asked for
    return total


def block_ring(
    *,
    copy: bool,
    records: int = 256,
    heap: str = "16MiB",
    encode: Callable[[Any], pa.RecordBatch] | None = None,
    eat: Eat | None = None,
) -> Transport:
    """Arrow batches through a block ring, looked at in place or copied out.

    `encode` turns a message into a batch; `eat` takes batches in (by default it sums a column).
    """
    ring = strand.open_ring(strand.BLOCKS, records, heap)

    @contextmanager
    def sender() -> Iterator[Send]:
        with strand.attach_ring(ring.fileno()) as own, own.producer() as writer:

            def send(batches: Sequence[Any]) -> None:
                for batch in batches:
                    writer.write_arrow(encode(batch) if encode else batch)

            yield send

    @contextmanager
    def receiver() -> Iterator[Receive]:
        with ring, ring.consumer() as view:
            batches: Any = view.batches(copy=copy)
            yield lambda rows: (eat or _add_batches)(batches.__next__, rows)
            batches.close()

    return Transport(sender, receiver)


def _ring_of_pieces() -> Transport:
    """As an executor writes its answer, and as its caller reads it: a stream in pieces."""
    ring = strand.open_ring(strand.BLOCKS, _EXECUTOR_RECORDS, _EXECUTOR_HEAP)

    @contextmanager
    def sender() -> Iterator[Send]:
        with strand.attach_ring(ring.fileno()) as own, own.producer() as writer:
            yield partial(_emit, writer.write_bytes)

    @contextmanager
    def receiver() -> Iterator[Receive]:
        with ring, ring.consumer() as view:
            payloads: Any = view.payloads()
            yield _stream_reader(payloads.__next__)
            payloads.close()

    return Transport(sender, receiver)


def _socket_of_pieces() -> Transport:
    ours, theirs = socket.socketpair()

    @contextmanager
    def sender() -> Iterator[Send]:
        ours.close()
        with theirs:
            yield partial(_emit, theirs.sendall)

    @contextmanager
    def receiver() -> Iterator[Receive]:
        theirs.close()
        with ours, ours.makefile("rb", buffering=_READ_BYTES) as file:
            yield _batch_reader(file)

    return Transport(sender, receiver)


def _pipe_of_pieces() -> Transport:
    receiving, sending = FORK.Pipe(duplex=False)

    @contextmanager
    def sender() -> Iterator[Send]:
        yield partial(_emit, sending.send_bytes)

    @contextmanager
    def receiver() -> Iterator[Receive]:
        yield _stream_reader(receiving.recv_bytes)

    return Transport(sender, receiver)


def _emit(write: Callable[[Any], object], batches: Sequence[pa.RecordBatch]) -> None:
    """Write the messages of a stream in pieces; what is opened twice is read as two streams."""
    for batch in batches:
        message = memoryview(batch.serialize())
        for start in range(0, len(message), _PIECE_BYTES):
            write(message[start : start + _PIECE_BYTES])


class _Pieces(io.RawIOBase):
    """The pieces that `get` answers with, as a file."""

    def __init__(self, get: Callable[[], Any]) -> None:
        super().__init__()
        self._get = get
        self._left: memoryview = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        if not self._left:
            self._left = memoryview(b"")  # lets go of the piece before the next is asked for
            self._left = memoryview(self._get())
        count = min(len(into), len(self._left))
        into[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _stream_reader(get: Callable[[], Any]) -> Receive:
    return _batch_reader(io.BufferedReader(_Pieces(get), _READ_BYTES))


def _batch_reader(file: Any) -> Receive:
    schema = TextJob(1, 1).batch.schema

    def get() -> pa.RecordBatch:
        return pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)

    return lambda rows: _add_batches(get, rows)


def _pipe_messages(schema: pa.Schema) -> Transport:
    def put(connection: Any, batch: pa.RecordBatch) -> None:
        connection.send_bytes(batch.serialize())

    def get(connection: Any) -> pa.RecordBatch:
        return pa.ipc.read_record_batch(pa.py_buffer(connection.recv_bytes()), schema)

    return pipe(_add_batches, put, get)


def _zeromq_messages(schema: pa.Schema) -> Transport:
    def put(zmq_socket: Any, batch: pa.RecordBatch) -> None:
        zmq_socket.send(batch.serialize(), copy=False)

    def get(zmq_socket: Any) -> pa.RecordBatch:
        frame = zmq_socket.recv(copy=False)
        return pa.ipc.read_record_batch(pa.py_buffer(frame.buffer), schema)

    return sockets(_add_batches, put, get, high_water=64)
