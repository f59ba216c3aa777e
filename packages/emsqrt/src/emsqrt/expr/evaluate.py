"""Evaluate expressions over Arrow record batches, with the meaning of `docs/plan-ir.md`.

The only modules of `emsqrt.expr` that import pyarrow: this one, `kernels*`, `casts` and `vectors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.expr import kernels_text, kernels_time
from emsqrt.expr.casts import cast_values, shown
from emsqrt.expr.check import bind
from emsqrt.expr.errors import ValueOutOfRange
from emsqrt.expr.kernels import KERNELS
from emsqrt.expr.nodes import Expr
from emsqrt.expr.typed import Typed
from sennit_core.schema import Schema

REGISTERED = (kernels_text, kernels_time)
"""Imported for the kernels that they register."""

Datum: TypeAlias = Any
"""A pyarrow Array, or a Scalar with the same value for every row."""

NULL_TOLERANT = frozenset(
    (
        "and",
        "or",
        "not",
        "is_null",
        "coalesce",
        "greatest",
        "least",
        "nullif",
        "is_in",
        "between",
        "hash",
    )
)
"""Functions whose result may not be NULL when an operand is NULL."""


class Evaluator:
    """One expression, typed against a schema once, then applied to many batches."""

    def __init__(self, expr: Expr, schema: Schema) -> None:
        """Type `expr` over rows of `schema`; raises as `emsqrt.expr.check.bind`."""
        self.typed = bind(expr, schema)
        self.type = self.typed.type

    def __call__(self, batch: Any) -> Any:
        """Return the expression's values for the rows of `batch`, as an Array.

        Raises:
            ValueOutOfRange: a row's expression has no value; names the operands.
        """
        rows = Rows(batch)
        return _spread(_evaluate(self.typed, rows), len(rows))


def evaluate(expr: Expr, batch: Any) -> Any:
    """Return the values of `expr` for the rows of one record batch, as an Array."""
    return Evaluator(expr, Schema.from_arrow(batch.schema))(batch)


class Rows:
    """The rows of a batch that an expression is evaluated for: all, or those at `indices`."""

    def __init__(self, batch: Any, indices: Any = None) -> None:
        self._batch = batch
        self._indices = indices

    def __len__(self) -> int:
        return int(self._batch.num_rows if self._indices is None else len(self._indices))

    def column(self, name: str) -> Any:
        """Return the column's values for these rows."""
        values = self._batch.column(self._batch.schema.get_field_index(name))
        return values if self._indices is None else values.take(self._indices)

    def at(self, positions: Any) -> Rows:
        """Return the rows at these positions among these rows."""
        chosen = positions if self._indices is None else self._indices.take(positions)
        return Rows(self._batch, chosen)


def _evaluate(typed: Typed, rows: Rows) -> Datum:
    match typed.op:
        case "column":
            values, kind = rows.column(typed.value), typed.type.to_arrow()
            return values if values.type == kind else values.cast(kind)
        case "literal":
            return pa.scalar(typed.value, typed.type.to_arrow())
        case "case":
            return _case(typed, rows)
        case "and" | "or":
            return _logic(typed, rows)
        case "coalesce":
            return _coalesce(typed, rows)
        case _:
            args = [_evaluate(arg, rows) for arg in typed.args]
            return _apply(typed, args)


def _apply(typed: Typed, args: Sequence[Datum]) -> Datum:
    """Apply one function to evaluated operands."""
    if not any(isinstance(arg, pa.Array) for arg in args):
        return _apply(typed, [_spread(args[0], 1), *args[1:]])[0]
    absent = any(isinstance(arg, pa.Scalar) and not arg.is_valid for arg in args)
    if absent and typed.op not in NULL_TOLERANT:
        return pa.nulls(_length(args), typed.type.to_arrow())
    try:
        return _call(typed, args)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise _blame(typed, args, str(error)) from None


def _call(typed: Typed, args: Sequence[Datum]) -> Any:
    if typed.op == "cast":
        return cast_values(
            args[0], typed.args[0].type, typed.type, typed.source, strict=typed.value
        )
    result = KERNELS[typed.op](typed, *args)
    kind = typed.type.to_arrow()
    return result if result.type == kind else result.cast(kind)


