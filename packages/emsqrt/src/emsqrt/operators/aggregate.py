"""Group and aggregate batches of any size in a share of the working set, in the kernel."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt._kernel import Columns
from emsqrt.execution_context import ExecutionContext
from emsqrt.expr.errors import ValueOutOfRange
from emsqrt.external.aggregate import (
    ExternalAggregate,
    Filled,
    aggregate_bytes_min,
    long_aggregate_bytes,
    out_bytes_min,
)
from emsqrt.external.aggregate_state import DECIMAL, OutputOp
from emsqrt.external.groups import texts_of
from emsqrt.external.layout import Layout, ListState, lay_out
from emsqrt.metering import prefetch_first
from emsqrt.operators.coded_key import coded_key, keep_key_coded
from emsqrt.operators.columns import to_columns
from emsqrt.operators.computed import compute_all
from emsqrt.operators.long_rows import ROW_COPIES, ROWS_HELD, room_for, varies
from emsqrt.operators.operator import Operator
from emsqrt.operators.resuming import rest_of
from emsqrt.plan.check import aggregate_schema
from emsqrt.plan.nodes import Aggregate
from emsqrt.plan.states import find_states, state_fields
from sennit_core.schema import DataType, Field, Schema

SLICE_ROWS = 32_768
"""Rows processed at once; bounds the temporary arrays."""
OUT_BYTES_MAX = 1 << 20
"""Memory for groups, as rows and as columns, before they become a batch."""
_OUT_SHARE = 8
_BOOL = DataType("Bool")


class AggregateRows:
    """Run an `Aggregate` node; its output is sorted by the keys, NULL last."""

    def __init__(self, node: Aggregate, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Type keys and arguments over the input's rows (phase final: over states)."""
        (self._input,) = inputs
        self._run = run
        self._node = node
        before = self._input.schema
        self.schema = aggregate_schema(node, before)
        if node.phase == "final":
            # Phase final reads states of a partial phase by their column names; the arguments are
            # gone by then.
            states = [find_states(name, agg, before) for name, agg in node.aggs]
            types = [before.field(name).type for name, _ in node.keys]
            kinds: list[DataType | None] = [None] * len(node.aggs)
            self._source: _Expressions | _States = _States(node, states, before)
        else:
            expressions = _Expressions(node, before, run)
            kinds, types, self._source = expressions.kinds, expressions.key_types, expressions
            states = [
                state_fields(name, agg, kind)
                for (name, agg), kind in zip(node.aggs, kinds, strict=True)
            ]
        aggs = [agg for _, agg in node.aggs]
        self._layout = lay_out(node.phase, types, list(zip(aggs, kinds, states, strict=True)))
        if isinstance(self._source, _Expressions):
            self._source.coded = keep_key_coded(self._input, node, self._layout, run)
        texts = texts_of(self._layout.keys, self._layout.parts)
        # What admission must know before the working set is mapped: the length of packed and output
        # rows relative to input rows, the least memory, and what long rows need elsewhere.
        self._row_bytes = run.row_bytes if varies(before) else 0
        run.expect_packed_growth(max(1, texts))
        run.expect_output_growth(texts)
        run.expect_holder(
            ROWS_HELD * (1 + len(self._layout.values)),
            max(self._bytes_min, self._bytes_for_long_rows if run.met else 0),
        )
        run.expect_rows(ROW_COPIES + 1, "free")

    def batches(self) -> Generator[Any]:
        """Yield the groups, sorted by their keys.

        Raises:
            ValueOutOfRange: an argument has no value for some row, or a sum overflows its type.
            CapTooSmall: a group's key and states are longer than the memory allows.
        """
        layout = self._layout
        with (
            prefetch_first(rest_of(self._input, self._run)) as batches,
            self._run.acquire_working_memory("aggregate") as held,
        ):
            #     | groups, values                      | out: groups as rows and as columns |
            cut = len(held.memory) - self._out_bytes(len(held.memory))
            with held.memory[:cut] as memory, held.memory[cut:] as out:
                aggregate = ExternalAggregate(
                    memory,
                    self._run.spill,
                    layout.keys,
                    layout.parts,
                    layout.outputs,
                    layout.values,
                    row_bytes=self._row_bytes,
                    check=self._run.check,
                    journal=self._run.journal(),
                )
                with self._run.working(aggregate):
                    self._gather(aggregate, batches)
                    try:
                        yield from self._results(aggregate, out)
                    except OverflowError as error:
                        self._refuse(error)

    @property
    def _bytes_min(self) -> int:
        """The minimum of working memory, with short keys."""
        layout = self._layout
        least = aggregate_bytes_min(layout.parts, layout.values, len(layout.keys))
        return least + max(self._out_bytes_min, -(-least // (_OUT_SHARE - 1)))

    @property
    def _bytes_for_long_rows(self) -> int:
        """The minimum of working memory for the longest known row."""
        layout = self._layout
        least = long_aggregate_bytes(layout.keys, layout.parts, layout.values, self._row_bytes)
        return least + max(OUT_BYTES_MAX, self._out_bytes_min)

    def _out_bytes(self, memory_bytes: int) -> int:
        """Return how much of the memory is reserved for output groups."""
        return max(min(OUT_BYTES_MAX, memory_bytes // _OUT_SHARE), self._out_bytes_min)

    @property
    def _out_bytes_min(self) -> int:
        lists = len(self._layout.lists) if self._node.phase == "partial" else 0
        columns = len(self._layout.keys) + len(self._layout.outputs)
        return (1 + lists) * out_bytes_min(columns, self._layout.parts)

    def _gather(self, aggregate: ExternalAggregate, batches: Iterator[Any]) -> None:
        for batch in batches:
            # A batch of any size is processed in slices: computed keys and arguments are arrays of
            # their length.
            for start in range(0, batch.num_rows, SLICE_ROWS):
                self._run.check()
                self._source.feed(aggregate, self._layout, batch.slice(start, SLICE_ROWS))
            del batch
        aggregate.finish()

    def _results(self, aggregate: ExternalAggregate, out: memoryview) -> Iterator[Any]:
        lists = self._layout.lists if self._node.phase == "partial" else {}
        longest, copies = aggregate.row_bytes_max, ROW_COPIES * (1 + len(lists))
        # A long group is known only now, when all groups were seen.
        with room_for(longest, out, self._run, "aggregate", copies) as room:
            yield from self._batches(aggregate, room, lists)

    def _batches(
        self, aggregate: ExternalAggregate, out: memoryview, lists: Mapping[int, ListState]
    ) -> Iterator[Any]:
        # One part of the output for the groups, one for each column of lists.
        share = len(out) // (1 + len(lists)) // 64 * 64
        key_count = len(self._layout.keys)
        cursors = {
            key_count + at: _ListCursor(
                aggregate, each, key_count, out[share * number : share * (number + 1)]
            )
            for number, (at, each) in enumerate(lists.items(), 1)
        }
        arrow_schema = self.schema.to_arrow()
        memory = out[:share]
        for rows, columns in aggregate.columns(memory):
            self._run.check()
            arrays = []
            for at, (column, field) in enumerate(zip(columns, arrow_schema, strict=True)):
                if at in cursors:
                    # The groups and each list's values are sorted by the same keys, so the lengths
                    # are enough to cut the stream of values into lists.
                    lengths = to_array(memory, rows, column, pa.int64()).to_numpy()
                    arrays.append(cursors[at].next_lists(lengths).cast(field.type))
                else:
                    arrays.append(to_array(memory, rows, column, field.type))
            yield pa.RecordBatch.from_arrays(arrays, schema=arrow_schema)

    def _refuse(self, error: OverflowError) -> NoReturn:
        """Raise an error that names the overflowing sum."""
        output = self._layout.outputs[error.args[0]]
        if output.op is not OutputOp.INTEGER or output.kind == DECIMAL:
            raise ValueOutOfRange("sum", "a sum of decimals has more than 38 digits") from None
        agg = self._node.aggs[error.args[0]][1]
        field = self.schema.fields[len(self._layout.keys) + error.args[0]]
        raise ValueOutOfRange(
            str(agg),
            f"the sum is out of range for {field.type}",
            hint=f'sum a cast: {agg.arg!s}.cast("Decimal(38,0)")',
        ) from None


class _Expressions:
    """Keys and arguments in the phases that read rows."""

    def __init__(self, node: Aggregate, schema: Schema, run: ExecutionContext) -> None:
        keys = [expr for _, expr in node.keys]
        args = [agg.arg for _, agg in node.aggs]
        exprs = [*keys, *(arg for arg in args if arg is not None)]
        made = iter(compute_all(exprs, schema, run))
        self._keys = [next(made) for _ in keys]
        self._args = [None if arg is None else next(made) for arg in args]
        self.key_types = [key.type for key in self._keys]
        self.kinds = [None if arg is None else arg.type for arg in self._args]
        self.coded: str | None = None
        """The only key, if batches have it as a dictionary array."""

    def feed(self, aggregate: ExternalAggregate, layout: Layout, batch: Any) -> None:
        """Add a batch of rows."""
        used = [arg for arg in (self._args[at] for at, _ in layout.arguments) if arg is not None]
        key = None if self.coded is None else coded_key(batch.column(self.coded))
        columns = used if key is not None else [*self._keys, *used]
        fields = [Field(f"c{at}", each.type) for at, each in enumerate(columns)]
        # Equal expressions are one object (`compute_all`), and are computed once per batch.
        made = {each: each(batch) for each in dict.fromkeys(columns)}
        arrays = [made[each] for each in columns]
        added = to_columns(arrays, fields, batch.num_rows)
        if key is None:
            aggregate.add(added)
        else:
            aggregate.add_coded(*key, added)


class _States:
    """Keys and state columns in phase final."""

    def __init__(
        self, node: Aggregate, states: Sequence[tuple[Field, ...]], schema: Schema
    ) -> None:
        self._keys = [schema.field(name) for name, _ in node.keys]
        self._states = states

    def feed(self, aggregate: ExternalAggregate, layout: Layout, batch: Any) -> None:
        """Add a batch of states; the values of lists are added to the sort that orders them."""
        rows = batch.num_rows
        keys = [batch.column(batch.schema.get_field_index(field.name)) for field in self._keys]
        fields, arrays = list(self._keys), list(keys)
        lists: list[tuple[int, ListState, Any]] = []
        for at, (agg, index) in enumerate(layout.arguments):
            field = self._states[agg][index]
            array = batch.column(batch.schema.get_field_index(field.name))
            if at in layout.lists:
                lists.append((len(keys) + at, layout.lists[at], array))
                # A placeholder: the list's column keeps its place in the batch, and its values are
                # added below.
                field, array = Field(field.name, _BOOL), pa.nulls(rows, pa.bool_())
            fields.append(field)
            arrays.append(array)
        aggregate.add_groups(to_columns(arrays, fields, rows))
        for column, each, array in lists:
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
            parents = pa.array(np.repeat(np.arange(rows), lengths))
            exploded = self._exploded(keys, parents, array.flatten(), each.item, column)
            aggregate.add_values(each.values, exploded)

    def _exploded(
        self, keys: Sequence[Any], parents: Any, items: Any, item: DataType, column: int
    ) -> Columns:
        """Return a row for each value: keys, and the value as the column that the sort expects."""
        # The sort of values reads its argument at a fixed place in the batch; the columns before it
        # are not read, so the values fill them too, without a copy.
        padding = column + 1 - len(keys)
        fields = [*self._keys, *(Field("value", item) for _ in range(padding))]
        arrays = [*(key.take(parents) for key in keys), *(items for _ in range(padding))]
        return to_columns(arrays, fields, len(parents))


class _ListCursor:
    """Walk the sorted values in step with the groups that they belong to."""

    def __init__(
        self, aggregate: ExternalAggregate, state: ListState, key_count: int, out: memoryview
    ) -> None:
        self._pieces = _pieces(aggregate, state, key_count, out)
        self._left = pa.nulls(0, state.item.to_arrow())

    def next_lists(self, lengths: Any) -> Any:
        """Return one list for each group, with these lengths."""
        wanted, parts = int(lengths.sum()), [self._left.slice(0, 0)]
        while wanted:
            if not len(self._left):
                self._left = next(self._pieces)
            parts.append(self._left.slice(0, wanted))
            wanted -= len(parts[-1])
            self._left = self._left.slice(len(parts[-1]))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.concat_arrays(parts))


def _pieces(
    aggregate: ExternalAggregate, state: ListState, key_count: int, out: memoryview
) -> Iterator[Any]:
    """Yield all groups' values in pieces. No method, whose cycle would keep `out` alive."""
    kind = state.item.to_arrow()
    for rows, columns in aggregate.values(state.values, out):
        values = to_array(out, rows, columns[key_count], kind)
        if state.repeated:
            counts = to_array(out, rows, columns[key_count + 1], pa.int64())
            values = values.take(pa.array(np.repeat(np.arange(rows), counts.to_numpy())))
        yield values.drop_null()


def to_array(memory: memoryview, rows: int, column: Filled, kind: Any) -> Any:
    """Copy one column out of kernel memory.

    Args:
        memory: the kernel's output.
        rows: the number of values.
        column: the column's offsets in it.
        kind: its Arrow type.
    """
    _, nulls, validity, values, ends = column
    spans = [validity if nulls else None, *([] if ends is None else [ends]), values]
    # A copy: the kernel's output is overwritten by the next batch.
    buffers = [
        None if span is None else pa.py_buffer(bytes(memory[span[0] : span[1]])) for span in spans
    ]
    return pa.Array.from_buffers(kind, rows, buffers, nulls)
