"""Check expectations on rows that pass through; fail the run at their end if violated."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.errors import ExpectationFailed
from emsqrt.execution_context import ExecutionContext
from emsqrt.external.aggregate import ExternalAggregate
from emsqrt.external.aggregate_state import (
    I64,
    AggregateState,
    KeyColumn,
    Output,
    OutputOp,
    StateOp,
)
from emsqrt.external.layout import kind_of
from emsqrt.metering import prefetch_first
from emsqrt.operators.aggregate import to_array
from emsqrt.operators.columns import to_columns
from emsqrt.operators.long_rows import ROWS_HELD
from emsqrt.operators.operator import Operator
from emsqrt.plan.expectations import rows_hold
from emsqrt.plan.nodes import Expect

_OUT_SHARE = 8


class ExpectRows:
    """Passes rows on, and checks them."""

    def __init__(self, node: Expect, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Find the checked columns."""
        (self._input,) = inputs
        self._run = run
        self._node = node
        self.schema = self._input.schema
        self._unique = [self.schema.field(name) for name in node.unique]
        self._kinds = [kind_of(field.type, "unique") for field in self._unique]
        if self._unique:
            run.expect_holder(rows=ROWS_HELD)

    def batches(self) -> Generator[Any]:
        """Yield the rows; a violation is raised after the last one, before the sink finishes.

        Raises:
            ExpectationFailed: a forbidden NULL, a duplicate row, or an unexpected number of rows.
        """
        rows = 0
        with ExitStack() as stack:
            batches = stack.enter_context(prefetch_first(self._input.batches()))
            # Memory only once the first row is there, when the operators below have gathered
            # theirs.
            seen = self._open(stack) if self._unique else None
            for batch in batches:
                self._check_nulls(batch, rows)
                rows += batch.num_rows
                if seen is not None:
                    arrays = [batch.column(each.name) for each in self._unique]
                    seen[0].add(to_columns(arrays, self._unique, batch.num_rows))
                yield batch
                del batch
            # After the last row, and still inside the operator: the sink has not finished, so
            # nothing is visible.
            if self._node.rows is not None and not rows_hold(self._node.rows, rows):
                raise ExpectationFailed(f"rows {self._node.rows}", f"{rows} rows")
            if seen is not None:
                self._check_unique(*seen)

    def _open(self, stack: ExitStack) -> tuple[ExternalAggregate, memoryview]:
        held = stack.enter_context(self._run.acquire_working_memory("expect"))
        cut = len(held.memory) - len(held.memory) // _OUT_SHARE
        memory = stack.enter_context(held.memory[:cut])
        out = stack.enter_context(held.memory[cut:])
        seen = ExternalAggregate(
            memory,
            self._run.spill,
            [KeyColumn(at, kind) for at, kind in enumerate(self._kinds)],
            [AggregateState(StateOp.COUNT_ROWS, -1, I64)],
            [Output(OutputOp.STATE, 0, I64)],
            name="expect",
            check=self._run.check,
        )
        stack.enter_context(self._run.working(seen))
        return seen, out

    def _check_nulls(self, batch: Any, before: int) -> None:
        for name in self._node.not_null:
            column = batch.column(name)
            if column.null_count:
                row = before + pc.index(pc.is_null(column), True).as_py() + 1
                raise ExpectationFailed(f"not_null({name})", f"NULL in row {row}")

    def _check_unique(self, seen: ExternalAggregate, out: memoryview) -> None:
        seen.finish()
        counts = len(self._unique)
        for rows, columns in seen.columns(out):
            self._run.check()
            times = to_array(out, rows, columns[counts], pa.int64()).to_numpy()
            if (times > 1).any():
                # The least key that occurs twice, as groups are sorted: the same one in every run.
                at = int((times > 1).argmax())
                values = [
                    to_array(out, rows, column, each.type.to_arrow())[at].as_py()
                    for column, each in zip(columns[:counts], self._unique, strict=True)
                ]
                names = ", ".join(each.name for each in self._unique)
                text = ", ".join(map(repr, values))
                raise ExpectationFailed(f"unique({names})", f"({text}) {times[at]} times")
