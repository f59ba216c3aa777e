"""The expression tree: six kinds of nodes, and the Python operators that build them.

A node is a frozen dataclass. `==` on a node builds a comparison, as in every dataframe library,
so nodes are compared with `equals` and cannot be hashed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import NoReturn, TypeAlias

from emsqrt.expr.type_names import parse_type
from sennit_core.errors import UsageError
from sennit_core.schema import DataType

Value: TypeAlias = bool | int | float | str | bytes | Decimal | date | datetime | time | timedelta
"""Types of a literal's value, apart from None."""


FLAT = ("and", "or", "concat")
"""Associative functions, whose chains are merged into one call."""


class Expr:
    """One expression over the columns of a row, with SQL's meaning (docs/plan-ir.md).

    Operators build larger expressions: `+ - * / // %`, `== != < <= > >=`, `& | ~` for and, or,
    not. `//` and `%` truncate toward zero, as SQL and C do; Python's own floor.
    """

    __slots__ = ()

    # Arithmetic -----------------------------------------------------------------------------
    def __add__(self, other: object) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: object) -> Expr:
        return call("add", other, self)

    def __sub__(self, other: object) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: object) -> Expr:
        return call("sub", other, self)

    def __mul__(self, other: object) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: object) -> Expr:
        return call("mul", other, self)

    def __truediv__(self, other: object) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: object) -> Expr:
        return call("div", other, self)

    def __floordiv__(self, other: object) -> Expr:
        return call("idiv", self, other)

    def __rfloordiv__(self, other: object) -> Expr:
        return call("idiv", other, self)

    def __mod__(self, other: object) -> Expr:
        return call("mod", self, other)

    def __rmod__(self, other: object) -> Expr:
        return call("mod", other, self)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __abs__(self) -> Expr:
        return call("abs", self)

    def __round__(self, digits: int = 0) -> Expr:
        return call("round", self, digits)

    def __floor__(self) -> Expr:
        return call("floor", self)

    def __ceil__(self) -> Expr:
        return call("ceil", self)

    # Comparison and logic -------------------------------------------------------------------
    def __eq__(self, other: object) -> Expr:  # type: ignore[override]  # builds, never compares
        return call("eq", self, other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]  # builds, never compares
        return call("ne", self, other)

    def __lt__(self, other: object) -> Expr:
        return call("lt", self, other)

    def __le__(self, other: object) -> Expr:
        return call("le", self, other)

    def __gt__(self, other: object) -> Expr:
        return call("gt", self, other)

    def __ge__(self, other: object) -> Expr:
        return call("ge", self, other)

    def __and__(self, other: object) -> Expr:
        return call("and", self, other)

    def __rand__(self, other: object) -> Expr:
        return call("and", other, self)

    def __or__(self, other: object) -> Expr:
        return call("or", self, other)

    def __ror__(self, other: object) -> Expr:
        return call("or", other, self)

    def __invert__(self) -> Expr:
        return call("not", self)

    # Operations that Python would evaluate too early
    # ------------------------------------------------
    def __bool__(self) -> NoReturn:
        raise UsageError(
            f"{self!s} has no truth value of its own: it is worked out row by row",
            hint="write & | ~ instead of and, or, not; (a < x) & (x < b) instead of a < x < b; "
            "when(condition).then(x).otherwise(y) instead of if; x.is_in([…]) instead of in",
        )

    def _no_python_value(self, *_: object) -> NoReturn:
        raise UsageError(
            f"{self!s} is an expression, not a value: Python cannot read it here",
            hint="use the expression's own methods: .cast(), .length(), .contains(), concat(…)",
        )

    __int__ = __float__ = __index__ = __len__ = __iter__ = __contains__ = _no_python_value
    __hash__ = None  # type: ignore[assignment]  # == builds an expression

    def __format__(self, spec: str) -> NoReturn:
        # An f-string inside a traced lambda would make the expression's text a constant.
        self._no_python_value()

    def __str__(self) -> str:
        from emsqrt.expr.text import to_text

        return to_text(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self!s}>"

    def equals(self, other: Expr) -> bool:
        """Return whether both trees are the same, node for node."""
        from emsqrt.expr.walk import same

        return same(self, other)

    # Names and orders -----------------------------------------------------------------------
    def alias(self, name: str) -> Named:
        """Name the expression, as a column for `select`, `agg` and similar verbs."""
        return Named(self, name)

    def asc(self, *, nulls_first: bool = False) -> SortKey:
        """Return the sort key for ascending order."""
        return SortKey(self, nulls_first=nulls_first)

    def desc(self, *, nulls_first: bool = False) -> SortKey:
        """Return the sort key for descending order."""
        return SortKey(self, descending=True, nulls_first=nulls_first)

    # Tests ----------------------------------------------------------------------------------
    def is_null(self) -> Expr:
        """Return true where the value is NULL; never NULL itself."""
        return call("is_null", self)

    def is_not_null(self) -> Expr:
        """Return true where the value is not NULL; never NULL itself."""
        return call("not", call("is_null", self))

    def is_nan(self) -> Expr:
        """Return true where a float is NaN; NULL stays NULL."""
        return call("is_nan", self)

    def is_in(self, values: object) -> Expr:
        """Return SQL's `IN`: NULL where nothing matches and either side contains a NULL."""
        if isinstance(values, str | bytes | Expr) or not hasattr(values, "__iter__"):
            raise UsageError(f"is_in takes a list of values, not {values!r}")
        return call("is_in", self, *values)

    def between(self, low: object, high: object) -> Expr:
        """Return `low <= self and self <= high`."""
        return call("between", self, low, high)

    def like(self, pattern: str) -> Expr:
        """Return SQL's `LIKE`: `%` is any text, `_` one character, no escape character."""
        return call("like", self, pattern)

    def ilike(self, pattern: str) -> Expr:
        """Return SQL's `ILIKE`: `LIKE` with both in lower case."""
        return call("ilike", self, pattern)

    def regexp_matches(self, pattern: str) -> Expr:
        """Return whether the regular expression (RE2) matches any part of the text."""
        return call("regexp_matches", self, pattern)

    # Types ----------------------------------------------------------------------------------
    def cast(self, to: DataType | str) -> Cast:
        """Convert to the type `to`; a value that does not fit is an error when the plan runs."""
        return Cast(self, as_type(to), strict=True)

    def try_cast(self, to: DataType | str) -> Cast:
        """Convert to the type `to`; a value that does not fit becomes NULL."""
        return Cast(self, as_type(to), strict=False)

    # Text -----------------------------------------------------------------------------------
    def upper(self) -> Expr:
        """Return upper case, one code point to one code point."""
        return call("upper", self)

    def lower(self) -> Expr:
        """Return lower case, one code point to one code point."""
        return call("lower", self)

    def initcap(self) -> Expr:
        """Return the first letter of each word in upper case and the others in lower case."""
        return call("initcap", self)

    def length(self) -> Expr:
        """Return the number of code points, as Int64."""
        return call("length", self)

    def contains(self, part: object) -> Expr:
        """Return whether `part` occurs in the text."""
        return call("contains", self, part)

    def starts_with(self, part: object) -> Expr:
        """Return whether the text begins with `part`."""
        return call("starts_with", self, part)

    def ends_with(self, part: object) -> Expr:
        """Return whether the text ends with `part`."""
        return call("ends_with", self, part)

    def substr(self, start: int, length: int | None = None) -> Expr:
        """Return code points from `start` (1 is the first, -1 the last), `length` at most."""
        return call("substr", self, start, *(() if length is None else (length,)))

    def trim(self, chars: str | None = None) -> Expr:
        """Return the text without spaces (U+0020), or without `chars`, at both ends."""
        return call("trim", self, *(() if chars is None else (chars,)))

    def left(self, count: int) -> Expr:
        """Return the first `count` code points; all but the last -`count` when negative."""
        return call("left", self, count)

    def right(self, count: int) -> Expr:
        """Return the last `count` code points; all but the first -`count` when negative."""
        return call("right", self, count)

    def split_part(self, separator: str, index: int) -> Expr:
        """Return the part at `index` (1 is the first, -1 the last), "" where there is none."""
        return call("split_part", self, separator, index)

    def strpos(self, part: str) -> Expr:
        """Return where `part` begins, in code points from 1; 0 where it does not occur."""
        return call("strpos", self, part)

    def regexp_replace(self, pattern: str, new: str, *, everywhere: bool = False) -> Expr:
        r"""Return the text with the first match, or each, replaced; `\1` is the first group."""
        return call("regexp_replace", self, pattern, new, *(("g",) if everywhere else ()))

    def replace(self, old: object, new: object) -> Expr:
        """Return the text with each `old` replaced by `new`; an empty `old` changes nothing."""
        return call("replace", self, old, new)

    # Numbers and dates ----------------------------------------------------------------------
    def round(self, digits: int = 0) -> Expr:
        """Round half away from zero at `digits` decimal places."""
        return call("round", self, digits)

    def floor(self) -> Expr:
        """Round toward minus infinity."""
        return call("floor", self)

    def ceil(self) -> Expr:
        """Round toward plus infinity."""
        return call("ceil", self)

    def abs(self) -> Expr:
        """Return the absolute value."""
        return call("abs", self)

    def year(self) -> Expr:
        """Return the year of a Date or Timestamp (in UTC), as Int64."""
        return call("year", self)

    def month(self) -> Expr:
        """Return the month, 1 to 12."""
        return call("month", self)

    def day(self) -> Expr:
        """Return the day of the month, 1 to 31."""
        return call("day", self)

    def hour(self) -> Expr:
        """Return the hour of a Timestamp (in UTC), 0 to 23."""
        return call("hour", self)

    def minute(self) -> Expr:
        """Return the minute, 0 to 59."""
        return call("minute", self)

    def second(self) -> Expr:
        """Return the whole second, 0 to 59."""
        return call("second", self)

    def date_trunc(self, unit: str) -> Expr:
        """Return the start of the enclosing year, quarter, month, week (Monday), day, hour, …."""
        return call("date_trunc", unit, self)

    def date_add(self, unit: str, count: object) -> Expr:
        """Return the date `count` units later; a day that the month lacks becomes its last."""
        return call("date_add", unit, count, self)

    def date_diff(self, unit: str, start: object) -> Expr:
        """Return how many units begin between `start` and this date."""
        return call("date_diff", unit, start, self)

    def strftime(self, pattern: str) -> Expr:
        """Return the date as text; `%Y %m %d %H %M %S %f %j %y %F %T`."""
        return call("strftime", self, pattern)

    def strptime(self, pattern: str) -> Expr:
        """Parse the text as a Timestamp(us); text that does not match is an error."""
        return call("strptime", self, pattern)

    # Nested values --------------------------------------------------------------------------
    def list_get(self, index: int) -> Expr:
        """Return the item at `index` (1 is the first, -1 the last), NULL where there is none."""
        return call("list_get", self, index)

    def struct_get(self, name: str) -> Expr:
        """Return the field called `name`."""
        return call("struct_get", self, name)

    # Aggregates -----------------------------------------------------------------------------
    def count(self) -> Agg:
        """Count the rows where the value is not NULL."""
        return Agg("count", self)

    def count_distinct(self) -> Agg:
        """Count the distinct values, ignoring NULLs."""
        return Agg("count", self, distinct=True)

    def sum(self) -> Agg:
        """Sum values; exact for integers and decimals, order-independent for floats."""
        return Agg("sum", self)

    def avg(self) -> Agg:
        """Return the arithmetic mean, as Float64."""
        return Agg("avg", self)

    mean = avg

    def min(self) -> Agg:
        """Return the smallest value."""
        return Agg("min", self)

    def max(self) -> Agg:
        """Return the largest value; NaN is larger than every number."""
        return Agg("max", self)

    def first(self) -> Agg:
        """Return the value of the first row, ignoring NULLs."""
        return Agg("first", self)

    def last(self) -> Agg:
        """Return the value of the last row, ignoring NULLs."""
        return Agg("last", self)

    def var(self) -> Agg:
        """Return the sample variance, NULL for fewer than two values."""
        return Agg("var", self)

    def stddev(self) -> Agg:
        """Return the sample standard deviation, NULL for fewer than two values."""
        return Agg("stddev", self)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Column(Expr):
    """The value of one column of the input."""

    name: str

    def __repr__(self) -> str:
        return f"col({self.name!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Literal(Expr):
    """A constant. `type` is None for a NULL whose type is inferred from its context."""

    value: Value | None
    type: DataType | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Call(Expr):
    """A named function of `emsqrt.expr.functions` applied to arguments."""

    fn: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cast(Expr):
    """A conversion. Strict: a value that does not fit is an error; else it becomes NULL."""

    arg: Expr
    type: DataType
    strict: bool = True


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Case(Expr):
    """The `then` of the first branch whose condition is true, else `default` (None: NULL).

    A branch is evaluated only for the rows that reach it.
    """

    branches: tuple[tuple[Expr, Expr], ...]
    default: Expr | None = None

    def when(self, condition: object) -> When:
        """Add a branch for the rows that no earlier condition matched."""
        return When(as_expr(condition), self.branches)

    def otherwise(self, value: object) -> Case:
        """Set the value of the rows where no condition is true."""
        return Case(self.branches, as_expr(value))


