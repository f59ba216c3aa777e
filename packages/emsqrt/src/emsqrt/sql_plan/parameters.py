"""Bind `?`, `$1` and `$name`: as constants in the syntax tree, never as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from sqlglot import Token, TokenType, exp

from emsqrt.sql_plan.errors import fail
from emsqrt.sql_plan.grammar import parse_tokens, tokens_of
from sennit_core.errors import SqlError, Unsupported

Parameters: TypeAlias = "Sequence[Any] | Mapping[str, Any] | None"


def parse_statements(text: str) -> list[Any]:
    """Parse statements in DuckDB's dialect; number each `?` by its position in the text."""
    tokens: list[Token] = []
    number = 0
    for token in tokens_of(text):
        if token.token_type is not TokenType.PLACEHOLDER:
            tokens.append(token)
            continue
        number += 1
        place = (token.line, token.col, token.start, token.end)
        tokens += [
            Token(TokenType.PARAMETER, "$", *place),
            Token(TokenType.NUMBER, str(number), *place),
        ]
    return parse_tokens(tokens, text)


def bind(statement: Any, params: Parameters, text: str) -> Any:
    """Return the statement with a constant for each parameter.

    Raises:
        SqlError: a parameter has no value, or a value no parameter.
        Unsupported: a value that cannot be a constant of the covered subset.
    """
    values = _named(params)
    used: set[str] = set()

    def replaced(node: Any) -> Any:
        if not isinstance(node, exp.Placeholder | exp.Parameter):
            return node
        name = str(node.name)
        if name not in values:
            known = f"there are {', '.join(values)}" if values else "no value was passed"
            fail(node, text, f"the parameter ${name} has no value", known)
        used.add(name)
        return _constant(values[name], name)

    bound = statement.transform(replaced)
    if unused := [name for name in values if name not in used]:
        raise SqlError(f"the statement has no parameter ${unused[0]}")
    return bound


def _named(params: Parameters) -> dict[str, Any]:
    if params is None:
        return {}
    if isinstance(params, Mapping):
        return {str(name): value for name, value in params.items()}
    return {str(number): value for number, value in enumerate(params, 1)}


def _constant(value: Any, name: str) -> Any:
    match value:
        case None:
            return exp.Null()
        case bool():
            return exp.Boolean(this=value)
        case int():
            return _signed(exp.Literal.number(str(abs(value))), negative=value < 0)
        case float() if math.isfinite(value):
            # With an exponent it is a float; without one it would be a decimal.
            literal = exp.Literal.number(f"{abs(value):.17e}")
            return _signed(literal, negative=math.copysign(1.0, value) < 0)
        case str():
            return exp.Literal.string(value)
    raise Unsupported(f"the parameter ${name} is {value!r:.60}", hint="pass text, and CAST it")


def _signed(literal: Any, *, negative: bool) -> Any:
    return exp.Neg(this=literal) if negative else literal
