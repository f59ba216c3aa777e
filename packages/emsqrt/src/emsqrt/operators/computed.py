"""Evaluate expressions over batches by a kernel program where possible, else by Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from emsqrt._kernel import ExprProgram
from emsqrt.execution_context import ExecutionContext
from emsqrt.expr.evaluate import Evaluator
from emsqrt.expr.nodes import Expr
from emsqrt.expr.program import Program, compile_program
from emsqrt.operators.columns import to_columns
from sennit_core.schema import Schema

STACK_BYTES = 1 << 15
_WIDTHS = {"Bool": 0, "Decimal": 16}


class ProgramStack:
    """The stack that an operator's programs use one after the other; allocated on first use.

    Args:
        run: its budget holds the memory until the run's end; None to reserve nothing.
    """

    def __init__(self, run: ExecutionContext | None = None) -> None:
        self._run = run

    @cached_property
    def memory(self) -> memoryview:
        """STACK_BYTES of memory.

        Raises:
            CapTooSmall: the budget is too small.
        """
        if self._run is not None:
            self._run.admit(STACK_BYTES, "expressions", "evaluating expressions needs this much")
        return memoryview(bytearray(STACK_BYTES))


class Computed:
    """One expression, typed against a schema once, then applied to many batches.

    The result is that of `Evaluator`: where a program finds a row without a value, the evaluator
    computes the batch instead and decides whether that row counts and which error it raises.
    """

    def __init__(self, expr: Expr, schema: Schema, stack: ProgramStack | None = None) -> None:
        """Type `expr` over rows of `schema`; raises as `emsqrt.expr.check.bind`.

        Args:
            expr: the expression.
            schema: the batches' columns.
            stack: shared with other expressions; None for its own.
        """
        self._evaluator = Evaluator(expr, schema)
        self.type = self._evaluator.type
        self._kind = self.type.to_arrow()
        typed = self._evaluator.typed
        self._place = schema.names.index(typed.value) if typed.op == "column" else None
        self._program: _OpenProgram | None = None
        if typed.op not in ("column", "literal"):
            # A column or a literal needs no program; others may have none, and Arrow evaluates
            # them.
            program = compile_program(expr, schema, eager=True)
            if program is not None and program.type == self.type:
                self._program = _OpenProgram(program, schema, (stack or ProgramStack()).memory)

    def __call__(self, batch: Any) -> Any:
        """Return the expression's values for the rows of `batch`, as an Array.

        Raises:
            ValueOutOfRange: a row's expression has no value; names the operands.
        """
        if self._place is not None:
            values = batch.column(self._place)
            return values if values.type == self._kind else values.cast(self._kind)
        made = self._program.run(batch) if self._program and batch.num_rows else None
        # None: some row has no value (overflow, a failed cast). The evaluator knows whether that is
        # an error.
        return self._evaluator(batch) if made is None else made


def compute_all(
    exprs: Sequence[Expr], schema: Schema, run: ExecutionContext | None = None
) -> list[Computed]:
    """Return expressions that share one stack, equal ones as one object; raises as `Computed`."""
    stack = ProgramStack(run)
    made: dict[str, list[tuple[Expr, Computed]]] = {}
    results = []
    for expr in exprs:
        # By text first, which is cheap; `equals` decides, as different literals may have one text.
        alike = made.setdefault(str(expr), [])
        known = next((each for other, each in alike if other.equals(expr)), None)
        if known is None:
            known = Computed(expr, schema, stack)
            alike.append((expr, known))
        results.append(known)
    return results


class _OpenProgram:
    """A program with the columns that it reads."""

    def __init__(self, program: Program, schema: Schema, stack: memoryview) -> None:
        self._fields = [schema.field(name) for name in program.columns]
        self._places = [schema.names.index(name) for name in program.columns]
        self._native = ExprProgram(program.code, program.constants, program.constant_count, stack)
        self._width = _WIDTHS.get(program.type.name, 8)
        self._kind = program.type.to_arrow()

    def run(self, batch: Any) -> Any:
        """Return the values for a batch; None when some row has no value."""
        rows = batch.num_rows
        columns = to_columns([batch.column(at) for at in self._places], self._fields, rows)
        validity = pa.allocate_buffer((rows + 7) // 8)
        values = pa.allocate_buffer(rows * self._width if self._width else (rows + 7) // 8)
        done, fault = self._native.run(columns, 0, values, validity)
        if fault is not None:
            return None
        assert done == rows, "the buffers hold all rows"
        return pa.Array.from_buffers(self._kind, rows, [validity, values])
