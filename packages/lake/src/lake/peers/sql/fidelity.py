"""Check that sqlglot read a statement as DuckDB does: what sqlglot writes has the same tree in DuckDB.

sqlglot converts calls that it knows to nodes of its own, and some come back as other calls. A fragment
that it wrote would then mean something else. So DuckDB compares: the tree of the statement with the
tree of sqlglot's text, without positions. Spellings that DuckDB binds alike are listed here.
"""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from lake.peers.sql.engine import Engine
from lake.peers.sql.errors import NotDistributed

__all__ = ["DIALECT", "check_fidelity"]

DIALECT = "duckdb"
_SAME_FUNCTIONS = {
    "substr": "substring",
    "max_by": "arg_max",
    "min_by": "arg_min",
    "argmax": "arg_max",
    "argmin": "arg_min",
    "list": "array_agg",
    "pow": "power",
    "**": "power",
    "mean": "avg",
    "stddev": "stddev_samp",
    "variance": "var_samp",
    "datediff": "date_diff",
    "datetrunc": "date_trunc",
    "datepart": "date_part",
}
_UNITS_FIRST = frozenset(("date_diff", "date_trunc", "date_part", "date_sub"))
"""Functions whose first argument is a unit, which sqlglot writes in capitals."""
_INTERVALS = frozenset(
    f"to_{unit}" for unit in ("years", "months", "weeks", "days", "hours", "minutes", "seconds")
)
_SAME_ORDERS = {"order_default": "", "ascending": "", "nulls_last": "", "nulls last": ""}
_OPPOSITES = {
    "operator_is_null": "operator_is_not_null",
    "compare_not_distinct_from": "compare_distinct_from",
}
_BOOLEANS = frozenset(("bool_and", "bool_or"))


def check_fidelity(sql: str, query: exp.Expr, engine: Engine) -> None:
    """Check that a tree of sqlglot means what DuckDB reads in the text.

    Raises:
        NotDistributed: sqlglot would write something else.
    """
    written = query.sql(dialect=DIALECT, comments=False)
    if _canonical(engine.tree(sql)) != _canonical(engine.tree(written)):
        raise NotDistributed("sqlglot does not write this statement as DuckDB reads it")


def _canonical(node: Any, *, exact: bool = False) -> Any:
    """Return a tree without positions, and with one spelling of each function.

    Args:
        node: The tree.
        exact: Whether the case of letters matters, as in constants.
    """
    match node:
        case dict():
            found = {
                key: _canonical(value, exact=exact or key == "literal")
                for key, value in node.items()
                if "location" not in key and key != "is_operator"
            }
            if _is_call(found):
                return _call(found)
            if found.get("type") in _OPPOSITES.values():
                return {**found, "class": ""}
            return _negation(found) if found.get("type") == "operator_not" else found
        case list():
            return [_canonical(each, exact=exact) for each in node]
        case str() if not exact:
            # ASC NULLS LAST is the default, which `lock_configuration` keeps.
            return _SAME_ORDERS.get(node.lower(), node.lower())
        case _:
            return node


def _negation(node: dict[str, Any]) -> dict[str, Any]:
    """Return NOT of a comparison that is never NULL as the opposite comparison, as DuckDB reads it."""
    (child,) = node["children"]
    opposite = _OPPOSITES.get(child.get("type"))
    return node if opposite is None else {**child, "type": opposite, "class": ""}


def _is_call(node: dict[str, Any]) -> bool:
    return node.get("class") == "function"


def _call(node: dict[str, Any]) -> dict[str, Any]:
    """Return a call with the one spelling of its name."""
    path = (node.get("qualified_name") or {}).get("path") or [node.get("function_name", "")]
    name = _SAME_FUNCTIONS.get(path[-1], path[-1])
    arguments = [each.get("expression") for each in node.get("arguments", ())]
    if name in _UNITS_FIRST and arguments:
        arguments[0] = _folded(arguments[0])
    elif name in _INTERVALS:
        arguments = [_texts(each) for each in arguments]
    elif name in _BOOLEANS and arguments:
        arguments = [_uncast(each) for each in arguments]
    rest = {
        key: value
        for key, value in node.items()
        if key not in ("arguments", "qualified_name", "function_name")
    }
    return {**rest, "path": [*path[:-1], name], "arguments": arguments}


def _folded(node: Any) -> Any:
    """Return a constant without the case of its letters."""
    if isinstance(node, dict) and isinstance(literal := node.get("literal"), dict):
        return {**node, "literal": {key: str(value).lower() for key, value in literal.items()}}
    return node


def _texts(node: Any) -> Any:
    """Return an argument of an interval without the quotes of its number."""
    match node:
        case dict() if "literal" in node:
            literal = node["literal"] or {}
            return {"text": literal.get("text")}
        case dict():
            return {key: _texts(value) for key, value in node.items()}
        case list():
            return [_texts(each) for each in node]
        case _:
            return node


def _uncast(node: Any) -> Any:
    """Return what sqlglot casts to a boolean, for functions that accept nothing else."""
    if isinstance(node, dict) and node.get("class") == "cast":
        names = ((node.get("type_expr") or {}).get("qualified_name") or {}).get("path") or ()
        if list(names[-1:]) == ["boolean"]:
            return node.get("child")
    return node
