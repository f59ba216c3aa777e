"""Refuse in SET of UPDATE what DuckDB refuses there, with its words.

The values are computed by a query, whose SELECT allows more: a window function over the rows to change, or
an unnest, which makes several rows of one.
"""

from __future__ import annotations

from collections.abc import Iterable

from lake.sql.aggregate_names import aggregate_names
from lake.sql.guard import own_nodes
from lake.sql.statement_reader import Clause
from sennit_core.errors import SqlError

__all__ = ["check_values"]

_BEFORE = "SELECT ("
_UNNESTING = frozenset(("unnest", "unlist", "generate_subscripts"))


def check_values(values: Iterable[Clause], sql: str) -> None:
    """Refuse values that are not computed from one row.

    Args:
        values: The expressions of SET.
        sql: The statement, for places of errors.

    Raises:
        SqlError: One has a window function, an aggregate or an unnest outside of a subquery.
    """
    for clause in values:
        for node in own_nodes(f"{_BEFORE}{clause.text}\n)"):
            if (problem := _problem(node)) is not None:
                # DuckDB counts bytes of UTF-8.
                start = int(node["query_location"]) - len(_BEFORE)
                before = clause.text.encode()[: max(start, 0)].decode(errors="ignore")
                offset = clause.offset + len(before)
                line = sql.count("\n", 0, offset) + 1
                column = offset - (sql.rfind("\n", 0, offset) + 1) + 1
                raise SqlError(problem, line=line, column=column, offset=offset)


def _problem(node: dict[str, object]) -> str | None:
    if node.get("class") == "WINDOW":
        return "window functions are not allowed in UPDATE"
    name = str(node.get("function_name", "")).casefold()
    if name in _UNNESTING:
        return "UNNEST not supported here"
    if name in aggregate_names():
        return "aggregate functions are not allowed in UPDATE"
    return None
