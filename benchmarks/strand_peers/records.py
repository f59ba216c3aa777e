"""Typed records as Python values: one a message, and lists of a thousand."""

from __future__ import annotations

import ctypes
import pickle
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

import strand
from strand_peers.arrow import socket_stream
from strand_peers.fifo import fifo
from strand_peers.iceoryx import loans
from strand_peers.jobs import RowJob, add_each, add_rows
from strand_peers.measure import Receive, Send, Transport
from strand_peers.standard import pipe, queue
from strand_peers.tables import Table, Target
from strand_peers.tables import transport_row as row
from strand_peers.zeromq import sockets

__all__ = [
    "SCHEMA",
    "one_a_message",
    "rows_in_batches",
    "send_packed",
    "take_packed",
]

SCHEMA = strand.build_schema(
    [("id", "u32"), ("score", "f32"), ("kind", "utf8_ref"), ("label", "utf8")]
)
_ARROW = pa.schema([("id", "uint32"), ("score", "float32"), ("kind", "uint32"), ("label", "utf8")])
_PACKED = struct.Struct("<IfI10s")
_RECORDS, _HEAP = 16384, "1MiB"
_STEP = 2048  # records between acknowledgements, so that neither side waits for a whole ring


def one_a_message(quick: bool) -> Table:
    """The first row of the table: every record is published, and may be read, by itself.

    pyzmq queues without bound here: it is no slower, and at a high-water mark it stalled at times.
    """
    few = partial(RowJob, 20_000 if quick else 150_000)
    many = partial(RowJob, 200_000 if quick else 1_500_000)
    target = Target(figure=4.0, ratio=4.5)
    return Table(
        "record",
        "One record a message: u32, f32, u32, 10-character text",
        "M rec/s",
        (
            row(
                "strand, write; seek + 2 gets",
                partial(_ring, _write_each, partial(partial, seek_and_get)),
                many,
                target,
            ),
            row("strand, write; for row in view", partial(_ring, _write_each, _iterate), many),
            row("mp.Queue", partial(queue, add_each), few),
            row("mp.Pipe", partial(pipe, add_each), few),
            row("faster-fifo put, get", partial(fifo, add_each), few),
            row("faster-fifo put, get_many", partial(fifo, add_rows, get_many=1000), few),
            row("pyzmq ipc, struct", partial(sockets, add_each, send_packed, take_packed, 0), few),
            row("Arrow IPC over a socket, 1 row", _arrow_each, partial(RowJob, 10_000)),
            row("iceoryx2, struct, polled", _iceoryx, few),
        ),
        cpu_unit="CPU s/M",
    )


def rows_in_batches(quick: bool) -> Table:
    """The second row: Python values in, Python values out, a thousand records a message."""
    few = partial(RowJob, 50_000 if quick else 400_000, 1000)
    many = partial(RowJob, 200_000 if quick else 1_600_000, 1000)
    target = Target(figure=5.0, ratio=1.3)
    return Table(
        "rows",
        "Python rows in and out, 1,000 a batch",
        "M rec/s",
        (
            row(
                "strand, batches; for row in view",
                partial(_ring, _write_lists, _iterate),
                many,
                target,
            ),
            row(
                "strand, batches; tuples(start, stop)",
                partial(_ring, _write_lists, partial(partial, read_tuples)),
                many,
            ),
            row("mp.Queue", partial(queue, add_rows), few),
            row("mp.Pipe", partial(pipe, add_rows), few),
            row("faster-fifo, a list", partial(fifo, add_rows), few),
            row(
                "faster-fifo put_many, get_many",
                partial(fifo, add_rows, put_many=True, get_many=1000),
                few,
            ),
            row(
                "pyzmq ipc, pickle 5", partial(sockets, add_rows, _send_pickled, _take_pickled), few
            ),
            row("Arrow IPC over a socket", _arrow_lists, few),
            row("iceoryx2, pickle 5, polled", _iceoryx_lists, few),
        ),
    )


# --- strand


def _ring(write: Callable[[Any, Sequence[Any]], None], read: Callable[[Any], Receive]) -> Transport:
    ring = strand.open_ring(SCHEMA, _RECORDS, _HEAP)

    @contextmanager
    def sender() -> Iterator[Send]:
        with strand.attach_ring(ring.fileno()) as own, own.producer() as writer:
            yield partial(write, writer)

    @contextmanager
    def receiver() -> Iterator[Receive]:
        with ring, ring.consumer() as view:
            yield read(view)

    return Transport(sender, receiver)


