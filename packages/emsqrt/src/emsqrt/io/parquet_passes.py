"""Read a row group in several passes over some of its columns, and combine their batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from emsqrt.spill import SpillManager


def split_columns(
    held_bytes: Mapping[str, int], names: Sequence[str], room_bytes: int
) -> list[list[str]]:
    """Divide columns into sets of which each fits the memory, by first-fit.

    A column that does not fit alone is a set of its own; the caller, which reserves memory, refuses
    it.

    Args:
        held_bytes: the memory of a reader for each column.
        names: the columns, in order.
        room_bytes: the memory for one set.
    """
    sets: list[list[str]] = []
    sizes: list[int] = []
    for name in sorted(names, key=lambda name: -held_bytes.get(name, 0)):
        size = held_bytes.get(name, 0)
        at = next((i for i, used in enumerate(sizes) if used + size <= room_bytes), None)
        if at is None:
            sets.append([name])
            sizes.append(size)
        else:
            sets[at].append(name)
            sizes[at] += size
    return sets


def zipped_batches(passes: Sequence[Iterator[Any]], spill: SpillManager) -> Iterator[Any]:
    """Yield batches with the columns of all passes; all but the last go through the spill.

    Args:
        passes: batches of the same rows, with other columns in each; read one after the other.
        spill: the spill manager for the columns.
    """
    with ExitStack() as stack:
        waiting = []
        for number, batches in enumerate(passes[:-1]):
            columns = _SpilledColumns(batches, spill, f"parquet-columns-{number}")
            stack.callback(columns.close)
            waiting.append(columns.batches())
        yield from _side_by_side([*waiting, passes[-1]])


class _SpilledColumns:
    """Batches that are spilled, and read again in order."""

    def __init__(self, batches: Iterator[Any], spill: SpillManager, name: str) -> None:
        self._spill = spill
        self._schema: Any = None
        writer = spill.create(name)
        try:
            for batch in batches:
                block = batch.serialize()
                self._schema = batch.schema
                writer.append(memoryview(block), batch.num_rows)
        except BaseException:
            writer.abort()
            raise
        self._segment = writer.finish()

    def batches(self) -> Iterator[Any]:
        with self._spill.open(self._segment) as reader:
            while size := reader.next_bytes():
                memory = bytearray(size)  # the batch refers to it, so each batch has its own
                reader.read_into(memory)
                yield pa.ipc.read_record_batch(pa.py_buffer(memory), self._schema)

    def close(self) -> None:
        self._spill.remove(self._segment)


def _side_by_side(streams: Sequence[Iterator[Any]]) -> Iterator[Any]:
    """Yield rows with the columns of all streams, as many at a time as every stream has."""
    heads: list[Any] = [next(stream, None) for stream in streams]
    while all(head is not None for head in heads):
        rows = min(head.num_rows for head in heads)
        columns = [column for head in heads for column in head.slice(0, rows).columns]
        fields = [field for head in heads for field in head.schema]
        yield pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
        for at, head in enumerate(heads):
            heads[at] = head.slice(rows) if head.num_rows > rows else next(streams[at], None)
