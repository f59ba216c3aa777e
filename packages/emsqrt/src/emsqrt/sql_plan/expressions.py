"""Convert sqlglot's expressions to the engine's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from sqlglot import exp, parse_one

from emsqrt.expr import Agg, Case, Cast, Expr, Literal, lit
from emsqrt.expr.aggregates import check_params
from emsqrt.expr.functions import AGGREGATES as AGGREGATE_NAMES
from emsqrt.expr.functions import FUNCTIONS
from emsqrt.expr.literals import parse_spelling
from emsqrt.expr.nodes import call
from emsqrt.expr.parser import ALIASES, PARTS
from emsqrt.expr.rules import DIGITS_MAX
from emsqrt.expr.signatures_time import UNITS
from emsqrt.sql_plan.errors import fail, refuse
from emsqrt.sql_plan.types import sql_type
from sennit_core.errors import UsageError
from sennit_core.text import nearest

Node: TypeAlias = Any
"""A node of sqlglot's tree."""

OPERATORS: dict[type, str] = {
    exp.Add: "add", exp.Sub: "sub", exp.Mul: "mul", exp.Div: "div", exp.IntDiv: "idiv",
    exp.Mod: "mod", exp.EQ: "eq", exp.NEQ: "ne", exp.LT: "lt", exp.LTE: "le", exp.GT: "gt",
    exp.GTE: "ge", exp.And: "and", exp.Or: "or", exp.DPipe: "concat", exp.Pow: "power",
    exp.Like: "like", exp.ILike: "ilike", exp.StartsWith: "starts_with",
}  # fmt: skip
"""Operators between `this` and `expression`."""
UNARY: dict[type, str] = {
    exp.Not: "not", exp.Abs: "abs", exp.Floor: "floor", exp.Ceil: "ceil", exp.IsNan: "is_nan",
}  # fmt: skip
"""Prefix operators, and calls that sqlglot has a grammar of its own for."""
NAMED: dict[type, tuple[str, tuple[str, ...]]] = {
    exp.Substring: ("substr", ("this", "start", "length")),
    exp.StrPosition: ("strpos", ("this", "substr")),
    exp.StructExtract: ("struct_get", ("this", "expression")),
}
"""Calls whose operands are separated by keywords, or have other names."""
AGGREGATES: dict[type, str] = {
    exp.Count: "count", exp.Sum: "sum", exp.Avg: "avg", exp.Min: "min", exp.Max: "max",
    exp.Stddev: "stddev", exp.StddevSamp: "stddev", exp.Variance: "var", exp.Median: "median",
    exp.First: "first", exp.Last: "last", exp.ApproxDistinct: "approx_count_distinct",
    exp.PercentileCont: "quantile", exp.PercentileDisc: "quantile_disc",
}  # fmt: skip
_OF_NO_MATTER = ("big_int", "safe", "single_replace", "typed")
"""Members of nodes that do not affect the meaning here."""
_ALIASES = {**ALIASES, "list_extract": "list_get", "array_extract": "list_get"}
_MOVED = ("date_trunc", "date_diff", "date_add")
"""Functions whose first operand is a unit."""


class Converter:
    """Convert expressions of one scope.

    Args:
        text: the statement, for positions in errors.
        column: resolves a column's reference.
        made: replacements of expressions that were already computed, by their SQL.
    """

    def __init__(
        self, text: str, column: Callable[[Node], Expr], made: Mapping[str, Expr] | None = None
    ) -> None:
        self.text = text
        self.column = column
        self.made = dict(made or {})

    def __call__(self, node: Node) -> Expr:
        """Return the expression; raises Unsupported or SqlError with its position."""
        known = self.made.get(key_of(node))
        if known is not None:
            return known
        kind = type(node)
        if kind in OPERATORS:
            self._refuse_extra(node, ("this", "expression", "negate"))
            made = self._operator(node, OPERATORS[kind])
            return call("not", made) if node.args.get("negate") else made
        if kind in UNARY:
            if node.args.get("decimals") is not None:
                refuse(node, self.text, f"{UNARY[kind]} to digits")
            self._refuse_extra(node, ("this",))
            return call(UNARY[kind], self(node.this))
        if kind in NAMED:
            name, keys = NAMED[kind]
            self._refuse_extra(node, keys)
            operands = [node.args[key] for key in keys if node.args.get(key) is not None]
            return call(name, *map(self, operands))
        handler = _FORMS.get(kind)
        if handler is not None:
            return handler(self, node)
        if kind in AGGREGATES:
            fail(node, self.text, "an aggregate is not allowed here", "use HAVING, or a subquery")
        return refuse(node, self.text, _word(node))

    def aggregate(self, node: Node) -> Agg:
        """Return an aggregate function's node as an aggregate."""
        name, arg = AGGREGATES[type(node)], node.this
        self._refuse_extra(node, ("this", "expression", "expressions"))
        if isinstance(arg, exp.Star) or arg is None:
            return Agg("count")
        distinct = isinstance(arg, exp.Distinct)
        if distinct:
            if len(arg.expressions) != 1:
                refuse(node, self.text, "DISTINCT of several values")
            arg = arg.expressions[0]
        if node.expressions:
            refuse(node, self.text, f"{name} of several values")
        extra = [self(node.expression)] if node.args.get("expression") is not None else []
        params, value = tuple(_plain_number(each) for each in extra), self(arg)
        try:
            return Agg(name, value, distinct, check_params(name, params))
        except UsageError as error:
            fail(node, self.text, str(error), error.hint)

    def _refuse_extra(self, node: Node, known: Sequence[str]) -> None:
        """Refuse a function call with members that are not supported."""
        for name, value in node.args.items():
            if value and name not in known and name not in _OF_NO_MATTER:
                refuse(node, self.text, f"{_word(node)} with a {name}")

    def _operator(self, node: Node, name: str) -> Expr:
        left, right = node.this, node.expression
        if isinstance(right, exp.Interval) and name in ("add", "sub"):
            return self.moved(left, right, negative=name == "sub")
        if isinstance(left, exp.Interval) and name == "add":
            return self.moved(right, left, negative=False)
        return call(name, self(left), self(right))

    def moved(self, timestamp: Node, interval: Node, *, negative: bool) -> Expr:
        """Return a timestamp plus or minus an interval of one unit."""
        unit = str(interval.unit).lower().removesuffix("s") if interval.unit else ""
        if unit not in UNITS:
            refuse(interval, self.text, "an interval of several units")
        count = self(interval.this)
        if isinstance(count, Literal) and isinstance(count.value, str):
            if not re.fullmatch(r"\s*[+-]?[0-9]{1,15}\s*", count.value):
                refuse(interval, self.text, "an interval of a fraction")
            count = lit(int(count.value))
        if negative:
            number = count.value if isinstance(count, Literal) else None
            count = lit(-number) if isinstance(number, int) else call("neg", count)
        return call("date_add", unit, count, self(timestamp))


