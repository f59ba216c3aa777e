"""Typed columns with strings: as Python holds them in lists, and as Arrow arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import strand
from strand_peers.arrow import block_ring, socket_stream
from strand_peers.columns import record_ring
from strand_peers.jobs import LABEL_SCHEMA, LabelBatchJob, LabelJob
from strand_peers.measure import Transport
from strand_peers.standard import pipe, queue
from strand_peers.tables import Table, Target
from strand_peers.tables import transport_row as row

__all__ = ["arrow_columns", "python_columns"]

_ARROW = pa.schema([("id", "int64"), ("score", "float64"), ("label", "string")])
_TARGET = Target(ratio=1.0, to="Arrow IPC over a socket pair")


def python_columns(batch: int, quick: bool) -> Table:
    """Numbers in arrays and strings in a list: what a program has before it knows of Arrow."""
    job = partial(LabelJob, _units(batch, quick), batch)
    return Table(
        f"labels {batch}",
        f"Columns with a list of strings, {batch:,} a batch, read as Arrow",
        "M rec/s",
        (
            row("strand, write_columns; to_arrow", partial(_ring, _write_columns), job, _TARGET),
            row("strand, write_arrow in blocks; zero copy", partial(_blocks, _encode), job),
            row("Arrow IPC over a socket pair", partial(_stream, _encode), job),
            row("mp.Pipe, pickled", partial(pipe, _sum_columns), job),
            row("mp.Queue", partial(queue, _sum_columns, 64), job),
        ),
        cpu_unit="CPU s/M",
    )


def arrow_columns(batch: int, quick: bool) -> Table:
    """Batches that are Arrow's already: a ring of records takes them apart and builds them anew."""
    job = partial(LabelBatchJob, _units(batch, quick), batch)
    return Table(
        f"strings {batch}",
        f"Arrow batches with strings as records, {batch:,} a batch, read as Arrow",
        "M rec/s",
        (
            row("strand, write_arrow; to_arrow", partial(_ring, _write_arrow), job, _TARGET),
            row("strand, write_arrow in blocks; zero copy", partial(_blocks, None), job),
            row("Arrow IPC over a socket pair", partial(_stream, None), job),
            row("mp.Pipe, pickled", partial(pipe, _sum_batches), job),
            row("mp.Queue", partial(queue, _sum_batches, 64), job),
        ),
        cpu_unit="CPU s/M",
    )


def _units(batch: int, quick: bool) -> int:
    return batch * ((1_000_000 if quick else 8_000_000) // batch)


def _ring(write: Callable[[Any, Any], object]) -> Transport:
    ring = strand.open_ring(LABEL_SCHEMA, 131072, "4MiB")
    return record_ring(
        ring, write, lambda view, start, stop: _sum_batch(view.to_arrow(start, stop))
    )


def _write_columns(writer: Any, columns: Any) -> None:
    writer.write_columns(columns)


def _write_arrow(writer: Any, batch: Any) -> None:
    writer.write_arrow(batch)


def _blocks(encode: Callable[[Any], pa.RecordBatch] | None) -> Transport:
    return block_ring(copy=False, heap="8MiB", encode=encode, eat=_sum_batches)


def _stream(encode: Callable[[Any], pa.RecordBatch] | None) -> Transport:
    return socket_stream(_ARROW, _sum_batches, encode)


def _encode(columns: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(values) for values in columns.values()], schema=_ARROW
    )


def _sum_batch(batch: pa.RecordBatch) -> int:
    """Sum the first column, and the lengths of the last: both are looked at in whole."""
    lengths = pc.sum(pc.binary_length(batch.column(2))).as_py()
    return int(batch.column(0).to_numpy().sum()) + int(lengths)


def _sum_batches(get: Callable[[], pa.RecordBatch], rows: int) -> float:
    total = 0
    while rows > 0:
        batch = get()
        rows -= batch.num_rows
        total += _sum_batch(batch)
        del batch
    return total


def _sum_columns(get: Callable[[], dict[str, Any]], rows: int) -> float:
    total = 0
    while rows > 0:
        columns = get()
        rows -= len(columns["id"])
        total += int(columns["id"].sum()) + sum(map(len, columns["label"]))
    return total
