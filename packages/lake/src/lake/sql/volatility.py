"""Which statements have another result when they run again over the same data.

DuckDB's own table of functions says which are volatile. What it does not say is listed here: clocks
that it calls consistent (found by calling every function twice, `tests/test_result_cache.py`), and
samples. The check is by name, and a column of such a name counts as the function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import duckdb

__all__ = ["is_volatile", "is_volatile_name", "volatile_names"]

_CLOCKS = frozenset(
    (
        # Not functions in the tree, but names that DuckDB's binder replaces by one.
        *("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"),
        # CONSISTENT in DuckDB's table. With one argument, `age` counts from today.
        *("current_localtime", "current_localtimestamp", "age"),
    )
)
_REPEATABLE_TABLE_FUNCTIONS = frozenset(
    ("range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree")
)
_WORD = re.compile(r"[a-z_][a-z0-9_]*")
_FUNCTIONS = """
SELECT lower(function_name), lower(macro_definition), stability
FROM duckdb_functions() WHERE stability <> 'CONSISTENT' OR macro_definition IS NOT NULL
"""


@lru_cache(maxsize=1)
def volatile_names() -> frozenset[str]:
    """Return the names, in lower case, of functions whose result depends on more than arguments."""
    with duckdb.connect(config={"threads": "1", "async_threads": "1"}) as connection:
        rows = connection.execute(_FUNCTIONS).fetchall()
    names = {name for name, _, stability in rows if stability is not None} | _CLOCKS
    macros = {name: frozenset(_WORD.findall(body)) for name, body, _ in rows if body is not None}
    # A macro may call another one, so this ends when a round finds no more.
    while found := {name for name, words in macros.items() if name not in names and words & names}:
        names |= found
    return frozenset(names)


def is_volatile_name(name: str) -> bool:
    """Return whether a function, by its name in lower case, depends on more than its arguments."""
    return name in volatile_names()


def is_volatile(nodes: Iterable[dict[str, Any]]) -> bool:
    """Return whether a statement may have another result each time it runs.

    Args:
        nodes: All nodes of its syntax tree (`json_serialize_sql`).
    """
    names = volatile_names()
    return any(_is_volatile(node, names) for node in nodes)


def _is_volatile(node: dict[str, Any], names: frozenset[str]) -> bool:
    if node.get("sample") is not None:
        return True
    if node.get("type") == "TABLE_FUNCTION":
        function = str(node["function"].get("function_name", "")).casefold()
        if function not in _REPEATABLE_TABLE_FUNCTIONS:
            return True
    if "function_name" in node:
        return str(node["function_name"]).casefold() in names
    columns = node.get("column_names") or [""]
    return str(columns[-1]).casefold() in names
