"""Windows: sort rows, then let functions read their neighbours through cursors on a buffer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from emsqrt.execution_context import ExecutionContext
from emsqrt.expr import Column, Expr, SortKey
from emsqrt.expr.evaluate import Evaluator
from emsqrt.external.layout import kind_of
from emsqrt.external.sort import ExternalSort, sort_bytes
from emsqrt.external.window_buffer import SLOTS_MIN, WindowBlock, WindowBuffer
from emsqrt.long_row import LongRow
from emsqrt.metering import prefetch_first
from emsqrt.operators.join_side import fixed_row_bytes
from emsqrt.operators.long_rows import varies
from emsqrt.operators.nested import carried_kinds, carried_type, restored, to_columns
from emsqrt.operators.operator import Operator
from emsqrt.operators.resuming import rest_of
from emsqrt.operators.sort_layout import SortColumns
from emsqrt.operators.window_frames import Ahead, FrameBounds, Places
from emsqrt.operators.window_functions import (
    Argument,
    Chunks,
    Counted,
    FirstLast,
    Function,
    LagLead,
    MinMax,
    Piece,
    Queue,
    Ranking,
    Summed,
)
from emsqrt.operators.window_values import PickedRows, PieceTooLarge, copied
from emsqrt.plan.check import window_schema
from emsqrt.plan.window import RANKING, SHIFTING, Frame, Window, WindowCall, shifted_default
from sennit_core.schema import Field, Schema

BLOCK_BYTES_MAX = 1 << 18
"""Size of sorted rows that become one block of the buffer, unless a row is longer."""
SLOTS_MAX = 256
"""Blocks of the buffer in memory, few enough to need little Python per block."""
_BUFFER_SHARE, _LARGE_BUFFER_SHARE = 3, 8
_BUFFER_BYTES = 64 << 20
_PACKED_MIN = 4 << 10
_BLOCKS_SHARE = 10  # of the buffer: its slots and the packed rows that fill them
_QUEUE_SHARE = 8
_COLUMN_BYTES = 256  # of a block: what a column needs apart from its values
_ALIGN = 64


class WindowRows:
    """Rows with a column for each window function, sorted by partition, order and row number.

    The rows go through an external sort and then through a buffer that spills
    (`emsqrt.external.window_buffer`), so neither a partition nor its peers nor a frame must fit in
    memory; only the candidates for the min or max of a sliding frame must.
    """

    def __init__(self, node: Window, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Type keys and arguments over the input's rows."""
        (self._input,) = inputs
        self._run = run
        self._node = node
        before = self._input.schema
        self.schema = window_schema(node, before)
        partition = [SortKey(expr) for expr in node.partition_by]
        self._keys = SortColumns([*partition, *node.order_by], before)
        self._partition = bytes(
            kind_of(field.type, "partitioning") for field in self._keys.fields[: len(partition)]
        )
        self._carried = _Carried(before)
        self._arguments = [
            None if call.arg is None else self._carried.add(call.arg) for _, call in node.functions
        ]
        self._key: tuple[SortKey, int, int] | None = None
        # RANGE with a distance needs one order key, whose values are carried with the rows to be
        # compared.
        if len(node.order_by) == 1:
            (order,) = node.order_by
            if any(_by_value(call) for _, call in node.functions):
                found = self._carried.add(order.expr)
                self._key = order, found.column, found.kind
        rows = _BUFFER_SHARE * (1 + 5 * SLOTS_MIN // 4)
        kinds = self._carried.kinds
        least = _bytes_min(fixed_row_bytes(kinds, len(self._keys.fields)), len(kinds))
        columns = [*self._carried.fields[len(before) :], *self._keys.fields]
        longer = 1 + sum(varies(Schema((field,))) for field in columns)
        self._buffer_bytes = 0
        if run.met and varies(before):
            row_bytes = longer * run.row_bytes
            self._buffer_bytes = _buffer_bytes(row_bytes, len(kinds))
            parts = self._buffer_bytes + sort_bytes(row_bytes) + BLOCK_BYTES_MAX
            least = max(least, parts * _QUEUE_SHARE // (_QUEUE_SHARE - 1))
        run.expect_packed_growth(longer)
        run.expect_output_growth(
            1 + sum(varies(Schema((field,))) for field in self.schema.fields[len(before) :])
        )
        run.expect_holder(rows, least)

    def batches(self) -> Generator[Any]:
        """Yield the rows.

        Raises:
            ValueOutOfRange: an argument has no value for some row, or a sum overflows its type.
            CapTooSmall: a row is too long for the memory, or a sliding frame has too many
                candidates for its min or max.
        """
        with (
            prefetch_first(rest_of(self._input, self._run)) as batches,
            self._run.acquire_working_memory("window") as held,
        ):
            buffer_bytes, queue_bytes = self._shares(len(held.memory))
            cut = buffer_bytes + queue_bytes
            with (
                held.memory[:buffer_bytes] as buffer_memory,
                held.memory[buffer_bytes:cut] as queues,
                held.memory[cut:] as memory,
            ):
                sorter = ExternalSort(
                    memory,
                    self._run.spill,
                    self._keys.spec(len(self._carried.fields)),
                    tuple(range(len(self._carried.fields))),
                    name="window",
                    check=self._run.check,
                    journal=self._run.journal(),
                )
                with self._run.working(sorter):
                    self._gather(sorter, batches)
                    yield from self._windows(sorter, buffer_memory, queues)

    def _shares(self, memory_bytes: int) -> tuple[int, int]:
        """Return how much memory is for the buffer, and for the candidates of min and max."""
        buffer = min(
            memory_bytes // _BUFFER_SHARE, max(_BUFFER_BYTES, memory_bytes // _LARGE_BUFFER_SHARE)
        )
        buffer = max(buffer, self._buffer_bytes)
        queue = memory_bytes // _QUEUE_SHARE if self._extremes else 0
        return buffer // _ALIGN * _ALIGN, queue // _ALIGN * _ALIGN

    @property
    def _extremes(self) -> int:
        return sum(call.fn in ("min", "max") for _, call in self._node.functions)

    def _gather(self, sorter: ExternalSort, batches: Iterator[Any]) -> None:
        fields = [*self._carried.fields, *self._keys.fields]
        for batch in batches:
            self._run.check()
            arrays = [*self._carried(batch), *self._keys(batch)]
            sorter.add(to_columns(arrays, fields, batch.num_rows))
            del batch, arrays
        sorter.finish()

    def _windows(
        self, sorter: ExternalSort, memory: memoryview, queues: memoryview
    ) -> Generator[Any]:
        kinds = self._carried.kinds
        block_bytes, slot_bytes = _measure(len(memory), sorter.stats.row_bytes_max, len(kinds))
        #     | slot 0 | slot 1 | … | packed rows of the next block |
        cut = len(memory) // slot_bytes * slot_bytes
        while len(memory) - cut < block_bytes:
            cut -= slot_bytes
        cut = min(cut, SLOTS_MAX * slot_bytes)
        with memory[:cut] as slots, memory[cut:] as out:
            buffer = WindowBuffer(
                slots,
                slot_bytes,
                self._run.spill,
                sorter.blocks(out[:block_bytes]),
                out,
                kinds,
                self._partition,
                self._run.check,
            )
            with closing(buffer):
                walk = _Walk(buffer, self._open(buffer, queues))
                yield from walk.batches(self._run, self.schema, slot_bytes)

    def _open(self, buffer: WindowBuffer, queues: memoryview) -> _Functions:
        """Return the functions, and the frames that they share."""
        opened = _Functions()
        results = self.schema.fields[-len(self._node.functions) :]
        share = len(queues) // max(self._extremes, 1) // _ALIGN * _ALIGN
        for (_, call), argument, field in zip(
            self._node.functions, self._arguments, results, strict=True
        ):
            if call.fn in RANKING:
                opened.add(Ranking(call))
                continue
            bounds = opened.frame(call.frame_in(self._node.order_by), buffer, self._key)
            if argument is None:
                opened.add(Counted(bounds))
            elif call.fn in ("count", "sum", "avg"):
                opened.add(Summed(call, argument, field.type, bounds, buffer))
            else:
                picked = opened.pick(buffer, argument)
                if call.fn in SHIFTING:
                    opened.add(LagLead(call, argument, picked, shifted_default(call, field.type)))
                elif call.fn in ("first_value", "last_value"):
                    opened.add(FirstLast(call, bounds, picked))
                else:
                    queue, queues = queues[:share], queues[share:]
                    opened.add(
                        MinMax(
                            call,
                            argument,
                            bounds,
                            Chunks(buffer, argument),
                            picked,
                            Queue(queue, _QUEUE_SHARE * self._extremes),
                        )
                    )
        return opened


class _Functions:
    """A window's functions, and the state that they share."""

    def __init__(self) -> None:
        self.all: list[Function] = []
        self.frames: dict[Frame, FrameBounds] = {}
        self.picked: list[PickedRows] = []

    def add(self, function: Function) -> None:
        """Add one."""
        self.all.append(function)

    def frame(
        self, frame: Frame, buffer: WindowBuffer, key: tuple[SortKey, int, int] | None
    ) -> FrameBounds:
        """Return the bounds of a frame."""
        if frame not in self.frames:
            self.frames[frame] = FrameBounds(frame, buffer, key)
        return self.frames[frame]

    def pick(self, buffer: WindowBuffer, argument: Argument) -> PickedRows:
        """Return the picker of an argument's rows, shared by functions."""
        self.picked.append(PickedRows(buffer, argument.column, argument.type))
        return self.picked[-1]

    def pass_block(self, places: Places, block: WindowBlock) -> None:
        """Release rows that only this block, or an earlier one, needs."""
        for function in self.all:
            function.pass_block(places, block)
        for frame in self.frames.values():
            frame.pass_block(places, block)


class _Carried:
    """The columns of a packed row: the input's, then arguments that are not among them."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.fields = list(schema)
        self._more: list[Evaluator] = []
        self._places: dict[str, int] = {}

    @property
    def kinds(self) -> list[int]:
        """The kernel's kinds of the columns."""
        return carried_kinds(Schema(tuple(self.fields)))

    def add(self, expr: Expr) -> Argument:
        """Return the column of an argument, adding one if it is not carried yet."""
        if isinstance(expr, Column) and expr.name in self._schema:
            place = self._schema.names.index(expr.name)
        elif (known := self._places.get(str(expr))) is not None:
            place = known
        else:
            place = len(self.fields)
            evaluator = Evaluator(expr, self._schema)
            used = {field.name for field in self.fields}
            name = next(f"${at}" for at in range(place + 1) if f"${at}" not in used)
            self._places[str(expr)] = place
            self._more.append(evaluator)
            self.fields.append(Field(name, evaluator.type))
        of = carried_type(self.fields[place].type)
        scale = of.scale if of.name == "Decimal" else 0
        return Argument(place, kind_of(of, "windowing"), of.to_arrow(), scale or 0)

    def __call__(self, batch: Any) -> list[Any]:
        """Return the columns' arrays for a batch."""
        return [*batch.columns, *(evaluator(batch) for evaluator in self._more)]


class _Walk:
    """Moves all functions along the buffer, block by block."""

    def __init__(self, buffer: WindowBuffer, functions: _Functions) -> None:
        self._buffer = buffer
        self._functions = functions
        self._now = buffer.cursor()
        self._ahead = Ahead(buffer)
        self._rows_max = 1 << 20  # rows tried at once; adapts to what fitted

    def batches(self, run: ExecutionContext, schema: Schema, bytes_max: int) -> Generator[Any]:
        """Yield the rows with their results, in batches with at most `bytes_max` per result."""
        arrow_schema = schema.to_arrow()
        carried = [carried_type(field.type).to_arrow() for field in schema]
        count = len(carried) - len(self._functions.all)
        places: Places | None = None
        while True:
            run.check()
            block = self._now.block_of(0 if places is None else places.end)
            if block is None:
                return
            # The block's arrays are views of its slot until its batches are made.
            self._now.pinned = True
            places = Places(block, places, self._ahead)
            pieces = [function(places, block) for function in self._functions.all]
            carried_columns = [copied(block, at, carried[at]) for at in range(count)]
            start = 0
            while start < block.rows:
                results = self._results(pieces, start, block.rows, bytes_max)
                rows = len(results[0])
                packed = [*(column.slice(start, rows) for column in carried_columns), *results]
                start += rows
                columns = restored(packed, schema)
                yield pa.RecordBatch.from_arrays(columns, schema=arrow_schema)
            self._now.pinned = False
            # Each cursor names the first row that it will need; blocks before all of them are
            # dropped.
            self._functions.pass_block(places, block)
            self._ahead.pass_block(block)
            self._now.need_from(block.end, block)
            self._buffer.drop_passed()

    def _results(self, pieces: list[Piece], start: int, stop: int, bytes_max: int) -> list[Any]:
        """Return the results of as many rows as fit."""
        stop = min(stop, start + self._rows_max)
        while True:
            # Picking moves cursors forward. If the rows do not fit, all go back and half as many
            # are tried.
            marks = [picked.mark() for picked in self._functions.picked]
            try:
                results = [piece(start, stop, bytes_max) for piece in pieces]
                # Grows again after a success, so that one stretch of long texts does not make all
                # batches small.
                self._rows_max = 2 * (stop - start) + 1024
                return results
            except PieceTooLarge:
                for back in marks:
                    back()
                stop = start + (stop - start) // 2


def _by_value(call: WindowCall) -> bool:
    frame = call.frame
    return frame is not None and frame.unit == "range" and bool(frame.start or frame.end)


def _bytes_min(row_bytes: int, columns: int) -> int:
    """Return the minimum of working memory, with short texts."""
    buffer = _buffer_bytes(row_bytes, columns)
    return buffer * (_BUFFER_SHARE if buffer <= _BUFFER_BYTES else _LARGE_BUFFER_SHARE)


def _buffer_bytes(row_bytes: int, columns: int) -> int:
    """Return the minimum size of the buffer."""
    packed = max(_PACKED_MIN, row_bytes)
    return packed + SLOTS_MIN * _slot_bytes(packed, columns) + _ALIGN


def _slot_bytes(packed: int, columns: int) -> int:
    """Return the size of packed rows after they are unpacked to columns."""
    slot = packed + packed // 4 + columns * (_COLUMN_BYTES + 56) + 1024
    return -(-slot // _ALIGN) * _ALIGN


def _measure(buffer_bytes: int, row_bytes: int, columns: int) -> tuple[int, int]:
    """Return the size of a block of packed rows, and of a slot for them as columns."""
    # Solved for the packed size: packed + SLOTS_MIN * (packed * 5 / 4 + fixed part) = all of it.
    fixed = SLOTS_MIN * (columns * (_COLUMN_BYTES + 56) + 1024 + _ALIGN)
    room = (buffer_bytes - fixed) * 4 // (4 + 5 * SLOTS_MIN)
    packed = max(min(BLOCK_BYTES_MAX, buffer_bytes // _BLOCKS_SHARE, room), row_bytes, _PACKED_MIN)
    slot = _slot_bytes(packed, columns)
    needed = packed + SLOTS_MIN * slot
    if needed > buffer_bytes:
        because = f"{columns} columns, rows of {row_bytes} bytes"
        raise LongRow(
            cap_bytes=buffer_bytes * _BUFFER_SHARE,
            needed_bytes=needed
            * (_BUFFER_SHARE if needed <= _BUFFER_BYTES else _LARGE_BUFFER_SHARE),
            because=because,
            row_bytes=row_bytes,
        )
    return packed, slot
