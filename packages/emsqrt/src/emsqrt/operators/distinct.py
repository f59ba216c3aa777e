"""Distinct rows, sorted: an aggregate whose keys are the compared columns."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa

from emsqrt.execution_context import ExecutionContext
from emsqrt.external.aggregate import ExternalAggregate, aggregate_bytes_min, out_bytes_min
from emsqrt.external.aggregate_state import AggregateState, KeyColumn, Output, OutputOp, StateOp
from emsqrt.external.groups import long_groups_bytes
from emsqrt.external.layout import check_keys, kind_of
from emsqrt.metering import prefetch_first
from emsqrt.operators.aggregate import OUT_BYTES_MAX, to_array
from emsqrt.operators.columns import to_columns
from emsqrt.operators.long_rows import ROW_COPIES, ROWS_HELD, room_for, varies
from emsqrt.operators.operator import Operator
from emsqrt.operators.resuming import rest_of
from emsqrt.plan.nodes import Distinct

_KEEPS_NULL = 1


class DistinctRows:
    """One row of each key, the first of the input, sorted by the key columns, NULL last."""

    def __init__(self, node: Distinct, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Find the compared columns: the named ones, or all."""
        (self._input,) = inputs
        self._run = run
        self.schema = self._input.schema
        check_keys(len(self.schema), "compare rows by")
        kinds = [kind_of(field.type, "distinct rows of") for field in self.schema]
        names = self.schema.names
        chosen = (
            names if node.columns is None else [self.schema.field(n).name for n in node.columns]
        )
        self._keys = [KeyColumn(names.index(name), kinds[names.index(name)]) for name in chosen]
        others = [at for at, name in enumerate(names) if name not in chosen]
        # The columns that are not compared are those of the first row of each key, NULL included.
        self._parts = [AggregateState(StateOp.FIRST, at, kinds[at], _KEEPS_NULL) for at in others]
        self._outputs = [
            Output(OutputOp.STATE, index, part.kind) for index, part in enumerate(self._parts)
        ]
        # The aggregate returns keys first; the output has the columns of the input, in order.
        self._order = [*(key.column for key in self._keys), *others]
        self._out_bytes_min = out_bytes_min(len(names), self._parts)
        least = aggregate_bytes_min(self._parts, keys=len(self._keys))
        # An eighth of all memory is for the output: a seventh of the rest.
        least += max(self._out_bytes_min, least // 7)
        if run.met and varies(self.schema):
            long_bytes = long_groups_bytes(self._keys, self._parts, run.row_bytes)
            least = max(least, long_bytes + max(self._out_bytes_min, OUT_BYTES_MAX))
        run.expect_holder(ROWS_HELD, least)
        run.expect_rows(ROW_COPIES + 1, "free")

    def batches(self) -> Generator[Any]:
        """Yield the rows."""
        with (
            prefetch_first(rest_of(self._input, self._run)) as batches,
            self._run.acquire_working_memory("distinct") as held,
        ):
            out_bytes = max(min(OUT_BYTES_MAX, len(held.memory) // 8), self._out_bytes_min)
            cut = len(held.memory) - out_bytes
            with held.memory[:cut] as memory, held.memory[cut:] as out:
                aggregate = ExternalAggregate(
                    memory,
                    self._run.spill,
                    self._keys,
                    self._parts,
                    self._outputs,
                    name="distinct",
                    check=self._run.check,
                    journal=self._run.journal(),
                )
                with self._run.working(aggregate):
                    self._gather(aggregate, batches)
                    yield from self._results(aggregate, out)

    def _gather(self, aggregate: ExternalAggregate, batches: Iterator[Any]) -> None:
        for batch in batches:
            self._run.check()
            aggregate.add(to_columns(batch.columns, self.schema.fields, batch.num_rows))
            del batch
        aggregate.finish()

    def _results(self, aggregate: ExternalAggregate, out: memoryview) -> Generator[Any]:
        arrow_schema = self.schema.to_arrow()
        places = [self._order.index(at) for at in range(len(self._order))]
        longest = aggregate.row_bytes_max
        with room_for(longest, out, self._run, "distinct", ROW_COPIES) as room:
            for rows, columns in aggregate.columns(room):
                self._run.check()
                arrays = [
                    to_array(room, rows, columns[place], field.type)
                    for place, field in zip(places, arrow_schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=arrow_schema)
