"""The variable `query` of rules: the query of a read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elkyn.tree.query import Query

__all__ = ["query_field"]


def query_field(query: Query | None, name: str) -> Any:
    """Return member `name` of the variable `query`; a read without one is ordered by key."""
    if query is None or query.is_default:
        return True if name == "orderByKey" else False if name in _ORDERS else None
    return _FIELDS[name](query)


def _equal_to(query: Query) -> Any:
    return query.start.value if query.start is not None and query.start == query.end else None


def _limit(query: Query, from_end: bool) -> int | None:
    return query.limit if query.from_end is from_end else None


_ORDERS = ("orderByValue", "orderByPriority")
_FIELDS: dict[str, Callable[[Query], Any]] = {
    "orderByKey": lambda query: query.index.kind == "key",
    "orderByValue": lambda query: query.index.kind == "value",
    "orderByPriority": lambda query: query.index.kind == "priority",
    "orderByChild": lambda query: query.index.name if query.index.kind == "child" else None,
    "startAt": lambda query: None if query.start is None else query.start.value,
    "endAt": lambda query: None if query.end is None else query.end.value,
    "equalTo": _equal_to,
    "limitToFirst": lambda query: _limit(query, False),
    "limitToLast": lambda query: _limit(query, True),
}
