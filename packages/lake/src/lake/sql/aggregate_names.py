"""Which functions aggregate rows: DuckDB's aggregate functions, and its macros that call one."""

from __future__ import annotations

import re
from contextlib import closing
from functools import lru_cache

from lake.sql.guard import open_parser

__all__ = ["aggregate_names"]

_FUNCTIONS = """
SELECT lower(function_name), function_type, lower(macro_definition) FROM duckdb_functions()
WHERE function_type IN ('aggregate', 'macro')
"""
# Not the name of a function in a text, as of `list_aggr(l, 'sum')`, which aggregates no rows.
_WORD = re.compile(r"'[^']*'|([a-z_][a-z0-9_]*)")


@lru_cache(maxsize=1)
def aggregate_names() -> frozenset[str]:
    """Return the names, in lower case."""
    with closing(open_parser()) as connection:
        rows = connection.execute(_FUNCTIONS).fetchall()
    names = {name for name, kind, _ in rows if kind == "aggregate"}
    macros = {name: set(_WORD.findall(body)) for name, _, body in rows if body is not None}
    # A macro may call another one, so this ends when a round finds no more.
    while found := {name for name, words in macros.items() if name not in names and words & names}:
        names |= found
    return frozenset(names)
