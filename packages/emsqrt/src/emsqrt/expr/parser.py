"""Parse an expression's text: `age > 25 and name == "Alice"`, in Python's or SQL's spelling.

```
or: and {"or" and}          and: not {"and" not}        not: "not" not | comparison
comparison: join [op join | is [not] (null|true|false) | [not] in (…) | [not] between join and join
    | [not] (like|ilike) join]
join: sum {"||" sum}        sum: product {(+|-) (product|interval)}      product: sign {(*|/|//|%) sign}
interval: interval '3 months' | interval '3' month | interval 3 month | interval (or) month
sign: [-|+] sign | atom     atom: number | 'text' | "text" | name | `any name` | true | false | null
    | (or) | function(…) | cast(or as Type) | try_cast(or as Type) | extract(part from or)
    | case [or] when … then … [else …] end | Type 'text' | count(*) | count(distinct or)
named: or [as name]         order: or [asc|desc] [nulls (first|last)]
```
Both kinds of quotes enclose text; a name with other characters is written in backticks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from emsqrt.expr.aggregates import check_params
from emsqrt.expr.functions import (
    AGGREGATES,
    RESERVED_AGGREGATES,
    check_aggregate,
    function,
)
from emsqrt.expr.lexer import Token, fail_at, tokens_of
from emsqrt.expr.literals import parse_spelling
from emsqrt.expr.nodes import Agg, Case, Cast, Column, Expr, Literal, call, lit
from emsqrt.expr.rules import DIGITS_MAX
from emsqrt.expr.signatures_time import UNITS
from emsqrt.expr.type_names import TYPE_NAMES, parse_type
from emsqrt.expr.walk import depth_of
from emsqrt.expr.wire import EXPR_DEPTH_MAX
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType

COMPARISONS = {
    "=": "eq", "==": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
}  # fmt: skip
PRODUCTS = {"*": "mul", "/": "div", "//": "idiv", "%": "mod"}
ALIASES = {
    "mean": "avg",
    "len": "length",
    "char_length": "length",
    "substring": "substr",
    "ceiling": "ceil",
    "stddev_samp": "stddev",
    "var_samp": "var",
    "variance": "var",
    "count_distinct": "count",
    "approx_distinct": "approx_count_distinct",
    "quantile_cont": "quantile",
    "percentile_disc": "quantile_disc",
    "ifnull": "coalesce",
    "pow": "power",
    "log": "log10",
    "position": "strpos",
    "instr": "strpos",
    "dayofweek": "dow",
    "day_of_week": "dow",
    "dayofyear": "doy",
    "day_of_year": "doy",
    "weekofyear": "week",
    "datetrunc": "date_trunc",
    "datediff": "date_diff",
}
PARTS = (
    *("year", "quarter", "month", "week", "day", "dow", "isodow", "doy"),
    *("hour", "minute", "second", "epoch"),
)
"""The parts of `extract(part from x)`; each is a function too."""
INTERVAL = re.compile(r"\s*([+-]?[0-9]{1,15})\s*([a-zA-Z]+)?\s*")
BRACKETS_MAX = 40
"""Levels of brackets; each needs a dozen of Python's stack frames."""


def parse_expr(text: str) -> Expr:
    """Return the expression written in `text`.

    Raises:
        BadExpression: it does not parse; the error shows the line and the position.
        Unsupported: it calls a function that is reserved for a later version.
    """
    return _Parser(text).whole()


def parse_named(text: str) -> tuple[str, Expr]:
    """Return the output column written in `text`: `old_name AS new_name`, `a * 2 AS b`, or a column.

    Raises:
        BadExpression: it does not parse, or it is an expression without a name.
    """
    parser = _Parser(text)
    return parser.named_column()


def parse_order(text: str) -> tuple[Expr, bool, bool | None]:
    """Return the sort key written in `text`, such as `amount desc nulls first`.

    Returns:
        the expression, whether it is descending, and whether NULLs are first (None: unspecified).

    Raises:
        BadExpression: it does not parse.
    """
    return _Parser(text).order()


