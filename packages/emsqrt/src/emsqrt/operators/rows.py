"""Operators on one batch at a time: filter, limit, and everything that maps columns."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from emsqrt.execution_context import ExecutionContext
from emsqrt.expr import Column, Expr, columns_of
from emsqrt.io.parquet_coded import Dictionary
from emsqrt.operators.computed import Computed, ProgramStack, compute_all
from emsqrt.operators.operator import Operator
from emsqrt.plan.check import output_schema
from emsqrt.plan.nodes import Filter, Limit, Project, Rename, WithColumn
from sennit_core.schema import Schema


class FilterRows:
    """Pass on the rows for which the predicate is true."""

    def __init__(self, node: Filter, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Type the predicate over the input's rows."""
        (self._input,) = inputs
        self.passes_on = self._input
        self._run = run
        self.schema = output_schema(node, self._input.schema)
        self._predicate = Computed(node.predicate, self._input.schema, ProgramStack(run))
        self._compared = columns_of(node.predicate)

    def codable(self) -> dict[str, Dictionary]:
        """Return the input's columns that may be dictionary arrays: those that it only passes on."""
        below = getattr(self._input, "passes_on", self._input)
        if not hasattr(below, "codable"):
            return {}
        found: dict[str, Dictionary] = below.codable()
        return {name: each for name, each in found.items() if name not in self._compared}

    def keep_coded(self, names: Collection[str]) -> None:
        """Yield these columns, which must be codable, as dictionary arrays."""
        below: Any = getattr(self._input, "passes_on", self._input)
        below.keep_coded(names)

    def batches(self) -> Generator[Any]:
        """Yield the rows that pass; no empty batches."""
        with closing(self._input.batches()) as batches:
            for batch in batches:
                self._run.check()
                mask = self._predicate(batch)
                # No copy where every row passes.
                kept = batch if mask.true_count == batch.num_rows else batch.filter(mask)
                # Batches are released before the consumer works: it may need their memory.
                del batch, mask
                if kept.num_rows:
                    yield kept


class MapColumns:
    """Compute each output column by one expression over the input's columns."""

    def __init__(
        self, node: Project | WithColumn | Rename, inputs: Sequence[Operator], run: ExecutionContext
    ) -> None:
        """Type every expression over the input's rows."""
        (self._input,) = inputs
        self.passes_on = self._input
        self._run = run
        schema = self._input.schema
        self.schema = output_schema(node, schema)
        self._columns = compute_all(_outputs(node, schema), schema, run)
        self._arrow_schema = self.schema.to_arrow()

    def batches(self) -> Generator[Any]:
        """Yield one batch of equally many rows for each batch of the input."""
        with closing(self._input.batches()) as batches:
            for batch in batches:
                self._run.check()
                arrays = [column(batch) for column in self._columns]
                del batch
                yield pa.RecordBatch.from_arrays(arrays, schema=self._arrow_schema)


def _outputs(node: Project | WithColumn | Rename, schema: Schema) -> list[Expr]:
    """Return the expression of each output column, in the order of the output's schema."""
    match node:
        case Project(columns=columns):
            return [expr for _, expr in columns]
        case WithColumn(columns=columns):
            added = dict(columns)
            # A column of the same name is replaced where it is; new ones follow.
            kept = [added.pop(name, Column(name)) for name in schema.names]
            return [*kept, *added.values()]
        case Rename():
            return [Column(name) for name in schema.names]


class LimitRows:
    """Skip some rows, pass on some rows, then stop pulling."""

    def __init__(self, node: Limit, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Count from the node's offset and count."""
        del run
        (self._input,) = inputs
        self.schema = output_schema(node, self._input.schema)
        self._node = node

    def batches(self) -> Generator[Any]:
        """Yield the rows within the limit."""
        skip, left = self._node.offset, self._node.count
        if not left:
            return
        with closing(self._input.batches()) as batches:
            for batch in batches:
                skipped = min(skip, batch.num_rows)
                skip -= skipped
                passed = batch.slice(skipped, left)
                left -= passed.num_rows
                del batch
                if passed.num_rows:
                    yield passed
                if not left:
                    return
