"""Group text: C parses keys and arguments, groups them, and writes the groups as CSV."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from emsqrt._kernel import Columns, CsvFormatter
from emsqrt.execution_context import ExecutionContext
from emsqrt.external.aggregate import (
    ExternalAggregate,
    Filled,
    aggregate_bytes_min,
    long_aggregate_bytes,
    out_bytes_min,
)
from emsqrt.external.aggregate_state import (
    AggregateState,
    KeyColumn,
    Output,
    OutputOp,
    StateOp,
    Values,
)
from emsqrt.external.groups import texts_of
from emsqrt.metering import prefetch_first
from emsqrt.text_engine.buffers import PARSE_FRONT_BYTES, write_blocks
from emsqrt.text_engine.compute import CompiledExpression, with_programs
from emsqrt.text_engine.resuming import Resumption
from emsqrt.text_engine.text import STANDARD, Block, ColumnReader, TextRows
from sennit_core.errors import SennitError
from sennit_core.schema import DataType, Field, Schema

BUFFER_BYTES_MAX = 1 << 18
_BUFFER_SHARE = 16
_ROW_SHARE = 32
_ALIGN = 64
_BUFFERS = 3
"""Parsed columns, groups as columns, and groups as text."""


class AggregateText:
    """Groups as records, sorted by their keys, NULL last.

    Args:
        rows: the records.
        step: the layout, as written by `emsqrt.text_engine.compile`: `reads` (columns), `programs`,
            `order` (of both), `keys`, `parts`, `outputs`, `values`, `fields` (of the result) and
            `aggs` (for errors).
        run: provides working memory and spill.
    """

    def __init__(self, rows: TextRows, step: Mapping[str, Any], run: ExecutionContext) -> None:
        self.schema = Schema(tuple(Field(name, DataType.parse(of)) for name, of in step["fields"]))
        self.dialect = STANDARD
        self.rows = 0
        self._rows = rows
        self._step = step
        self._run = run
        self._programs = [CompiledExpression(program) for program in step["programs"]]
        size = sum(program.size_bytes for program in self._programs)
        # Programs keep their buffers outside of the working memory, so they are reserved here,
        # before the run.
        self._guard = run.admit(size, "aggregate", "arguments are computed in blocks")
        self._parts, self._values = _parts(step), [_values(each) for each in step["values"]]
        self._long_bytes = run.row_bytes * max(1, texts_of(self._keys, self._parts))
        run.expect_holder(
            _ROW_SHARE * (1 + len(self._values)),
            max(bytes_min(step), self._bytes_for_long_rows if run.met else 0),
        )

    def blocks(self) -> Generator[Block]:
        """Yield the groups."""
        resumption = Resumption(self._rows, self._run)
        with (
            self._guard,
            prefetch_first(resumption.blocks()) as blocks,
            self._run.acquire_working_memory("aggregate") as held,
        ):
            #     | groups, values | parsed columns | groups as columns | groups as text |
            #       `memory`         `parsed`         `grouped`           `out`
            #
            # `grouped_long` is the memory of `parsed` and `grouped`: parsing has ended by then.
            size = self._buffer_bytes(len(held.memory))
            rest = len(held.memory) - _BUFFERS * size
            with (
                held.memory[:rest] as memory,
                held.memory[rest : rest + size] as parsed,
                held.memory[rest + size : rest + 2 * size] as grouped,
                held.memory[rest : rest + 2 * size] as grouped_long,
                held.memory[rest + 2 * size :] as out,
            ):
                aggregate = self._aggregate(memory, resumption)
                with self._run.working(aggregate):
                    fields = [self._rows.schema.field(name) for name in self._step["reads"]]
                    front_bytes = PARSE_FRONT_BYTES if self._programs else BUFFER_BYTES_MAX
                    reader = ColumnReader(self._rows, fields, parsed, front_bytes=front_bytes)
                    with closing(reader):
                        for columns, start in resumption.rest(reader, blocks):
                            # Columns as the layout numbers them: keys first, then arguments.
                            whole = with_programs(columns, self._programs)
                            aggregate.add(whole.select(self._step["order"]), start)
                            del whole
                    aggregate.finish()
                    # A long group is read in a part of the output buffer, and needs the memory of
                    # the parser, too.
                    long = aggregate.row_bytes_max > size // 2
                    try:
                        yield from self._text(aggregate, grouped_long if long else grouped, out)
                    except OverflowError as error:
                        raise self._beyond(error.args[0]) from None

    @property
    def _keys(self) -> list[KeyColumn]:
        return [KeyColumn(*key) for key in self._step["keys"]]

    @property
    def _bytes_for_long_rows(self) -> int:
        """The minimum of working memory for the longest known row."""
        row_bytes = self._run.row_bytes
        least = long_aggregate_bytes(self._keys, self._parts, self._values, row_bytes)
        return least + _BUFFERS * max(BUFFER_BYTES_MAX, self._long_bytes)

    def _buffer_bytes(self, memory_bytes: int) -> int:
        size = min(BUFFER_BYTES_MAX, memory_bytes // _BUFFER_SHARE)
        least = _buffer_bytes_min(self._step, self._parts)
        return max(size, memory_bytes // _ROW_SHARE, least, self._long_bytes) // _ALIGN * _ALIGN

    def _aggregate(self, memory: memoryview, resumption: Resumption) -> ExternalAggregate:
        step = self._step
        return ExternalAggregate(
            memory,
            self._run.spill,
            self._keys,
            self._parts,
            [Output(OutputOp(op), *rest) for op, *rest in step["outputs"]],
            self._values,
            row_bytes=self._run.row_bytes,
            check=self._run.check,
            journal=resumption.journal,
        )

    def _text(
        self, aggregate: ExternalAggregate, grouped: memoryview, out: memoryview
    ) -> Generator[Block]:
        formatter = CsvFormatter([str(field.type) for field in self.schema])
        for count, filled in aggregate.columns(grouped):
            self._run.check()
            columns = _columns(count, filled, grouped)
            fill = partial(formatter.format, columns)
            for start, end, size in write_blocks(fill, count, out):
                yield Block(out[:size], rows=end - start)
            del columns, fill

    def _beyond(self, output: int) -> SennitError:
        self._run.context.make_room_for_error()
        from emsqrt.expr.errors import ValueOutOfRange

        agg = self._step["aggs"][output]
        field = self.schema.fields[len(self._step["keys"]) + output]
        return ValueOutOfRange(agg, f"the sum is out of range for {field.type}")


def bytes_min(step: Mapping[str, Any]) -> int:
    """Return the minimum of working memory of an aggregate's step, with short keys."""
    parts = _parts(step)
    values = [_values(each) for each in step["values"]]
    least = aggregate_bytes_min(parts, values, len(step["keys"]))
    return least + _BUFFERS * max(
        _buffer_bytes_min(step, parts), -(-least // (_BUFFER_SHARE - _BUFFERS))
    )


def _buffer_bytes_min(step: Mapping[str, Any], parts: Sequence[AggregateState]) -> int:
    columns = max(len(step["fields"]), len(step["reads"]))
    return -(-out_bytes_min(columns, parts) // _ALIGN) * _ALIGN


def _parts(step: Mapping[str, Any]) -> list[AggregateState]:
    return [AggregateState(StateOp(op), *rest) for op, *rest in step["parts"]]


def _values(each: Mapping[str, Any]) -> Values:
    column, kind, scale = each["column"]
    quantiles: list[Any] = [tuple(quantile) for quantile in each["quantiles"]]
    return Values(column, kind, scale, each["filled"], quantiles)


def _columns(count: int, filled: Sequence[Filled], memory: memoryview) -> Columns:
    """Return filled columns in the kernel's representation, without copying them."""
    parts = []
    for kind, nulls, validity, values, ends in filled:
        # Without a NULL, no validity bits: the kernel treats all values as present.
        seen = memory[slice(*validity)] if nulls else None
        parts.append(
            (kind, 0, seen, memory[slice(*values)], None if ends is None else memory[slice(*ends)])
        )
    return Columns(count, parts)