class _Parser:
    """A recursive descent parser with one token of look-ahead; a method per line of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens_of(text)
        self.index = 0
        self.depth = 0

    def whole(self) -> Expr:
        expr = self.first()
        self.end()
        return expr

    def named_column(self) -> tuple[str, Expr]:
        expr = self.first()
        if self.accept("as"):
            token = self.advance()
            if token.kind not in ("name", "quoted", "string"):
                self.fail("expected a name after as", token)
            self.end()
            return token.text, expr
        self.end()
        if not isinstance(expr, Column):
            self.fail(f"{expr!s} needs a name", self.tokens[0], f"write {expr!s} as …")
        return expr.name, expr

    def order(self) -> tuple[Expr, bool, bool | None]:
        expr, descending, nulls_first = self.first(), False, None
        if word := self.accept_name("asc", "desc"):
            descending = word == "desc"
        if self.accept_name("nulls"):
            word = self.accept_name("first", "last")
            if word is None:
                self.fail("expected first or last after nulls")
            nulls_first = word == "first"
        self.end()
        return expr, descending, nulls_first

    def first(self) -> Expr:
        if self.peek.kind == "end":
            self.fail("expected an expression, found nothing")
        expr = self.disjunction()
        if depth_of(expr) > EXPR_DEPTH_MAX:
            self.fail(f"nested deeper than {EXPR_DEPTH_MAX} levels", self.tokens[0])
        return expr

    def end(self) -> None:
        if self.peek.kind != "end":
            self.fail(f"expected the end, found {self.peek.text!r}")

    # Tokens ---------------------------------------------------------------------------------
    @property
    def peek(self) -> Token:
        return self.tokens[self.index]

    def advance(self) -> Token:
        token = self.peek
        self.index += token.kind != "end"
        return token

    def at_keyword(self, word: str) -> bool:
        return self.peek.kind == "keyword" and self.peek.text == word

    def accept(self, *words: str) -> str | None:
        """Consume the next token if it is one of these symbols or keywords."""
        if self.peek.kind in ("symbol", "keyword") and self.peek.text in words:
            return self.advance().text
        return None

    def accept_name(self, *words: str) -> str | None:
        """Consume the next token if it is one of these names, which are keywords only here."""
        if self.peek.kind == "name" and self.peek.text.lower() in words:
            return self.advance().text.lower()
        return None

    def expect(self, word: str) -> None:
        if not self.accept(word):
            found = self.peek.text
            self.fail(f"expected {word!r}, found {found!r}" if found else f"{word!r} is missing")

    def fail(self, reason: str, token: Token | None = None, hint: str | None = None) -> NoReturn:
        fail_at(self.text, (token or self.peek).offset, reason, hint)

    # Operators ------------------------------------------------------------------------------
    def disjunction(self) -> Expr:
        self.depth += 1
        if self.depth > BRACKETS_MAX:
            self.fail(f"brackets nested deeper than {BRACKETS_MAX} levels")
        expr = self.chain({"or": "or"}, self.conjunction)
        self.depth -= 1
        return expr

    def conjunction(self) -> Expr:
        return self.chain({"and": "and"}, self.negation)

    def negation(self) -> Expr:
        count = 0
        while self.accept("not"):
            count += 1
        expr = self.comparison()
        for _ in range(count):
            expr = call("not", expr)
        return expr

    def comparison(self) -> Expr:
        left = self.join()
        if symbol := self.accept(*COMPARISONS):
            expr: Expr = call(COMPARISONS[symbol], left, self.join())
            if self.peek.text in COMPARISONS and self.peek.kind == "symbol":
                joined = any(token.text == "||" for token in self.tokens[: self.index])
                hint_text = "|| joins texts: write or" if joined else "write a < x and x < b"
                self.fail("comparisons do not chain", hint=hint_text)
            return expr
        if self.accept("is"):
            negated = self.accept("not") is not None
            return self.negate(self.test(left), negated)
        negated = self.accept("not") is not None
        if word := self.accept("in", "between", "like", "ilike"):
            return self.negate(self.predicate(word, left), negated)
        if negated:
            self.fail("expected in, between, like or ilike after not")
        return left

    def test(self, left: Expr) -> Expr:
        """Parse the rest of `is`; its result is never NULL."""
        match self.accept("null", "true", "false"):
            case "true":
                return call("coalesce", left, lit(False))
            case "false":
                return call("coalesce", call("not", left), lit(False))
            case "null":
                return call("is_null", left)
        return self.fail("expected null, true or false after is")

    def predicate(self, word: str, left: Expr) -> Expr:
        if word == "between":
            low = self.join()
            self.expect("and")
            return call("between", left, low, self.join())
        if word in ("like", "ilike"):
            return call(word, left, self.join())
        self.expect("(")
        return call("is_in", left, *self.arguments())

    @staticmethod
    def negate(expr: Expr, negated: bool) -> Expr:
        return call("not", expr) if negated else expr

    def join(self) -> Expr:
        return self.chain({"||": "concat"}, self.sum)

    def sum(self) -> Expr:
        expr = self.product()
        while symbol := self.accept("+", "-"):
            moved = self.interval(expr, negative=symbol == "-")
            fn = "add" if symbol == "+" else "sub"
            expr = call(fn, expr, self.product()) if moved is None else moved
        return expr

    def interval(self, timestamp: Expr, *, negative: bool) -> Expr | None:
        """Parse `interval '3 months'` and return the shifted time, None if there is no interval."""
        following = self.tokens[min(self.index + 1, len(self.tokens) - 1)]
        opens = following.kind in ("string", "number") or following.text == "("
        if not opens or not self.accept_name("interval"):
            return None
        token, unit = self.peek, None
        if self.accept("("):
            count = self.disjunction()
            self.expect(")")
        else:
            match = INTERVAL.fullmatch(self.advance().text)
            if match is None:
                self.fail("expected a whole number, as in interval '3 months'", token)
            count, unit = lit(int(match[1])), match[2]
        if unit is None:
            unit = self.advance().text
        name = unit.lower().removesuffix("s")
        if name not in UNITS:
            self.fail(f"no interval is counted in {unit!r}", token, f"units: {', '.join(UNITS)}")
        if negative:
            number = count.value if isinstance(count, Literal) else None
            count = lit(-number) if isinstance(number, int) else call("neg", count)
        return call("date_add", lit(name), count, timestamp)

    def product(self) -> Expr:
        return self.chain(PRODUCTS, self.sign)

    def chain(self, operators: dict[str, str], operand: Callable[[], Expr]) -> Expr:
        """Parse `operand {operator operand}`, left-associative."""
        expr = operand()
        while symbol := self.accept(*operators):
            expr = call(operators[symbol], expr, operand())
        return expr

    def sign(self) -> Expr:
        signs = []
        while symbol := self.accept("-", "+"):
            signs.append(symbol)
        if signs and signs[-1] == "-" and self.peek.kind == "number":
            signs.pop()
            expr: Expr = self.number(self.advance(), negative=True)
        else:
            expr = self.atom()
        for _ in range(signs.count("-")):
            expr = call("neg", expr)
        return expr

    # Atoms ----------------------------------------------------------------------------------
    def atom(self) -> Expr:
        token = self.advance()
        match token.kind, token.text:
            case "number", _:
                return self.number(token, negative=False)
            case "string", text:
                return lit(text)
            case "quoted", name:
                return Column(name)
            case "name", _:
                return self.named(token)
            case "keyword", "true" | "false":
                return lit(token.text == "true")
            case "keyword", "null":
                return lit(None)
            case "keyword", "case":
                return self.case()
            case "symbol", "(":
                expr = self.disjunction()
                self.expect(")")
                return expr
            case "end", _:
                return self.fail("the expression ends too soon", token)
        return self.fail(f"expected a value, found {token.text!r}", token)

    def number(self, token: Token, *, negative: bool) -> Expr:
        text = f"-{token.text}" if negative else token.text
        if not token.text.isdigit():
            return lit(float(text))
        if len(token.text.lstrip("0")) > DIGITS_MAX:
            self.fail(
                f"{text} has more than {DIGITS_MAX} digits", token, "write it as a float: 1e40"
            )
        return lit(int(text))

    def named(self, token: Token) -> Expr:
        """Parse a name: a call, a typed literal, or a column."""
        if self.peek.text == "(" and self.peek.kind == "symbol":
            kind = self.type_with_parameters(token)
            return self.typed(token, kind) if kind else self.function(token)
        if self.peek.kind == "string" or self.at_keyword("null"):
            return self.typed(token, self.type(token, token.text))
        return Column(token.text)

    def typed(self, token: Token, kind: DataType) -> Expr:
        if self.accept("null"):
            return Literal(None, kind)
        text = self.advance()
        try:
            return Literal(parse_spelling(text.text, kind), kind)
        except UsageError as error:
            self.fail(str(error), text)

    def type_with_parameters(self, token: Token) -> DataType | None:
        """Parse `(…)` as a type's parameters if a text or null follows: Decimal(3,2) '1.50'."""
        if token.text.lower() not in ("decimal", "timestamp"):
            return None
        begin = self.index
        kind = self.type(token, token.text + self.parameters())
        if self.peek.kind == "string" or self.at_keyword("null"):
            return kind
        self.index = begin
        return None

    def parameters(self) -> str:
        parts: list[str] = []
        while not parts or parts[-1] != ")":
            token = self.advance()
            if token.kind == "end":
                self.fail("')' is missing", token)
            parts.append(token.text)
        return "".join(parts)

    def type(self, token: Token, name: str) -> DataType:
        """Return the type called `name`; see `emsqrt.expr.type_names`."""
        try:
            return parse_type(name)
        except UsageError as error:
            self.fail(str(error), token, error.hint or f"types: {', '.join(TYPE_NAMES)}")

    def function(self, token: Token) -> Expr:
        name = token.text.lower()
        self.expect("(")
        if name in ("cast", "try_cast"):
            return self.cast(strict=name == "cast")
        if name in ("extract", "date_part"):
            return self.part(separator="from" if name == "extract" else ",")
        if name == "if":
            return self.choice(token)
        known = ALIASES.get(name, name)
        if known in (*AGGREGATES, *RESERVED_AGGREGATES):
            return self.aggregate(known, distinct=name == "count_distinct")
        args = self.arguments()
        try:
            signature = function(known)
        except Unsupported:
            raise
        except UsageError as error:
            self.fail(str(error), token, error.hint)
        if not signature.args_min <= len(args) <= signature.args_max:
            self.fail(f"{known} does not accept {len(args)} argument(s)", token)
        return call(known, *args)

    def arguments(self) -> list[Expr]:
        """Parse `e, e, …)`; the opening bracket is already consumed."""
        args: list[Expr] = []
        if self.accept(")"):
            return args
        while True:
            args.append(self.disjunction())
            if self.accept(")"):
                return args
            self.expect(",")

    def aggregate(self, name: str, *, distinct: bool) -> Expr:
        check_aggregate(name)
        if name == "count" and self.accept("*", ")"):
            if self.tokens[self.index - 1].text == "*":
                self.expect(")")
            return Agg("count")
        distinct = self.accept("distinct") is not None or distinct
        token, args = self.peek, self.arguments()
        wanted = 1 + AGGREGATES[name].params
        if len(args) != wanted:
            self.fail(f"{name} takes {wanted} argument(s), not {len(args)}", token)
        try:
            return Agg(name, args[0], distinct, check_params(name, args[1:]))
        except UsageError as error:
            self.fail(str(error), token, error.hint)

    def part(self, *, separator: str) -> Expr:
        """Parse the rest of `extract(part from x)` or `date_part('part', x)`."""
        token = self.advance()
        name = token.text.lower()
        if token.kind not in ("name", "string") or name not in PARTS:
            self.fail(f"no part is called {token.text!r}", token, f"parts: {', '.join(PARTS)}")
        if separator == ",":
            self.expect(",")
        elif not self.accept_name("from"):
            self.fail(f"expected 'from', found {self.peek.text!r}")
        arg = self.disjunction()
        self.expect(")")
        return call(name, arg)

    def choice(self, token: Token) -> Expr:
        """Parse the rest of `if(condition, then, else)`."""
        args = self.arguments()
        if len(args) not in (2, 3):
            self.fail(f"if takes 2 or 3 arguments, not {len(args)}", token)
        return Case(((args[0], args[1]),), args[2] if len(args) == 3 else None)

    def cast(self, *, strict: bool) -> Expr:
        arg = self.disjunction()
        self.expect("as")
        token = self.advance()
        if token.kind != "name":
            self.fail("expected a type", token, f"types: {', '.join(TYPE_NAMES)}")
        name = token.text
        if self.peek.text == "(":
            name += self.parameters()
        kind = self.type(token, name)
        self.expect(")")
        return Cast(arg, kind, strict)

    def case(self) -> Expr:
        branches = []
        of = None if self.at_keyword("when") else self.disjunction()
        self.expect("when")
        while True:
            condition = self.disjunction()
            if of is not None:
                condition = call("eq", of, condition)
            self.expect("then")
            branches.append((condition, self.disjunction()))
            if not self.accept("when"):
                break
        default = self.disjunction() if self.accept("else") else None
        self.expect("end")
        return Case(tuple(branches), default)
