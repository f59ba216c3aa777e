"""A sample of a fixed number of rows: those whose row numbers hash lowest, in input order."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa

from emsqrt.execution_context import ExecutionContext
from emsqrt.expr import Column, SortKey
from emsqrt.operators.operator import Operator
from emsqrt.operators.sort import SortRows
from emsqrt.operators.streams import SampleRows, hash_places
from emsqrt.plan.check import output_schema
from emsqrt.plan.nodes import ROW_NUMBER, Sample, Sort, TopK
from sennit_core.schema import DataType, Field, Schema

_UINT64 = DataType("UInt64")


def make_sample(node: Sample, inputs: Sequence[Operator], run: ExecutionContext) -> Operator:
    """Return the operator of a sample, by fraction or by count."""
    if node.count is None:
        return SampleRows(node, inputs, run)
    return SampleCount(node, inputs, run)


class SampleCount:
    """A fixed number of rows, or all rows when there are fewer."""

    def __init__(self, node: Sample, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Put a top-k by hash and a sort by row number above the input."""
        assert node.count is not None, "a fraction is sampled by SampleRows"
        (below,) = inputs
        self.schema = output_schema(node, below.schema)
        placed = _Placed(below, node)
        *_, hashed, place = placed.schema.names
        self._read = [name for name in self.schema.names if name != ROW_NUMBER]
        self._read += [place] if node.phase == "partial" else []
        self._arrow_schema = self.schema.to_arrow()
        # The rows with the lowest hashes are a random sample; they are then put back into input
        # order.
        lowest = TopK(node, (SortKey(Column(hashed)),), node.count)
        again = Sort(node, (SortKey(Column(place)),))
        self._rows = SortRows(again, [SortRows(lowest, [placed], run)], run)

    def batches(self) -> Generator[Any]:
        """Yield the rows."""
        with closing(self._rows.batches()) as batches:
            for batch in batches:
                columns = [batch.column(name) for name in self._read]
                del batch
                yield pa.RecordBatch.from_arrays(columns, schema=self._arrow_schema)
                del columns


class _Placed:
    """The input's rows with two more columns: the hash of the row number, and the row number.

    In the final phase the input has the numbers.
    """

    def __init__(self, below: Operator, node: Sample) -> None:
        self._below = below
        self._seed = node.seed
        self._first_row = node.first_row
        self._has_places = node.phase == "final"
        free = (name for at in range(len(below.schema) + 2) if (name := f"${at}"))
        names = [name for name in free if name not in below.schema][:2]
        fields = [*below.schema, *(Field(name, _UINT64) for name in names)]
        self.schema = Schema(tuple(fields))

    def batches(self) -> Generator[Any]:
        place, arrow_schema = self._first_row, self.schema.to_arrow()
        with closing(self._below.batches()) as batches:
            for batch in batches:
                rows = batch.num_rows
                places = (
                    batch.column(ROW_NUMBER).to_numpy()
                    if self._has_places
                    else np.arange(place, place + rows, dtype=np.uint64)
                )
                hashes = hash_places(places, self._seed)
                place += rows
                columns = [*batch.columns, pa.array(hashes), pa.array(places)]
                yield pa.RecordBatch.from_arrays(columns, schema=arrow_schema)
                del batch, columns