def key_of(node: Node) -> str:
    """Return the text that identifies equal expressions."""
    text: str = node.sql(dialect="duckdb", normalize=True)
    return text


def _plain_number(value: Expr) -> Expr:
    """Return a decimal constant as a float, the type of parameters."""
    if isinstance(value, Literal) and isinstance(value.value, Decimal):
        return lit(float(value.value))
    return value


def _word(node: Node) -> str:
    name = node.name if isinstance(node, exp.Anonymous) else type(node).__name__
    kind = "the function" if isinstance(node, exp.Func) else "the construct"
    return f"{kind} {name}"


# Nodes with conversions of their own -------------------------------------------------------------


def _literal(c: Converter, node: Node) -> Expr:
    text = str(node.this)
    if node.is_string:
        return lit(text)
    if re.fullmatch(r"[0-9]+", text):
        if len(text.lstrip("0")) > DIGITS_MAX:
            refuse(node, c.text, f"an integer of more than {DIGITS_MAX} digits")
        return lit(int(text))
    return lit(float(text)) if "e" in text.lower() else lit(Decimal(text))


def _negated(c: Converter, node: Node) -> Expr:
    value = c(node.this)
    number = value.value if isinstance(value, Literal) else None
    bare = isinstance(node.this, exp.Literal)
    if bare and isinstance(number, Decimal) and number:
        return lit(number.copy_negate())
    if bare and isinstance(number, int | float) and number:
        return lit(-number)
    return call("neg", value)


def _is(c: Converter, node: Node) -> Expr:
    what = node.expression
    if isinstance(what, exp.Null):
        is_null = call("is_null", c(node.this))
        return call("not", is_null) if node.args.get("negate") else is_null
    if isinstance(what, exp.Boolean):
        value = c(node.this)
        return call("coalesce", value if what.this else call("not", value), lit(False))
    return refuse(node, c.text, "IS with anything but NULL, TRUE and FALSE")


def _in(c: Converter, node: Node) -> Expr:
    if node.args.get("query") is not None or node.args.get("unnest") is not None:
        refuse(node, c.text, "IN (SELECT …)", "write a join, or SEMI JOIN")
    return call("is_in", c(node.this), *map(c, node.expressions))


def _case(c: Converter, node: Node) -> Expr:
    of = node.this
    branches = []
    for each in node.args["ifs"]:
        condition = c(each.this) if of is None else call("eq", c(of), c(each.this))
        branches.append((condition, c(each.args["true"])))
    default = node.args.get("default")
    return Case(tuple(branches), None if default is None else c(default))


def _if(c: Converter, node: Node) -> Expr:
    default = node.args.get("false")
    branch = (c(node.this), c(node.args["true"]))
    return Case((branch,), None if default is None else c(default))


def _cast(c: Converter, node: Node) -> Expr:
    kind, strict = sql_type(node.args["to"], c.text), not isinstance(node, exp.TryCast)
    constant = isinstance(node.this, exp.Literal) and node.this.is_string
    if constant and kind.name in ("Date", "Timestamp"):
        try:
            return Literal(parse_spelling(node.this.this, kind), kind)
        except UsageError as error:
            if strict:
                fail(node, c.text, str(error), error.hint)
    return Cast(c(node.this), kind, strict)


