"""The data that every peer carries, and the loops that take it in and sum it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

import strand

__all__ = [
    "COLUMN_DTYPE",
    "COLUMN_SCHEMA",
    "LABEL_SCHEMA",
    "ArrayJob",
    "BatchJob",
    "ColumnJob",
    "FillJob",
    "LabelBatchJob",
    "LabelJob",
    "RowJob",
    "SeparateJob",
    "TextJob",
    "add_column",
    "add_each",
    "add_rows",
    "touch",
]

Row = tuple[int, float, int, str]

COLUMN_SCHEMA = strand.build_schema(
    [("id", "i64"), ("score", "f64"), ("kind", "u32"), ("weight", "f32")]
)
LABEL_SCHEMA = strand.build_schema([("id", "i64"), ("score", "f64"), ("label", "utf8")])
COLUMN_DTYPE: Any = COLUMN_SCHEMA.to_numpy()  # 24 bytes without a gap
_LABEL_CHARS = 10
_WARM_BYTES = 1 << 20


@dataclass(frozen=True)
class RowJob:
    """Python records (u32, f32, u32, 10-character text) in messages of `batch`; 1: the record."""

    units: int
    batch: int = 1
    weight: float = 1

    @property
    def checksum(self) -> float:
        return self.units * (self.units - 1) // 2 + _LABEL_CHARS * self.units

    def messages(self) -> Sequence[Any]:
        rows = [(at, at * 0.5, at & 7, f"label{at % 100_000:05}") for at in range(self.units)]
        if self.batch == 1:
            return rows
        return [rows[at : at + self.batch] for at in range(0, self.units, self.batch)]

    def warm_up(self) -> tuple[int, int]:
        messages = max(1, self.units // self.batch // 8)
        return messages, messages * self.batch


@dataclass(frozen=True)
class ColumnJob:
    """Structured arrays of `batch` records, a few of them in turn.

    What a producer sends it has just made: its data are warm, and a table of hundreds of megabytes
    would measure how fast memory is read.
    """

    units: int
    batch: int
    weight: float = 1

    @cached_property
    def distinct(self) -> int:
        """How many different batches there are: a megabyte of them, or two."""
        return max(2, _WARM_BYTES // (self.batch * COLUMN_DTYPE.itemsize))

    @property
    def checksum(self) -> float:
        count = self.units // self.batch
        sums = [int(table["id"].sum()) for table in self._tables()]
        return sum(sums[at % len(sums)] for at in range(count))

    def messages(self) -> Sequence[Any]:
        return self._in_turn(self._tables())

    def warm_up(self) -> tuple[int, int]:
        messages = max(1, self.units // self.batch // 8)
        return messages, messages * self.batch

    def _in_turn(self, batches: Sequence[Any]) -> Sequence[Any]:
        return [batches[at % len(batches)] for at in range(self.units // self.batch)]

    def _tables(self) -> list[Any]:
        table = np.zeros(self.batch * self.distinct, COLUMN_DTYPE)
        table["id"] = np.arange(len(table))
        table["score"] = table["id"] * 0.5
        table["kind"] = table["id"] & 7
        table["weight"] = 1.5
        return [table[at : at + self.batch] for at in range(0, len(table), self.batch)]


class SeparateJob(ColumnJob):
    """The same columns, each an array of its own."""

    def messages(self) -> Sequence[Any]:
        return self._in_turn([_apart(table) for table in self._tables()])


class BatchJob(SeparateJob):
    """The same columns as Arrow batches, made before the clock starts."""

    def messages(self) -> Sequence[Any]:
        return self._in_turn([pa.record_batch(_apart(table)) for table in self._tables()])


def _apart(table: Any) -> dict[str, Any]:
    return {name: np.ascontiguousarray(table[name]) for name in COLUMN_DTYPE.names}


class LabelJob(ColumnJob):
    """Two number columns and a list of strings."""

    @property
    def checksum(self) -> float:
        ids = super().checksum
        return ids + self.units * len(_label(0))

    def messages(self) -> Sequence[Any]:
        return self._in_turn([_labelled(table) for table in self._tables()])


class LabelBatchJob(LabelJob):
    """The same as Arrow batches, made before the clock starts."""

    def messages(self) -> Sequence[Any]:
        return self._in_turn([pa.record_batch(_labelled(table)) for table in self._tables()])


def _label(number: int) -> str:
    return f"a label {number:07}"


def _labelled(table: Any) -> dict[str, Any]:
    ids = np.ascontiguousarray(table["id"])
    return {
        "id": ids,
        "score": np.ascontiguousarray(table["score"]),
        "label": [_label(number) for number in ids.tolist()],
    }


@dataclass(frozen=True)
class ArrayJob:
    """One array of `mebibytes`, sent `units` times; the receiver reads one value of each page."""

    units: int
    mebibytes: int

    @cached_property
    def array(self) -> Any:
        return np.arange(self.mebibytes << 17, dtype="f8")

    @property
    def weight(self) -> float:
        return self.mebibytes << 20

    @property
    def checksum(self) -> float:
        return self.units * touch(self.array)

    def messages(self) -> Sequence[Any]:
        return [self.array] * self.units

    def warm_up(self) -> tuple[int, int]:
        count = min(self.units, 4)
        return count, count


class FillJob(ArrayJob):
    """A value for each array: the array itself is made where it will be read."""

    @property
    def checksum(self) -> float:
        return (self.mebibytes << 8) * self.units * (self.units - 1) / 2

    def messages(self) -> Sequence[Any]:
        return [float(at) for at in range(self.units)]


@dataclass(frozen=True)
class TextJob:
    """An Arrow batch of numbers, times and strings, sent `count` times; units are rows."""

    count: int
    rows: int

    @cached_property
    def batch(self) -> pa.RecordBatch:
        numbers = np.arange(self.rows)
        notes = [f"a note of row {at}" if at % 3 else None for at in range(self.rows)]
        return pa.record_batch(
            {
                "id": numbers,
                "score": numbers * 0.5,
                "at": numbers.astype("M8[us]"),
                "label": pa.array([f"label {at % 1000:05}" for at in range(self.rows)]),
                "note": pa.array(notes, "utf8"),
            }
        )

    @property
    def units(self) -> int:
        return self.count * self.rows

    @property
    def weight(self) -> float:
        return float(self.batch.nbytes / self.rows)

    @property
    def checksum(self) -> float:
        return self.count * (self.rows * (self.rows - 1) // 2)

    def messages(self) -> Sequence[Any]:
        return [self.batch] * self.count

    def warm_up(self) -> tuple[int, int]:
        count = max(1, self.count // 8)
        return count, count * self.rows


def add_each(get: Callable[[], Row], count: int) -> float:
    """Take `count` rows one by one; sum what a reader looks at."""
    total = 0
    for _ in range(count):
        row = get()
        total += row[0] + len(row[3])
    return total


def add_rows(get: Callable[[], Sequence[Row]], count: int) -> float:
    """Take lists of rows until `count` came; sum what a reader looks at."""
    total = 0
    while count > 0:
        rows = get()
        count -= len(rows)
        for row in rows:
            total += row[0] + len(row[3])
    return total


def add_column(get: Callable[[], Any], count: int) -> float:
    """Take structured arrays, or columns by name, until `count` records came; sum one column."""
    total = 0
    while count > 0:
        ids = get()["id"]
        count -= len(ids)
        total += int(ids.sum())
    return total


def touch(array: Any) -> float:
    """Read one value of each 4 KiB page."""
    return float(array[::512].sum())