@dataclass(frozen=True, slots=True)
class When:
    """A condition whose `then` is still missing."""

    condition: Expr
    branches: tuple[tuple[Expr, Expr], ...] = ()

    def then(self, value: object) -> Case:
        """Set the value of the rows where the condition is true."""
        return Case((*self.branches, (self.condition, as_expr(value))))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Agg(Expr):
    """An aggregate over the rows of a group; allowed only at the top of an aggregate's output.

    `params` are the constants after the argument: `quantile(x, 0.9)` has one, a Float64.
    """

    fn: str
    arg: Expr | None = None
    distinct: bool = False
    params: tuple[Literal, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Named:
    """An expression and the name of its column; see `Expr.alias`."""

    expr: Expr
    name: str

    def __repr__(self) -> str:
        return f"<Named {self.expr!s} as {self.name}>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SortKey:
    """One sort key: ascending unless `descending`, NULL last unless `nulls_first`."""

    expr: Expr
    descending: bool = False
    nulls_first: bool = False

    def __str__(self) -> str:
        down, first = " desc" * self.descending, " nulls first" * self.nulls_first
        return f"{self.expr!s}{down}{first}"

    def __repr__(self) -> str:
        return f"<SortKey {self!s}>"


def call(fn: str, *args: object) -> Call:
    """Return `fn` applied to `args`; Python values become literals.

    Chains of `and`, `or` and `concat` become one call with many arguments, so that a condition of a
    thousand terms is still shallow.
    """
    operands = tuple(as_expr(arg) for arg in args)
    if fn in FLAT and isinstance(operands[0], Call) and operands[0].fn == fn:
        operands = (*operands[0].args, *operands[1:])
    return Call(fn, operands)


def as_expr(value: object) -> Expr:
    """Return `value` itself if it is an expression, else its literal.

    A proxy for an expression, such as a value inside a traced function, has `__expr__`.
    """
    if isinstance(value, Expr):
        return value
    convert = getattr(type(value), "__expr__", None)
    return lit(value) if convert is None else convert(value)


def as_type(name: DataType | str) -> DataType:
    """Return the data type called `name`."""
    return parse_type(name) if isinstance(name, str) else name


def lit(value: object, type: DataType | str | None = None) -> Literal:  # noqa: A002  # its name on the wire
    """Return a literal; without `type` the type is inferred from the Python value.

    Args:
        value: bool, int, float, str, bytes, Decimal, date, datetime, time, timedelta or None.
        type: a data type or its name; required for a lone NULL.

    Raises:
        UsageError: `value` has an unsupported type or does not fit `type`.
    """
    from emsqrt.expr.literals import make_literal

    return make_literal(value, None if type is None else as_type(type))