def _concat(c: Converter, node: Node) -> Expr:
    parts = [call("coalesce", c(each), lit("")) for each in node.expressions]
    return parts[0] if len(parts) == 1 else call("concat", *parts)


def _trim(c: Converter, node: Node) -> Expr:
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(node.args.get("position") or "", "trim")
    chars = node.args.get("expression")
    return call(name, c(node.this), *([] if chars is None else [c(chars)]))


def _log(c: Converter, node: Node) -> Expr:
    if node.args.get("expression") is None:
        return call("log10", c(node.this))
    if node.this.sql() not in ("2", "10"):
        refuse(node, c.text, "a logarithm to a base other than 2 and 10")
    return call(f"log{node.this.sql()}", c(node.expression))


def _extract(c: Converter, node: Node) -> Expr:
    part = node.this.name.lower()
    name = {"dayofweek": "dow", "dayofyear": "doy"}.get(part, part)
    if name not in PARTS:
        refuse(node, c.text, f"extract of {part}")
    return call(name, c(node.expression))


def _called(c: Converter, node: Node) -> Expr:
    """Return a call by the name of one of the engine's functions."""
    name, operands = str(node.this).lower(), node.expressions
    if name == "date_part" and len(operands) == 2:
        name, operands = _word_of(operands[0]), operands[1:]
    if name == "date_add" and len(operands) == 2 and isinstance(operands[1], exp.Interval):
        return c.moved(operands[0], operands[1], negative=False)
    known = FUNCTIONS.get(_ALIASES.get(name, name))
    if known is None:
        refuse(node, c.text, f"the function {name}", _nearest_function(name))
    if not known.args_min <= len(operands) <= known.args_max:
        refuse(node, c.text, f"{name} with {len(operands)} arguments")
    if known.name in _MOVED:
        unit = _word_of(operands[0])
        if unit not in UNITS:
            refuse(node, c.text, f"the unit {unit}", f"units: {', '.join(UNITS)}")
        return call(known.name, unit, *map(c, operands[1:]))
    return call(known.name, *map(c, operands))


def _word_of(node: Node) -> str:
    """Return a unit or a part of a timestamp, as text or bare, in lower case."""
    return str(node.name).lower()


def _nearest_function(name: str) -> str | None:
    guess = nearest(name, [*FUNCTIONS, *AGGREGATE_NAMES])
    return f"did you mean {guess}?" if guess else None


def _item(c: Converter, node: Node) -> Expr:
    """Return `l[1]` and `r['name']`; sqlglot subtracts 1 from each index."""
    if len(node.expressions) != 1 or isinstance(node.expressions[0], exp.Slice):
        refuse(node, c.text, "a slice")
    at = c(node.expressions[0])
    if isinstance(at, Literal) and isinstance(at.value, str):
        return call("struct_get", c(node.this), at)
    if isinstance(at, Literal) and isinstance(at.value, int):
        return call("list_get", c(node.this), at.value + 1)
    return refuse(node, c.text, "an item by anything but a constant")


def _overlaps(c: Converter, node: Node) -> Expr:
    return refuse(node, c.text, "&&, which is for lists,", "between conditions, write AND")


def _matches(c: Converter, node: Node) -> Expr:
    hint = "write regexp_matches(s, pattern), with ^ and $ where the whole text should match"
    return refuse(node, c.text, "the operator ~", hint)


def _initcap(c: Converter, node: Node) -> Expr:
    usual = parse_one("initcap('')", dialect="duckdb").args.get("expression")
    if node.args.get("expression") != usual:
        refuse(node, c.text, "initcap with delimiters")
    return call("initcap", c(node.this))


def _distinct_from(c: Converter, node: Node) -> Expr:
    """Return an equality that holds for two NULLs, and is never NULL itself."""
    left, right = c(node.this), c(node.expression)
    both = call("and", call("is_null", left), call("is_null", right))
    same = call("or", call("coalesce", call("eq", left, right), lit(False)), both)
    return same if isinstance(node, exp.NullSafeEQ) else call("not", same)


_FORMS: dict[type, Callable[[Converter, Node], Expr]] = {
    exp.Column: lambda c, node: c.column(node),
    exp.Paren: lambda c, node: c(node.this),
    exp.Alias: lambda c, node: c(node.this),
    exp.Literal: _literal,
    exp.Neg: _negated,
    exp.Boolean: lambda _, node: lit(bool(node.this)),
    exp.Null: lambda _c, _node: lit(None),
    exp.Is: _is,
    exp.In: _in,
    exp.Between: lambda c, node: call(
        "between", c(node.this), c(node.args["low"]), c(node.args["high"])
    ),
    exp.Case: _case,
    exp.If: _if,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Concat: _concat,
    exp.Trim: _trim,
    exp.Initcap: _initcap,
    exp.Log: _log,
    exp.Extract: _extract,
    exp.Anonymous: _called,
    exp.Bracket: _item,
    exp.ArrayOverlaps: _overlaps,
    exp.RegexpLike: _matches,
    exp.NullSafeEQ: _distinct_from,
    exp.NullSafeNEQ: _distinct_from,
}
