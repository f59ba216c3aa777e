"""Group and aggregate in memory, under the budget.

Each batch becomes a small table of keys and states. Tables gather until they hold as many rows as
the state does, then all are merged into one: every row is merged a logarithmic number of times, and
a partial phase's output is just such a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.expr.evaluate import Evaluator
from emsqrt.floats import STATE_BYTES
from emsqrt.memory import MemoryBudget
from emsqrt.operators.grouping import group_rows, plain_floats
from emsqrt.operators.states import finish, make_part, merge_part
from emsqrt.plan.check import aggregate_schema, partial_schema
from emsqrt.plan.nodes import Aggregate
from emsqrt.plan.states import find_states, state_fields
from sennit_core.schema import Schema

SLICE_ROWS = 32_768
"""Rows worked on at once; bounds the temporary arrays."""
MERGE_ROWS = 65_536
"""Rows of gathered tables below which a merge does not pay."""
OUTPUT_ROWS = 65_536
ROW_WORK_BYTES = 160
"""Temporary arrays for each row in hand: group, codes, slices of floats, masks."""
MERGE_WORK_BYTES = 96
"""Temporary arrays for each row of the tables in a merge."""
KEY_BYTES = 32
"""What a key is taken to need before a table shows it."""


class AggregateRows:
    """Carries out an `Aggregate` node; rows come out sorted by the keys, NULL last."""

    done = False

    def __init__(self, node: Aggregate, schema: Schema, budget: MemoryBudget) -> None:
        """Type keys and arguments over rows of `schema` (phase final: over states)."""
        self.schema = aggregate_schema(node, schema)
        self._node = node
        self._keys: list[Evaluator] = []
        self._args: list[Evaluator | None] = []
        if node.phase == "final":
            fields = [find_states(name, agg, schema) for name, agg in node.aggs]
            states = [field.name for each in fields for field in each]
            self._table_schema = schema.select([*(name for name, _ in node.keys), *states])
        else:
            self._keys = [Evaluator(expr, schema) for _, expr in node.keys]
            self._args = [
                None if agg.arg is None else Evaluator(agg.arg, schema) for _, agg in node.aggs
            ]
            fields = [
                state_fields(name, agg, None if arg is None else arg.type)
                for (name, agg), arg in zip(node.aggs, self._args, strict=True)
            ]
            self._table_schema = partial_schema(node, schema)
        self._parts = [[field.name.rpartition("$")[2] for field in each] for each in fields]
        self._arrow_schema = self._table_schema.to_arrow()
        self._tables: list[Any] = []
        self._merged_rows = 0
        self._guard = budget.acquire(0, "aggregate")

    def push(self, batch: Any) -> Iterator[Any]:
        """Take one batch; nothing comes out before `finish`.

        Raises:
            MemoryCapExceeded: the groups do not fit in the budget.
            ValueOutOfRange: a row's value has no result.
        """
        for start in range(0, batch.num_rows, SLICE_ROWS):
            self._add(batch.slice(start, SLICE_ROWS))
        return iter(())

    def finish(self) -> Iterator[Any]:
        """Give the groups, sorted by their keys."""
        self._merge()
        (table,) = self._tables
        self._reserve(table.nbytes + table.num_rows * MERGE_WORK_BYTES)
        result = self._result(self._sorted(table))
        for start in range(0, result.num_rows, OUTPUT_ROWS):
            yield result.slice(start, OUTPUT_ROWS)
        self.close()

    def close(self) -> None:
        """Forget the groups and give their memory back."""
        self._tables = []
        self._guard.release()

    # Rows to tables -------------------------------------------------------------------------
    def _add(self, batch: Any) -> None:
        self._reserve(batch.num_rows * ROW_WORK_BYTES)
        if self._node.phase == "final":
            self._tables.append(self._read_states(batch))
        else:
            self._tables.append(self._group(batch))
        if self._held_rows() - self._merged_rows >= max(MERGE_ROWS, self._merged_rows):
            self._merge()
        self._reserve(0)

    def _group(self, batch: Any) -> Any:
        keys = [plain_floats(key(batch)) for key in self._keys]
        groups, first = group_rows(keys, batch.num_rows)
        group_bytes = KEY_BYTES * len(keys) + STATE_BYTES * sum(map(len, self._parts))
        self._reserve(batch.num_rows * ROW_WORK_BYTES + len(first) * group_bytes)
        columns = [key.take(pa.array(first)) for key in keys]
        for arg, parts in zip(self._args, self._parts, strict=True):
            values = None if arg is None else arg(batch)
            columns += [make_part(part, values, groups, len(first)) for part in parts]
        return self._table(columns)

    def _read_states(self, batch: Any) -> Any:
        columns = [
            batch.column(batch.schema.get_field_index(field.name)).cast(field.type)
            for field in self._arrow_schema
        ]
        return self._table(columns)

    def _merge(self) -> None:
        """Turn all tables into one with one row for each group; no rows and no keys are one."""
        if len(self._tables) == 1 and self._node.phase != "final":
            return
        tables = [self._table(None), *self._tables]
        key_count, rows = len(self._node.keys), self._held_rows()
        self._reserve(rows * MERGE_WORK_BYTES + _column_bytes(tables, range(key_count)))
        keys = [plain_floats(_gather(tables, index)) for index in range(key_count)]
        groups, first = group_rows(keys, rows)
        merged_bytes = self._held_bytes() * len(first) // max(1, rows)
        widest = max(
            (_column_bytes(tables, [i]) for i in range(len(self._arrow_schema))), default=0
        )
        self._reserve(rows * MERGE_WORK_BYTES + merged_bytes + widest)
        columns = [key.take(pa.array(first)) for key in keys]
        for index, part in enumerate(chain.from_iterable(self._parts), key_count):
            columns.append(merge_part(part, _gather(tables, index), groups, len(first)))
        self._tables = [self._table(columns)]
        self._merged_rows = len(first)

    def _table(self, columns: list[Any] | None) -> Any:
        arrays = columns or [pa.nulls(0, field.type) for field in self._arrow_schema]
        return pa.RecordBatch.from_arrays(arrays, schema=self._arrow_schema)

    # Tables to results ----------------------------------------------------------------------
    def _sorted(self, table: Any) -> Any:
        if not self._node.keys:
            return table
        order = [(name, "ascending", "at_end") for name, _ in self._node.keys]
        return table.take(pc.sort_indices(table, sort_keys=order))

    def _result(self, table: Any) -> Any:
        if self._node.phase == "partial":
            return table
        key_count = len(self._node.keys)
        columns = [table.column(index) for index in range(key_count)]
        states = iter(range(key_count, table.num_columns))
        for index, ((_, agg), parts) in enumerate(zip(self._node.aggs, self._parts, strict=True)):
            values = {part: table.column(next(states)) for part in parts}
            columns.append(finish(agg, values, self.schema.fields[key_count + index].type))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema.to_arrow())

    # Memory ---------------------------------------------------------------------------------
    def _reserve(self, work_bytes: int) -> None:
        """Ask for what is held and for `work_bytes` more, or raise MemoryCapExceeded."""
        self._guard.resize(self._held_bytes() + work_bytes)

    def _held_bytes(self) -> int:
        return sum(table.nbytes for table in self._tables)

    def _held_rows(self) -> int:
        return sum(table.num_rows for table in self._tables)


def _gather(tables: list[Any], index: int) -> Any:
    """Return one column of all tables as one array."""
    return pa.concat_arrays([table.column(index) for table in tables])


def _column_bytes(tables: list[Any], indices: Iterable[int]) -> int:
    return sum(table.column(index).nbytes for table in tables for index in indices)
