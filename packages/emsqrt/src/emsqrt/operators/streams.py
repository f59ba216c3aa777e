"""Streaming operators: union, sample by fraction, explode."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emsqrt.execution_context import ExecutionContext
from emsqrt.expr.casts import cast_values
from emsqrt.operators.operator import Operator
from emsqrt.plan.check import explode_schema
from emsqrt.plan.joining import union_schema
from emsqrt.plan.nodes import Explode, Sample, Union
from sennit_core.schema import Field, Schema

_EXPLODED_ROWS = 32_768


class UnionRows:
    """All rows of the inputs one after the other, in the columns and types of the union."""

    def __init__(self, node: Union, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Find the position of each input's columns, and the types that they are cast from."""
        self.schema = union_schema(node, [below.schema for below in inputs])
        self._arrow_schema = self.schema.to_arrow()
        self._inputs = inputs
        self._run = run
        self._by_name = node.by_name

    def batches(self) -> Generator[Any]:
        """Yield a batch for each input batch."""
        for below in self._inputs:
            columns = [
                self._column(below.schema, at, field) for at, field in enumerate(self.schema)
            ]
            with closing(below.batches()) as batches:
                for batch in batches:
                    self._run.check()
                    arrays = [column(batch) for column in columns]
                    del batch
                    yield pa.RecordBatch.from_arrays(arrays, schema=self._arrow_schema)

    def _column(self, schema: Schema, at: int, field: Field) -> Callable[[Any], Any]:
        """Return a function that computes one output column from an input's batch."""
        if self._by_name and field.name not in schema:
            return lambda batch: pa.nulls(batch.num_rows, field.type.to_arrow())
        index = schema.names.index(field.name) if self._by_name else at
        source = schema.fields[index].type
        if source == field.type:
            return lambda batch: batch.column(index)
        return lambda batch: cast_values(batch.column(index), source, field.type, None, strict=True)


class SampleRows:
    """Pass or drop each row, by a hash of its row number and the seed."""

    def __init__(self, node: Sample, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Convert the fraction to a bound on hashes."""
        (self._input,) = inputs
        self.schema = self._input.schema
        self._run = run
        self._seed, self._first_row = node.seed, node.first_row
        assert node.fraction is not None, "a count is sampled by SampleCount"
        # A row is in the sample if its hash is below this: independent of batches and of other
        # rows.
        self._bound = int(node.fraction * 2**64)

    def batches(self) -> Generator[Any]:
        """Yield the sampled rows; no empty batches."""
        place = self._first_row
        with closing(self._input.batches()) as batches:
            for batch in batches:
                self._run.check()
                places = np.arange(place, place + batch.num_rows, dtype=np.uint64)
                hashes = hash_places(places, self._seed)
                place += batch.num_rows
                chosen = (
                    batch
                    if self._bound >= 2**64
                    else batch.filter(pa.array(hashes < np.uint64(self._bound)))
                )
                del batch
                if chosen.num_rows:
                    yield chosen


def hash_places(places: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return 64 well-mixed bits for each row number (splitmix64)."""
    with np.errstate(over="ignore"):
        # Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014; the
        # finalizer of splitmix64, as in Java's SplittableRandom.
        mixed = places + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & (2**64 - 1))
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


class ExplodeRows:
    """One row for each item of a list."""

    def __init__(self, node: Explode, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Find the list's column."""
        (self._input,) = inputs
        self.schema = explode_schema(node, self._input.schema)
        self._arrow_schema = self.schema.to_arrow()
        self._at = self._input.schema.names.index(node.column)
        self._node = node
        self._run = run

    def batches(self) -> Generator[Any]:
        """Yield the items with the other columns of their rows, some thousands at once."""
        with closing(self._input.batches()) as batches:
            for batch in batches:
                for start, count in _cuts(batch.column(self._at)):
                    self._run.check()
                    made = self._explode(batch.slice(start, count))
                    for first in range(0, made.num_rows, _EXPLODED_ROWS):
                        yield made.slice(first, _EXPLODED_ROWS)
                    del made
                del batch

    def _explode(self, batch: Any) -> Any:
        lists = batch.column(self._at)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        lengths = lengths.astype(np.int64)
        items = lists.flatten()
        rows = np.repeat(np.arange(len(lists)), lengths)
        # Positions in the list, from 1: the running number less that of the list's first item.
        place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
        chosen: Any = np.arange(len(rows))
        if self._node.outer and (lengths == 0).any():
            rows, chosen, place = _with_empty(rows, lengths, place)
        wanted, columns = pa.array(rows), []
        for index, column in enumerate(batch.columns):
            if index == self._at:
                columns.append(items.take(pa.array(chosen, pa.int64(), from_pandas=True)))
            else:
                columns.append(column.take(wanted))
        if self._node.position is not None:
            columns.append(pa.array(place, pa.int64(), from_pandas=True))
        return pa.RecordBatch.from_arrays(columns, schema=self._arrow_schema)


def _with_empty(rows: Any, lengths: Any, place: Any) -> tuple[Any, Any, Any]:
    """Add a row without an item where a list is empty or NULL; masked positions become NULL."""
    spread = np.maximum(lengths, 1)
    all_rows = np.repeat(np.arange(len(lengths)), spread)
    empty = np.repeat(lengths == 0, spread)
    chosen = np.ma.masked_array(np.zeros(len(all_rows), np.int64), mask=empty)
    chosen[~empty] = np.arange(len(rows))
    places = np.ma.masked_array(np.zeros(len(all_rows), np.int64), mask=empty)
    places[~empty] = place
    return all_rows, chosen, places


def _cuts(lists: Any) -> Generator[tuple[int, int]]:
    """Yield ranges of rows with some thousands of items each, or one row with more."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    # A row counts as one item at least, so that ranges of empty lists end, too.
    ends = np.cumsum(np.maximum(lengths.astype(np.int64), 1))
    start = 0
    while start < len(lists):
        before = int(ends[start - 1]) if start else 0
        end = max(int(np.searchsorted(ends, before + _EXPLODED_ROWS, "right")), start + 1)
        yield start, end - start
        start = end
