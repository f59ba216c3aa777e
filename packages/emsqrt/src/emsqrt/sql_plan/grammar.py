"""DuckDB's grammar, except that calls of the engine's own functions stay plain calls.

sqlglot converts calls that it knows to nodes with other names and operands, which differ between
versions and lose parts of the call: `date_add('month', 1, d)` becomes `CAST('month' AS DATE) +
INTERVAL 1 DAY`. A call by a name of `emsqrt.expr.functions` means that function and needs no
conversion.
"""

from __future__ import annotations

from typing import Any

from sqlglot import Token
from sqlglot.dialects.dialect import Dialect

from emsqrt.expr.functions import AGGREGATES, FUNCTIONS
from emsqrt.expr.parser import ALIASES

SQL_MEANING = frozenset(("concat", "log", "trim", "ltrim", "rtrim", "and", "or"))
"""Calls with another meaning in SQL: CONCAT skips NULL, LOG has a base, TRIM has FROM."""
_PLAIN = (
    frozenset(FUNCTIONS) | {name for name, meant in ALIASES.items() if meant not in AGGREGATES}
) - SQL_MEANING


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of statements in DuckDB's spelling."""
    return list(Dialect.get_or_raise("duckdb").tokenize(text))


def parse_tokens(tokens: list[Token], text: str) -> list[Any]:
    """Return the syntax tree of each statement; `text` is for positions in errors."""
    parser: Any = Dialect.get_or_raise("duckdb").parser()
    parser.FUNCTIONS = {
        name: build for name, build in parser.FUNCTIONS.items() if name.lower() not in _PLAIN
    }
    return list(parser.parse(tokens, text))
