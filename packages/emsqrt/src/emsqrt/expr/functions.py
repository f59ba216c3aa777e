"""The functions of expressions: name, number of arguments, and typing rule.

One table for the parser, the checker, every engine and the documentation. A name in `RESERVED` is a
function of a later version: using it is refused as such.
"""

from __future__ import annotations

from dataclasses import dataclass

from sennit_core.errors import Unsupported, UsageError
from sennit_core.text import nearest

MANY = 10_000


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the expression language.

    `rule` is the typing rule in `emsqrt.expr.check`; `symbol` its operator in text, if it has one;
    `fallible` is true if the function may have no value for a row, which ends the run.
    """

    name: str
    args_min: int
    args_max: int
    rule: str
    symbol: str | None = None
    fallible: bool = False


def _table(*functions: Function) -> dict[str, Function]:
    return {function.name: function for function in functions}


FUNCTIONS: dict[str, Function] = _table(
    Function("add", 2, 2, "arithmetic", "+", fallible=True),
    Function("sub", 2, 2, "arithmetic", "-", fallible=True),
    Function("mul", 2, 2, "arithmetic", "*", fallible=True),
    Function("div", 2, 2, "quotient", "/"),
    Function("idiv", 2, 2, "integers", "//", fallible=True),
    Function("mod", 2, 2, "remainder", "%"),
    Function("neg", 1, 1, "number", fallible=True),
    Function("abs", 1, 1, "number", fallible=True),
    Function("round", 1, 2, "rounding", fallible=True),
    Function("floor", 1, 1, "rounding", fallible=True),
    Function("ceil", 1, 1, "rounding", fallible=True),
    Function("trunc", 1, 1, "rounding", fallible=True),
    Function("sign", 1, 1, "sign"),
    *(Function(name, 1, 1, "float") for name in ("sqrt", "exp", "ln", "log10", "log2")),
    *(Function(name, 1, 1, "float") for name in ("sin", "cos", "tan", "asin", "acos", "atan")),
    Function("atan2", 2, 2, "float"),
    Function("power", 2, 2, "float"),
    Function("pi", 0, 0, "float"),
    Function("eq", 2, 2, "comparison", "=="),
    Function("ne", 2, 2, "comparison", "!="),
    Function("lt", 2, 2, "comparison", "<"),
    Function("le", 2, 2, "comparison", "<="),
    Function("gt", 2, 2, "comparison", ">"),
    Function("ge", 2, 2, "comparison", ">="),
    Function("between", 3, 3, "comparison"),
    Function("is_in", 1, MANY, "comparison"),
    Function("and", 2, MANY, "logic", "and"),
    Function("or", 2, MANY, "logic", "or"),
    Function("not", 1, 1, "logic"),
    Function("is_null", 1, 1, "any_to_bool"),
    Function("is_nan", 1, 1, "float_to_bool"),
    Function("coalesce", 1, MANY, "common"),
    Function("greatest", 1, MANY, "common"),
    Function("least", 1, MANY, "common"),
    Function("nullif", 2, 2, "first_of_common"),
    Function("hash", 1, MANY, "hash"),
    Function("concat", 2, MANY, "text"),
    Function("upper", 1, 1, "text"),
    Function("lower", 1, 1, "text"),
    Function("initcap", 1, 1, "text"),
    Function("reverse", 1, 1, "text"),
    Function("trim", 1, 2, "text_trim"),
    Function("ltrim", 1, 2, "text_trim"),
    Function("rtrim", 1, 2, "text_trim"),
    Function("replace", 3, 3, "text"),
    Function("left", 2, 2, "text_count"),
    Function("right", 2, 2, "text_count"),
    Function("repeat", 2, 2, "text_count"),
    Function("lpad", 2, 3, "text_pad"),
    Function("rpad", 2, 3, "text_pad"),
    Function("split_part", 3, 3, "text_split"),
    Function("regexp_replace", 3, 4, "text_pattern"),
    Function("substr", 2, 3, "text_slice"),
    Function("length", 1, 1, "text_to_int"),
    Function("contains", 2, 2, "text_to_bool"),
    Function("starts_with", 2, 2, "text_to_bool"),
    Function("ends_with", 2, 2, "text_to_bool"),
    Function("like", 2, 2, "text_to_bool"),
    Function("ilike", 2, 2, "text_to_bool"),
    Function("regexp_matches", 2, 2, "text_to_bool"),
    Function("strpos", 2, 2, "text_to_int"),
    Function("year", 1, 1, "date_part"),
    Function("month", 1, 1, "date_part"),
    Function("day", 1, 1, "date_part"),
    Function("hour", 1, 1, "time_part"),
    Function("minute", 1, 1, "time_part"),
    Function("second", 1, 1, "time_part"),
    *(Function(name, 1, 1, "date_part") for name in ("quarter", "week", "dow", "isodow", "doy")),
    Function("epoch", 1, 1, "epoch"),
    Function("epoch_ms", 1, 1, "date_part"),
    Function("date_trunc", 2, 2, "date_trunc"),
    Function("date_diff", 3, 3, "date_diff", fallible=True),
    Function("date_add", 3, 3, "date_add", fallible=True),
    Function("make_date", 3, 3, "make_date", fallible=True),
    Function("strftime", 2, 2, "strftime"),
    Function("strptime", 2, 2, "strptime", fallible=True),
    Function("try_strptime", 2, 2, "strptime"),
    Function("list_get", 2, 2, "list_get"),
    Function("struct_get", 2, 2, "struct_get"),
)

RESERVED: frozenset[str] = frozenset()
"""Names of later versions."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregate: how many constants follow its argument, as 0.9 does in `quantile(x, 0.9)`."""

    name: str
    params: int = 0


AGGREGATES: dict[str, Aggregation] = {
    name: Aggregation(name, int(name in ("quantile", "quantile_disc")))
    for name in (
        *("count", "sum", "avg", "min", "max", "var", "stddev"),
        *("first", "last", "median", "quantile", "quantile_disc", "approx_count_distinct"),
    )
}
RESERVED_AGGREGATES = frozenset(("mode", "list_agg", "any", "all"))


def function(name: str) -> Function:
    """Return the function called `name`.

    Raises:
        Unsupported: the name is reserved for a later version.
        UsageError: the name is unknown; the hint suggests the nearest one.
    """
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name in RESERVED:
        raise Unsupported(f"function {name} is reserved, and no engine has it yet")
    guess = nearest(name, [*FUNCTIONS, *AGGREGATES])
    raise UsageError(
        f"unknown function {name!r}", hint=f"did you mean {guess!r}?" if guess else None
    )


def check_aggregate(name: str) -> str:
    """Return `name` if it is an aggregate; otherwise refuse it as `function` does."""
    if name in AGGREGATES:
        return name
    if name in RESERVED_AGGREGATES:
        raise Unsupported(f"aggregate {name} is reserved, and no engine has it yet")
    guess = nearest(name, AGGREGATES)
    raise UsageError(
        f"unknown aggregate {name!r}",
        hint=f"did you mean {guess!r}?" if guess else f"known: {', '.join(AGGREGATES)}",
    )
