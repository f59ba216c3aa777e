"""Expressions over text: C runs small programs over the columns that they read."""

from __future__ import annotations

import base64
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cached_property, partial
from typing import Any

from emsqrt._kernel import Columns, CsvFormatter, ExprProgram, LineWriter
from emsqrt.execution_context import ExecutionContext
from emsqrt.text_engine.buffers import (
    PARSE_FRONT_BYTES,
    Fill,
    buffer_bytes,
    new_buffer,
    write_blocks,
)
from emsqrt.text_engine.text import STANDARD, Block, ColumnReader, TextRows
from sennit_core.schema import DataType, Field, Schema

# The stack of one program.
PROGRAM_BYTES = 1 << 16
_ROWS_MAX = PARSE_FRONT_BYTES // 4
"""A parsed row needs at least four bytes, which bounds the rows of a batch."""


class CompiledExpression:
    """A compiled expression, ready to run over columns that are parsed from text.

    Args:
        step: the program as written by `emsqrt.text_engine.compile`: `code` and `constants` in
            base64, `count`, `columns` (indexes among the parsed ones), `kind` and `width` of the
            result, `blames`.
    """

    def __init__(self, step: Mapping[str, Any]) -> None:
        self._step = step
        self._value_bytes = _ROWS_MAX * step["width"] if step["width"] else _ROWS_MAX // 8

    @property
    def size_bytes(self) -> int:
        """Memory that it uses from the first batch on."""
        return PROGRAM_BYTES + self._value_bytes + _ROWS_MAX // 8

    @cached_property
    def _native(self) -> ExprProgram:
        step = self._step
        code, constants = (base64.b64decode(step[name]) for name in ("code", "constants"))
        return ExprProgram(code, constants, step["count"], memoryview(bytearray(PROGRAM_BYTES)))

    @cached_property
    def _values(self) -> memoryview:
        return memoryview(bytearray(self._value_bytes))

    @cached_property
    def _validity(self) -> memoryview:
        return memoryview(bytearray(_ROWS_MAX // 8))

    def column(self, columns: Columns) -> tuple[int, int, memoryview, memoryview, None]:
        """Return the result for a batch as a column; valid until the next call.

        Raises:
            ValueOutOfRange: a row's expression has no value; names the expression and the operands.
        """
        self._run(columns)
        return self._step["kind"], 0, self._validity, self._values, None

    def rows_where(self, columns: Columns) -> bytes:
        """Return one bit for each row of a batch, set where the condition is true."""
        self._run(columns)
        size = (len(columns) + 7) // 8
        # Integers of any size are a way to combine bits without numpy: a condition keeps rows in
        # which it is true and not NULL.
        both = int.from_bytes(self._values[:size], "little")
        both &= int.from_bytes(self._validity[:size], "little")
        return both.to_bytes(size, "little")

    def _run(self, columns: Columns) -> None:
        used = columns.select(self._step["columns"])
        rows, fault = self._native.run(used, 0, self._values, self._validity)
        # Unlike the arrow tier there is no second evaluator: a row without a value is an error.
        if fault is not None:
            raise self._error(*fault)
        assert rows == len(columns), "a batch fits the buffers"

    def _error(self, _: int, instruction: int, left: int | None, right: int | None) -> Exception:
        from emsqrt.expr.errors import ValueOutOfRange  # imported only for errors

        text, kind, op = self._step["blames"][str(instruction)]
        operands = (left,) if op in ("neg", "abs") else (left, right)
        shown = "…" if left is None else ", ".join(map(str, operands))
        return ValueOutOfRange(text, f"no {kind} holds {op}({shown}): overflow")


class FilterText:
    """The records for which a condition is true, with their original bytes.

    Args:
        rows: the records.
        reads: the columns that the condition uses.
        program: the condition.
        run: provides the budget.
    """

    def __init__(
        self,
        rows: TextRows,
        reads: Sequence[str],
        program: Mapping[str, Any],
        run: ExecutionContext,
    ) -> None:
        self.schema = rows.schema
        self.dialect = rows.dialect
        self.rows = 0
        self.passes_on = self._rows = rows
        self._fields = [rows.schema.field(name) for name in reads]
        self._program = CompiledExpression(program)
        self._run = run
        self._rooms = buffer_bytes(run, PARSE_FRONT_BYTES), buffer_bytes(run)
        size = sum(self._rooms) + self._program.size_bytes
        self._guard = run.admit(size, "filter", "rows are filtered in blocks")

    def blocks(self) -> Generator[Block]:
        """Yield the records."""
        writer = LineWriter()
        parse_bytes, out_bytes = self._rooms
        with self._guard, new_buffer(out_bytes) as out, ExitStack() as stack:
            reader = ColumnReader(
                self._rows, self._fields, new_buffer(parse_bytes), front_bytes=PARSE_FRONT_BYTES
            )
            batches = stack.enter_context(closing(reader.batches()))
            for columns in batches:
                self._run.check()
                # Computed before any record is written, as the writer copies records by these bits.
                keep = self._program.rows_where(columns)
                fill = _writing(writer, columns, keep)
                for start, end, size in write_blocks(fill, len(columns), out):
                    if size:
                        yield Block(out[:size], rows=_bits_between(keep, start, end))


def _writing(writer: LineWriter, columns: Columns, keep: bytes) -> Fill:
    return lambda start, out: writer.write(columns, start, out, keep)


class ComputeText:
    """Records rewritten with computed columns.

    Args:
        rows: the records.
        reads: the columns that are parsed.
        programs: computed from them; their results follow those columns.
        order: the output's columns, as indexes into both.
        fields: the output's names and types.
        run: provides the budget.
        null_values: unquoted fields that are NULL.
    """

    def __init__(  # noqa: PLR0913 - what is read, made and written belongs together
        self,
        rows: TextRows,
        reads: Sequence[str],
        programs: Sequence[Mapping[str, Any]],
        order: Sequence[int],
        fields: Sequence[tuple[str, str]],
        run: ExecutionContext,
        null_values: Sequence[str] = ("",),
    ) -> None:
        self.schema = Schema(tuple(Field(name, DataType.parse(of)) for name, of in fields))
        self.dialect = STANDARD
        self.rows = 0
        self.passes_on = self._rows = rows
        self._fields = [rows.schema.field(name) for name in reads]
        self._programs = [CompiledExpression(program) for program in programs]
        self._order = order
        self._run = run
        self._null_values = null_values
        self._rooms = buffer_bytes(run, PARSE_FRONT_BYTES), buffer_bytes(run)
        size = sum(self._rooms) + sum(program.size_bytes for program in self._programs)
        self._guard = run.admit(size, "compute", "columns are computed in blocks")

    def blocks(self) -> Generator[Block]:
        """Yield the records."""
        formatter = CsvFormatter([str(field.type) for field in self.schema])
        parse_bytes, out_bytes = self._rooms
        with self._guard, new_buffer(out_bytes) as out, ExitStack() as stack:
            parse = new_buffer(parse_bytes)
            reader = ColumnReader(
                self._rows, self._fields, parse, self._null_values, PARSE_FRONT_BYTES
            )
            batches = stack.enter_context(closing(reader.batches()))
            for parsed in batches:
                self._run.check()
                columns = with_programs(parsed, self._programs).select(self._order)
                fill = partial(formatter.format, columns)
                for start, end, size in write_blocks(fill, len(columns), out):
                    yield Block(out[:size], rows=end - start)
                del columns, fill


def with_programs(columns: Columns, programs: Sequence[CompiledExpression]) -> Columns:
    """Return a batch with the programs' results after its columns; valid until the next batch."""
    if not programs:
        return columns
    return columns.with_columns([program.column(columns) for program in programs])


def _bits_between(bits: bytes, start: int, stop: int) -> int:
    """Count the bits that are set from `start` to `stop`."""
    # Row n is bit n: least significant first, as in Arrow.
    whole = int.from_bytes(bits, "little")
    return (whole >> start & ((1 << (stop - start)) - 1)).bit_count()
