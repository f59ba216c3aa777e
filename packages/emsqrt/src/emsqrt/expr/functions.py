"""The functions an expression may call: name, number of arguments, and the rule that types them.

One table for the parser, the checker, every engine and the documentation. A word in `RESERVED` is
a function of a later version: using it is refused by name, never mistaken for something else.
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
    `fallible` says that a row's values may have no result, which ends the run.
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
    Function("concat", 2, MANY, "text"),
    Function("upper", 1, 1, "text"),
    Function("lower", 1, 1, "text"),
    Function("trim", 1, 1, "text"),
    Function("replace", 3, 3, "text"),
    Function("substr", 2, 3, "text_slice"),
    Function("length", 1, 1, "text_to_int"),
    Function("contains", 2, 2, "text_to_bool"),
    Function("starts_with", 2, 2, "text_to_bool"),
    Function("ends_with", 2, 2, "text_to_bool"),
    Function("like", 2, 2, "text_to_bool"),
    Function("year", 1, 1, "date_part"),
    Function("month", 1, 1, "date_part"),
    Function("day", 1, 1, "date_part"),
    Function("hour", 1, 1, "time_part"),
    Function("minute", 1, 1, "time_part"),
    Function("second", 1, 1, "time_part"),
)

RESERVED = frozenset(
    (
        *("date_trunc", "date_diff", "extract", "strftime", "strptime", "ilike", "regexp_matches"),
        *("split_part", "lpad", "rpad", "sqrt", "power", "exp", "ln", "sin", "cos", "hash"),
        *("list_get", "struct_get"),
    )
)

AGGREGATES = ("count", "sum", "avg", "min", "max", "var", "stddev")
RESERVED_AGGREGATES = frozenset(
    ("median", "quantile", "mode", "first", "last", "list_agg", "any", "all")
)


def function(name: str) -> Function:
    """Return the function called `name`.

    Raises:
        Unsupported: the name is reserved for a later version.
        UsageError: nobody knows the name; the hint gives the nearest one.
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
    """Return `name` when it is an aggregate; refuse it as `function` does otherwise."""
    if name in AGGREGATES:
        return name
    if name in RESERVED_AGGREGATES:
        raise Unsupported(f"aggregate {name} is reserved, and no engine has it yet")
    guess = nearest(name, AGGREGATES)
    raise UsageError(
        f"unknown aggregate {name!r}",
        hint=f"did you mean {guess!r}?" if guess else f"known: {', '.join(AGGREGATES)}",
    )