def _write_each(writer: Any, rows: Sequence[Any]) -> None:
    write = writer.write
    for record in rows:
        write(record)


def _write_lists(writer: Any, lists: Sequence[Any]) -> None:
    for rows in lists:
        writer.write_record_batch(rows)


def seek_and_get(view: Any, records: int) -> float:
    """Read `records` records with a cursor, two fields of each."""
    cursor = view.allocate_cursor()
    seek, get_u32, get_string = cursor.seek, cursor.get_u32, cursor.get_string
    total = 0
    seq = view.acknowledged_count
    end = seq + records
    while seq < end:
        upto = min(view.wait_for_commit(seq), seq + _STEP, end)
        for at in range(seq, upto):
            seek(at)
            total += get_u32("id") + len(get_string("label"))
        view.acknowledge_read(upto)
        seq = upto
    return total


def read_tuples(view: Any, records: int) -> float:
    """Read `records` records as tuples of every field."""
    total = 0
    seq = view.acknowledged_count
    end = seq + records
    while seq < end:
        upto = min(view.wait_for_commit(seq), seq + _STEP, end)
        for record in view.tuples(seq, upto):
            total += record[0] + len(record[3])
        view.acknowledge_read(upto)
        seq = upto
    return total


def _iterate(view: Any) -> Receive:
    """Read by iterating over the view."""
    rows = iter(view)

    def receive(records: int) -> float:
        total = 0
        for record in islice(rows, records):
            total += record[0] + len(record[3])
        return total

    return receive


# --- peers


def send_packed(socket: Any, row: Any) -> None:
    """Send a record as the 22 bytes that its values take."""
    socket.send(_PACKED.pack(row[0], row[1], row[2], row[3].encode()))


def take_packed(socket: Any) -> Any:
    """Receive what `send_packed` sent."""
    number, score, kind, label = _PACKED.unpack(socket.recv())
    return number, score, kind, label.decode()


def _send_pickled(socket: Any, rows: Any) -> None:
    socket.send(pickle.dumps(rows, 5))


def _take_pickled(socket: Any) -> Any:
    return pickle.loads(socket.recv())


def _iceoryx() -> Transport:
    def fill(address: int, row: Any) -> None:
        packed = _PACKED.pack(row[0], row[1], row[2], row[3].encode())
        ctypes.memmove(address, packed, _PACKED.size)

    def take(sample: Any) -> Any:
        packed = ctypes.string_at(sample.payload_ptr, _PACKED.size)
        number, score, kind, label = _PACKED.unpack(packed)
        return number, score, kind, label.decode()

    return loans(add_each, lambda _: _PACKED.size, fill, take, _PACKED.size)


def _iceoryx_lists() -> Transport:
    pickled = b""

    def size(rows: Any) -> int:
        nonlocal pickled
        pickled = pickle.dumps(rows, 5)
        return len(pickled)

    def fill(address: int, _rows: Any) -> None:
        ctypes.memmove(address, pickled, len(pickled))

    def take(sample: Any) -> Any:
        return pickle.loads(ctypes.string_at(sample.payload_ptr, sample.payload().len()))

    return loans(add_rows, size, fill, take, 1 << 17)


def _arrow_each() -> Transport:
    def eat(get: Callable[[], pa.RecordBatch], records: int) -> float:
        total = 0
        for _ in range(records):
            number, _, _, label = (column[0].as_py() for column in get().columns)
            total += number + len(label)
        return total

    return socket_stream(_ARROW, eat, lambda row: _to_arrow([row]))


def _arrow_lists() -> Transport:
    def take(batch: pa.RecordBatch) -> list[Any]:
        return list(zip(*(column.to_pylist() for column in batch.columns), strict=True))

    def eat(get: Callable[[], pa.RecordBatch], records: int) -> float:
        return add_rows(lambda: take(get()), records)

    return socket_stream(_ARROW, eat, _to_arrow)


def _to_arrow(rows: Sequence[Any]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, _ARROW.types, strict=True)]
    return pa.record_batch(arrays, schema=_ARROW)
