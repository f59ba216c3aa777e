"""Operators that look at one batch at a time: filter, limit, and everything that maps columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from emsqrt.expr import Column, Expr
from emsqrt.expr.evaluate import Evaluator
from emsqrt.plan.check import output_schema
from emsqrt.plan.nodes import Filter, Limit, Project, Rename, WithColumn
from sennit_core.schema import Schema


class FilterRows:
    """Pass on the rows where the predicate is true."""

    done = False

    def __init__(self, node: Filter, schema: Schema) -> None:
        """Type the predicate over rows of `schema`."""
        self.schema = output_schema(node, schema)
        self._predicate = Evaluator(node.predicate, schema)

    def push(self, batch: Any) -> Iterator[Any]:
        """Give the rows of `batch` that pass, unless there are none."""
        kept = batch.filter(self._predicate(batch))
        if kept.num_rows:
            yield kept

    def finish(self) -> Iterator[Any]:
        """Give nothing."""
        return iter(())

    def close(self) -> None:
        """Nothing is held."""


class MapColumns:
    """Make each output column from one expression over the input's columns."""

    done = False

    def __init__(self, node: Project | WithColumn | Rename, schema: Schema) -> None:
        """Type every expression over rows of `schema`."""
        self.schema = output_schema(node, schema)
        self._columns = [Evaluator(expr, schema) for expr in _outputs(node, schema)]
        self._arrow_schema = self.schema.to_arrow()

    def push(self, batch: Any) -> Iterator[Any]:
        """Give one batch of as many rows."""
        arrays = [column(batch) for column in self._columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=self._arrow_schema)

    def finish(self) -> Iterator[Any]:
        """Give nothing."""
        return iter(())

    def close(self) -> None:
        """Nothing is held."""


def _outputs(node: Project | WithColumn | Rename, schema: Schema) -> list[Expr]:
    """Return the expression of each output column, in the order of the output's schema."""
    match node:
        case Project(columns=columns):
            return [expr for _, expr in columns]
        case WithColumn(columns=columns):
            added = dict(columns)
            kept = [added.pop(name, Column(name)) for name in schema.names]
            return [*kept, *added.values()]
        case Rename():
            return [Column(name) for name in schema.names]


class LimitRows:
    """Skip some rows, pass on some rows, and be done."""

    def __init__(self, node: Limit, schema: Schema) -> None:
        """Count from the node's offset and count."""
        self.schema = output_schema(node, schema)
        self._skip = node.offset
        self._left = node.count

    @property
    def done(self) -> bool:
        """Whether all rows that were asked for have passed."""
        return self._left == 0

    def push(self, batch: Any) -> Iterator[Any]:
        """Give the part of `batch` that lies within the limit."""
        skipped = min(self._skip, batch.num_rows)
        self._skip -= skipped
        passed = batch.slice(skipped, self._left)
        self._left -= passed.num_rows
        if passed.num_rows:
            yield passed

    def finish(self) -> Iterator[Any]:
        """Give nothing."""
        return iter(())

    def close(self) -> None:
        """Nothing is held."""
