"""Functions that start an expression: columns, conditions, aggregates, variadic functions."""

from __future__ import annotations

from emsqrt.expr.aggregates import check_params
from emsqrt.expr.nodes import Agg, Column, Expr, When, as_expr, call
from sennit_core.errors import UsageError


def col(name: str) -> Column:
    """Return the column called `name`."""
    if not isinstance(name, str):
        raise UsageError(f"a column's name is a string, not {name!r}")
    return Column(name)


def when(condition: object) -> When:
    """Begin a case: `when(c).then(x).when(d).then(y).otherwise(z)`."""
    return When(as_expr(condition))


def coalesce(*values: object) -> Expr:
    """Return the first value that is not NULL."""
    return call("coalesce", *values)


def concat(*values: object) -> Expr:
    """Join texts as SQL's `||` does: NULL if any is NULL."""
    return call("concat", *values)


def nullif(value: object, other: object) -> Expr:
    """Return NULL where both are equal, else `value`."""
    return call("nullif", value, other)


def greatest(*values: object) -> Expr:
    """Return the largest value, ignoring NULLs; NULL only when all are NULL."""
    return call("greatest", *values)


def least(*values: object) -> Expr:
    """Return the smallest value, ignoring NULLs; NULL only when all are NULL."""
    return call("least", *values)


def all_of(*conditions: object) -> Expr:
    """Join conditions with `and`; true without any condition."""
    return _joined("and", True, conditions)


def any_of(*conditions: object) -> Expr:
    """Join conditions with `or`; false without any condition."""
    return _joined("or", False, conditions)


def _joined(fn: str, empty: bool, conditions: tuple[object, ...]) -> Expr:
    return call(fn, *conditions) if len(conditions) > 1 else as_expr((*conditions, empty)[0])


def count(value: object = None) -> Agg:
    """Count rows, or the rows where `value` is not NULL."""
    return Agg("count", None if value is None else _operand(value))


def count_distinct(value: object) -> Agg:
    """Count the distinct values, ignoring NULLs."""
    return Agg("count", _operand(value), distinct=True)


def sum(value: object) -> Agg:  # noqa: A001  # the field's word; import it as `expr.sum`
    """Sum values; exact for integers and decimals, order-independent for floats."""
    return Agg("sum", _operand(value))


def avg(value: object) -> Agg:
    """Return the arithmetic mean, as Float64."""
    return Agg("avg", _operand(value))


mean = avg


def min(value: object) -> Agg:  # noqa: A001  # the field's word; import it as `expr.min`
    """Return the smallest value."""
    return Agg("min", _operand(value))


def max(value: object) -> Agg:  # noqa: A001  # the field's word; import it as `expr.max`
    """Return the largest value; NaN is larger than every number."""
    return Agg("max", _operand(value))


def var(value: object) -> Agg:
    """Return the sample variance, NULL for fewer than two values."""
    return Agg("var", _operand(value))


def stddev(value: object) -> Agg:
    """Return the sample standard deviation, NULL for fewer than two values."""
    return Agg("stddev", _operand(value))


def first(value: object) -> Agg:
    """Return the value of the first row, in input order, ignoring NULLs."""
    return Agg("first", _operand(value))


def last(value: object) -> Agg:
    """Return the value of the last row, in input order, ignoring NULLs."""
    return Agg("last", _operand(value))


def median(value: object) -> Agg:
    """Return the middle value: `quantile(value, 0.5)`."""
    return Agg("median", _operand(value))


def quantile(value: object, fraction: float) -> Agg:
    """Return the value below which `fraction` (0 to 1) of the values are."""
    return Agg("quantile", _operand(value), params=check_params("quantile", (as_expr(fraction),)))


def quantile_disc(value: object, fraction: float) -> Agg:
    """Return the first of the sorted values with at least `fraction` (0 to 1) of them up to it.

    It is one of the values, of their own type; SQL's `percentile_disc`.
    """
    constants = check_params("quantile_disc", (as_expr(fraction),))
    return Agg("quantile_disc", _operand(value), params=constants)


def approx_count_distinct(value: object) -> Agg:
    """Estimate the number of distinct values, ignoring NULLs, in a few KiB of memory."""
    return Agg("approx_count_distinct", _operand(value))


def _operand(value: object) -> Expr:
    """Return an operand; a bare string names a column: `sum("distance")`."""
    return Column(value) if isinstance(value, str) else as_expr(value)