def _blame(typed: Typed, args: Sequence[Datum], reason: str) -> ValueOutOfRange:
    """Find the first failing row by bisection, and return an error with its operands."""
    start, count = 0, _length(args)
    while count > 1:
        half = count // 2
        try:
            _call(typed, _slice(args, start, half))
        except (pa.ArrowInvalid, OverflowError):
            count = half
        else:
            start, count = start + half, count - half
    row = [arg[0] if isinstance(arg, pa.Array) else arg for arg in _slice(args, start, 1)]
    operands = ", ".join(str(shown(value)) for value in row)
    return ValueOutOfRange(
        str(typed.source), f"no {typed.type} holds {typed.op}({operands}): {reason.lower()}"
    )


def _slice(args: Sequence[Datum], start: int, count: int) -> list[Any]:
    # A constant stays one: kernels read units, formats and widths from it.
    return [arg.slice(start, count) if isinstance(arg, pa.Array) else arg for arg in args]


def _length(args: Sequence[Datum]) -> int:
    return next(len(arg) for arg in args if isinstance(arg, pa.Array))


def _spread(datum: Datum, count: int) -> Any:
    """Return an array of `count` values from an array or a scalar."""
    return datum if isinstance(datum, pa.Array) else pa.repeat(datum, count)


# Functions that decide row by row whether an operand is evaluated ------------------------------


def _logic(typed: Typed, rows: Rows) -> Datum:
    """Evaluate `and`/`or` from the left; an operand that may fail sees undecided rows only."""
    join = pc.and_kleene if typed.op == "and" else pc.or_kleene
    deciding = typed.op == "or"
    result = _evaluate(typed.args[0], rows)
    for arg in typed.args[1:]:
        if arg.fallible:
            decided = pc.fill_null(pc.equal(result, deciding), False)
            values = _where(pc.invert(decided), arg, rows, pa.scalar(deciding))
        else:
            values = _evaluate(arg, rows)
        result = join(result, values)
    return result


def _coalesce(typed: Typed, rows: Rows) -> Datum:
    result = _evaluate(typed.args[0], rows)
    for arg in typed.args[1:]:
        if arg.fallible:
            missing = pa.nulls(1, typed.type.to_arrow())[0]
            values = _where(pc.is_null(result), arg, rows, missing)
        else:
            values = _evaluate(arg, rows)
        if isinstance(result, pa.Scalar) and isinstance(values, pa.Scalar):
            result = result if result.is_valid else values
        else:
            result = pc.coalesce(result, values)
    return result


def _where(chosen: Datum, arg: Typed, rows: Rows, elsewhere: Any) -> Datum:
    """Evaluate `arg` for all rows; for the chosen rows alone if that fails."""
    try:
        return _evaluate(arg, rows)
    except ValueOutOfRange:
        mask = _spread(chosen, len(rows))
    positions = pc.indices_nonzero(mask)
    values = _spread(_evaluate(arg, rows.at(positions)), len(positions))
    others = pc.indices_nonzero(pc.invert(mask))
    return _gather([(positions, values), (others, pa.repeat(elsewhere, len(others)))])


def _case(typed: Typed, rows: Rows) -> Datum:
    """Assign each row to the first branch with a true condition, and evaluate only that branch.

    A branch that no row reaches costs only its condition: guards, such as one for a division
    by zero, are almost always false.
    """
    *pairs, default = typed.args
    left = None  # positions of the rows that no condition chose; None while that is all of them
    undecided = rows
    parts = []
    for when, then in zip(pairs[::2], pairs[1::2], strict=True):
        true = pc.fill_null(_spread(_evaluate(when, undecided), len(undecided)), False)
        if not pc.any(true).as_py():
            continue
        if left is None:
            left = pa.array(np.arange(len(rows), dtype=np.uint64))
        chosen = left.filter(true)
        parts.append((chosen, _spread(_evaluate(then, rows.at(chosen)), len(chosen))))
        left = left.filter(pc.invert(true))
        undecided = rows.at(left)
    if left is None:
        return _spread(_evaluate(default, rows), len(rows))
    parts.append((left, _spread(_evaluate(default, undecided), len(undecided))))
    return _gather(parts)


def _gather(parts: list[tuple[Any, Any]]) -> Any:
    """Return one array from pieces and the positions of each piece's values."""
    positions = np.concatenate([place.to_numpy(zero_copy_only=False) for place, _ in parts])
    order = np.empty(len(positions), np.int64)
    order[positions.astype(np.int64)] = np.arange(len(positions))
    return pa.concat_arrays([values for _, values in parts]).take(pa.array(order))
