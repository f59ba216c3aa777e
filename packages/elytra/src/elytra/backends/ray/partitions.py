"""Range partitioning of rows by a key column, in the order in which EM-√ sorts it.

A partition is a range of keys, so equal keys are in one partition, and the partitions after each other are
sorted by the key. Within a partition rows keep the order of the input. An operator that sorts by the key
(a sort, an aggregate, a distinct) thus has the same rows in the same order, whether it reads all rows or one
partition after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sennit_core.arrow_ipc import ArrowReader, open_arrow
from sennit_core.private_files import make_private_folder

__all__ = [
    "KEY",
    "POSITION",
    "TYPES",
    "Ranges",
    "boundaries_of",
    "ipc_of",
    "keys_of",
    "read_sample",
    "split_file",
]

KEY = "$key"
"""The column that a stage adds for the partitioning, and that the partitions lack."""
POSITION = "$position"
"""The column that partitions get if the order of the input is to be restored: unique and ascending."""
POSITION_BITS = 40

TYPES = frozenset(
    [
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "UInt8",
        "UInt16",
        "UInt32",
        "UInt64",
        "Float32",
        "Float64",
        "Decimal",
        "Utf8",
        "Binary",
        "Date",
    ]
) | {"Timestamp"}
"""Types whose order here is EM-√'s: numbers by value with NaN last, texts by their bytes."""

_SAMPLE_ROWS = 2000
_BATCH_SAMPLE_ROWS = 64


@dataclass(frozen=True, slots=True)
class Ranges:
    """The ranges of keys.

    Args:
        boundaries: The first key of each range but the first, ascending, without NULL and NaN.
        descending: Whether the first range has the largest keys.
        nulls_first: Whether NULL is in the first range; else in the last one.
    """

    boundaries: pa.Array[Any]
    descending: bool = False
    nulls_first: bool = False

    @property
    def count(self) -> int:
        """The number of ranges."""
        return len(self.boundaries) + 1

    def indexes(self, keys: pa.Array[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the index of each key's range."""
        found = self._searched(keys)
        if pa.types.is_floating(keys.type):  # compares as less than all, and is sorted last
            found[pc.fill_null(pc.is_nan(keys), False).to_numpy(zero_copy_only=False)] = (
                self.count - 1
            )
        if self.descending:
            found = self.count - 1 - found
        found[keys.is_null().to_numpy(zero_copy_only=False)] = (
            0 if self.nulls_first else self.count - 1
        )
        return found

    def _searched(self, keys: pa.Array[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return how many boundaries are not above each key."""
        if pa.types.is_integer(keys.type) or pa.types.is_floating(keys.type):
            values = pc.fill_null(keys, 0).to_numpy(zero_copy_only=False)
            edges = self.boundaries.to_numpy(zero_copy_only=False)
            places: np.ndarray[Any, np.dtype[np.int64]] = np.searchsorted(edges, values, "right")
            return places
        found = np.zeros(len(keys), dtype=np.int64)
        for boundary in self.boundaries:
            found += pc.fill_null(pc.greater_equal(keys, boundary), False).to_numpy(
                zero_copy_only=False
            )
        return found


def boundaries_of(samples: Sequence[pa.Array[Any]], count: int) -> pa.Array[Any]:
    """Return the boundaries of at most `count` ranges, about equal in rows by samples of the keys."""
    keys = pa.chunked_array(samples).combine_chunks().drop_null()
    if pa.types.is_floating(keys.type):
        keys = keys.filter(pc.invert(pc.is_nan(keys)))
    keys = keys.take(pc.array_sort_indices(keys))
    places = sorted({len(keys) * index // count for index in range(1, count)} - {0, len(keys)})
    # A key that fills several ranges is one boundary; the least key starts no range but the first.
    found = pc.unique(keys.take(pa.array(places, pa.int64())))
    return found.filter(pc.greater(found, keys[0])) if len(found) else found


def ipc_of(keys: pa.Array[Any]) -> bytes:
    """Return keys as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([keys], names=[KEY])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def keys_of(stream: bytes) -> pa.Array[Any]:
    """Return keys from the form of `ipc_of`."""
    with open_arrow(pa.BufferReader(stream), "keys of a stage") as reader:
        (batch,) = reader
    return batch.column(KEY)


def read_sample(path: Path) -> pa.Array[Any]:
    """Return keys from all over a file of a stage, at random places: keys may have a period."""
    random = np.random.default_rng(0)
    with pa.memory_map(str(path)) as file, open_arrow(file, "rows of a stage") as stream:
        samples = [pa.array([], stream.schema.field(KEY).type)]
        samples += [_some(batch.column(KEY), _BATCH_SAMPLE_ROWS, random) for batch in stream]
    return _some(pa.concat_arrays(samples), _SAMPLE_ROWS, random)


def _some(keys: pa.Array[Any], count: int, random: np.random.Generator) -> pa.Array[Any]:
    if len(keys) <= count:
        return keys
    return keys.take(pa.array(random.choice(len(keys), count, replace=False)))


def split_file(path: Path, folder: Path, ranges: Ranges, *, position: int | None) -> list[Path]:
    """Write the rows of a file of a stage to one file for each range.

    Args:
        path: The file, an Arrow IPC stream with the column `KEY`.
        folder: For the new files, which are Arrow IPC streams without it.
        ranges: The ranges.
        position: The index of the file among those of the stage, if rows get a position.

    Returns:
        The files, by range.
    """
    make_private_folder(folder)
    paths = [folder / f"{index}.arrow" for index in range(ranges.count)]
    with ExitStack() as opened:
        file = opened.enter_context(pa.memory_map(str(path)))
        stream = opened.enter_context(open_arrow(file, "rows of a stage"))
        schema = _without_key(stream.schema, position=position is not None)
        writers = [
            opened.enter_context(
                pa.ipc.new_stream(opened.enter_context(pa.OSFile(str(each), "wb")), schema)
            )
            for each in paths
        ]
        for batch, indexes in _indexed(stream, ranges, position):
            # Of 16 bits, for which numpy sorts by radix.
            order = np.argsort(indexes.astype(np.uint16), kind="stable")
            sorted_rows = batch.take(pa.array(order))
            ends = np.cumsum(np.bincount(indexes, minlength=ranges.count))
            start = 0
            for writer, end in zip(writers, ends.tolist(), strict=True):
                if end > start:
                    writer.write_batch(sorted_rows.slice(start, end - start))
                start = end
    return paths


def _indexed(
    stream: ArrowReader, ranges: Ranges, position: int | None
) -> Iterator[tuple[pa.RecordBatch, np.ndarray[Any, np.dtype[np.int64]]]]:
    rows = 0 if position is None else position << POSITION_BITS
    for batch in stream:
        indexes = ranges.indexes(batch.column(KEY))
        columns = [batch.column(name) for name in batch.schema.names if name != KEY]
        if position is not None:
            columns.append(pa.array(np.arange(rows, rows + batch.num_rows)))
            rows += batch.num_rows
        schema = _without_key(batch.schema, position=position is not None)
        yield pa.record_batch(columns, schema=schema), indexes


def _without_key(schema: pa.Schema, *, position: bool) -> pa.Schema:
    found = schema.remove(schema.get_field_index(KEY))
    return found.append(pa.field(POSITION, pa.int64())) if position else found
