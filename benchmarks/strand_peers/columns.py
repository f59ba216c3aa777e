"""Columnar records: structured arrays of one layout, and columns that lie apart."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

import strand
from strand_peers.arrow import block_ring, socket_stream
from strand_peers.fifo import fifo
from strand_peers.iceoryx import loans
from strand_peers.jobs import (
    COLUMN_DTYPE,
    COLUMN_SCHEMA,
    BatchJob,
    ColumnJob,
    SeparateJob,
    add_column,
)
from strand_peers.measure import Receive, Send, Transport
from strand_peers.standard import pipe, queue
from strand_peers.tables import Table, Target
from strand_peers.tables import transport_row as row
from strand_peers.zeromq import sockets

__all__ = ["record_ring", "same_layout", "separate_columns"]

_NAMES = COLUMN_DTYPE.names or ()
_KINDS = [COLUMN_DTYPE[name] for name in _NAMES]
_ARROW = pa.schema(
    [("id", "int64"), ("score", "float64"), ("kind", "uint32"), ("weight", "float32")]
)


def same_layout(batch: int, quick: bool) -> Table:
    """Arrays that already lie as a slot does: the least a ring can do is one memcpy."""
    job = partial(ColumnJob, _units(batch, quick), batch)
    batches = partial(BatchJob, _units(batch, quick), batch)
    target = Target({1000: 240, 65536: 300}[batch], 1.5)
    return Table(
        f"layout {batch}",
        f"Columnar, {batch:,} a batch, one 24-byte structured dtype",
        "M rec/s",
        (
            row("strand, write_columns; records", partial(_ring, _write_columns), job, target),
            row("strand, claim_records; records", partial(_ring, _write_claimed), job),
            row("mp.Queue", partial(queue, add_column), job),
            row("mp.Pipe, bytes", partial(pipe, add_column, _send_bytes, _recv_bytes), job),
            row("faster-fifo", partial(fifo, add_column), job),
            row("pyzmq ipc, no copy", partial(sockets, add_column, _put, _get), job),
            row("Arrow IPC over a socket pair", _arrow, batches),
            row("iceoryx2, polled", partial(_loan, batch), job),
        ),
        cpu_unit="CPU s/M",
    )


def separate_columns(batch: int, quick: bool) -> Table:
    """Columns that lie apart, as numpy and Arrow hold them: a ring scatters them into slots."""
    job = partial(SeparateJob, _units(batch, quick), batch)
    batches = partial(BatchJob, _units(batch, quick), batch)
    blocks = partial(block_ring, copy=False, heap="8MiB")
    target = Target({1000: 150, 65536: 200}[batch], 1.5)
    return Table(
        f"columns {batch}",
        f"Columnar, {batch:,} a batch, from four separate columns",
        "M rec/s",
        (
            row("strand, write_columns; records", partial(_ring, _write_columns), job, target),
            row("strand, numpy scatter; records", partial(_ring, _write_scattered), job),
            row("strand, write_arrow in blocks; zero copy", blocks, batches),
            row("mp.Queue", partial(queue, add_column), job),
            row("mp.Pipe, bytes of each", partial(pipe, add_column, _send_each, _recv_each), job),
            row("faster-fifo", partial(fifo, add_column), job),
            row(
                "pyzmq ipc, multipart, no copy",
                partial(sockets, add_column, _put_each, _get_each),
                job,
            ),
            row("Arrow IPC over a socket pair", _arrow, batches),
            row("iceoryx2, polled", partial(_loan_columns, batch), job),
        ),
        cpu_unit="CPU s/M",
    )


def _units(batch: int, quick: bool) -> int:
    return batch * ((6_000_000 if quick else 24_000_000) // batch)


# --- strand


def record_ring(
    ring: strand.Ring,
    write: Callable[[Any, Any], object],
    read: Callable[[Any, int, int], int],
) -> Transport:
    """A ring of typed records: `write(writer, message)`; `read(view, start, stop)` sums records."""

    @contextmanager
    def sender() -> Iterator[Send]:
        with strand.attach_ring(ring.fileno()) as own, own.producer() as writer:

            def send(messages: Sequence[Any]) -> None:
                for message in messages:
                    write(writer, message)

            yield send

    @contextmanager
    def receiver() -> Iterator[Receive]:
        with ring, ring.consumer() as view:

            def receive(records: int) -> float:
                total = 0
                seq = view.acknowledged_count
                end = seq + records
                while seq < end:
                    upto = min(view.wait_for_commit(seq), end)
                    total += read(view, seq, upto)
                    view.acknowledge_read(upto)
                    seq = upto
                return total

            yield receive

    return Transport(sender, receiver)


def _ring(write: Callable[[Any, Any], None]) -> Transport:
    return record_ring(strand.open_ring(COLUMN_SCHEMA, 131072, 4096), write, _sum_ids)


def _sum_ids(view: Any, start: int, stop: int) -> int:
    return sum(int(part["id"].sum()) for part in view.records(start, stop))


def _write_columns(writer: Any, columns: Any) -> None:
    writer.write_columns(columns)


def _write_claimed(writer: Any, table: Any) -> None:
    """Fill slots in place, as bytes: numpy copies structured arrays field by field."""
    first = writer.committed_count
    at = 0
    for part in writer.claim_records(len(table)):
        part.view(np.uint8)[:] = table[at : at + len(part)].view(np.uint8)
        at += len(part)
    writer.commit_slots(first, at)


def _write_scattered(writer: Any, columns: Any) -> None:
    """The same by hand: one strided numpy assignment for each column."""
    first = writer.committed_count
    at = 0
    for part in writer.claim_records(len(columns["id"])):
        for name in _NAMES:
            part[name] = columns[name][at : at + len(part)]
        at += len(part)
    writer.commit_slots(first, at)


# --- peers


def _decode(data: Any) -> Any:
    return np.frombuffer(data, COLUMN_DTYPE)


def _decode_each(pieces: Sequence[Any]) -> dict[str, Any]:
    kinds = zip(_NAMES, _KINDS, pieces, strict=True)
    return {name: np.frombuffer(piece, kind) for name, kind, piece in kinds}


def _send_bytes(connection: Any, table: Any) -> None:
    connection.send_bytes(table.view(np.uint8))


def _recv_bytes(connection: Any) -> Any:
    return _decode(connection.recv_bytes())


def _send_each(connection: Any, columns: Any) -> None:
    for column in columns.values():
        connection.send_bytes(column.view(np.uint8))


def _recv_each(connection: Any) -> Any:
    return _decode_each([connection.recv_bytes() for _ in _NAMES])


def _put(socket: Any, table: Any) -> None:
    socket.send(table.view(np.uint8), copy=False)


def _get(socket: Any) -> Any:
    return _decode(socket.recv(copy=False))


def _put_each(socket: Any, columns: Any) -> None:
    socket.send_multipart(list(columns.values()), copy=False)


def _get_each(socket: Any) -> Any:
    return _decode_each(socket.recv_multipart(copy=False))


def _arrow() -> Transport:
    def eat(get: Callable[[], pa.RecordBatch], records: int) -> float:
        return add_column(lambda: {"id": get().column(0).to_numpy()}, records)

    return socket_stream(_ARROW, eat)


def _loan(batch: int) -> Transport:
    def fill(address: int, table: Any) -> None:
        ctypes.memmove(address, table.ctypes.data, table.nbytes)

    def take(sample: Any) -> Any:
        ids = _at(sample.payload_ptr, batch * COLUMN_DTYPE.itemsize, COLUMN_DTYPE)["id"]
        return len(ids), int(ids.sum())

    size = batch * COLUMN_DTYPE.itemsize
    return loans(_add_taken, lambda _: size, fill, take, size)


def _loan_columns(batch: int) -> Transport:
    def fill(address: int, columns: Any) -> None:
        for column in columns.values():
            ctypes.memmove(address, column.ctypes.data, column.nbytes)
            address += column.nbytes

    def take(sample: Any) -> Any:
        ids = _at(sample.payload_ptr, batch * 8, _KINDS[0])
        return len(ids), int(ids.sum())

    size = batch * COLUMN_DTYPE.itemsize
    return loans(_add_taken, lambda _: size, fill, take, size)


def _at(address: int, size: int, dtype: Any) -> Any:
    window: Any = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(window, dtype)


def _add_taken(get: Callable[[], Any], records: int) -> float:
    """Sum what was summed while the sample was held."""
    total = 0
    while records > 0:
        count, part = get()
        records -= count
        total += part
    return total
