"""The dashboard's view of a node: a page of its children with kinds and counts, or a query's result."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from elkyn.server.admin.system import SystemCall
from elkyn.server.bodies.codec import dump
from elkyn.server.request import Response
from elkyn.storage.transactions import ReadTransaction
from elkyn.tree.paths import Path, order_key, parse_path
from elkyn.tree.query import Query, require_index, run_query
from elkyn.tree.reader import MAP, peek_of
from elkyn.tree.values import Stored, get_at, keys_of, leaf_of, present
from sennit_core.errors import UsageError

__all__ = ["children_after", "count_of", "describe", "describe_leaf", "outline"]

_JSON = ("content-type", "application/json; charset=utf-8")
_PAGE_MAX = 1000
_SHOWN_CHARS = 200

_NODE_COUNT_MAX = 10_000
_CHILD_COUNT_MAX = 1000
_COUNT_BUDGET = 20_000
"""Keys read to count children, for the node itself, for one child, and for one request: counting
costs a step of a cursor for each key, and a page shows up to a thousand children."""


async def outline(call: SystemCall) -> Response:
    """Answer the kind of the node at `path`, and a page of its children.

    Parameters: `path`, `limit` (1 to 1000, of children), `after` (the last key of the previous page),
    or instead of `after` those of a query in REST (`orderBy`, `startAt` …).
    """
    await call.admin("/.settings/outline", write=False)
    parameters = call.request.query
    limit = count_of(parameters.get("limit", "100"), _PAGE_MAX)
    path, after = parse_path(parameters.get("path", "/")), parameters.get("after", "")
    query = Query.of_rest(parameters)
    if query is None:
        found = await call.app.on_thread(_read_page, call, path, after, limit)
    else:
        found = await call.app.on_thread(_read_query, call, path, query, limit)
    return Response(200, dump(found), (_JSON,))


def _read_page(call: SystemCall, path: Path, after: str, limit: int) -> dict[str, Any]:
    with call.store().admin.snapshot() as view:
        top = view.peek(path)
        if top is not MAP:
            return describe_leaf(top)
        found = list(islice(children_after(view, path, after), limit + 1))
        counter = _Counter(view)
        node = counter.describe(path, MAP, _NODE_COUNT_MAX)
        children = [
            {"key": key, **counter.describe((*path, key), value)} for key, value in found[:limit]
        ]
    return {**node, "children": children, "more": len(found) > limit}


def _read_query(call: SystemCall, path: Path, query: Query, limit: int) -> dict[str, Any]:
    """Return the first `limit` children that `query` selects, each with its ordering value."""
    store = call.store()
    # A window from the end is returned whole: its first children are only known after all others.
    cap = _PAGE_MAX if query.from_end else limit + 1
    wanted = replace(query, limit=min(query.limit or cap, cap))
    with store.admin.snapshot() as view:
        top = view.peek(path)
        if top is not MAP:
            return describe_leaf(top)
        counter = _Counter(view)
        node = counter.describe(path, MAP, _NODE_COUNT_MAX)
        found = list(run_query(wanted, view, path).items())
        children = [
            {"key": key, **counter.describe((*path, key), value), **_ordered_by(query, value)}
            for key, value in found[: cap if query.from_end else limit]
        ]
    more = len(found) > len(children)
    return {**node, "children": children, "more": more, "indexed": _indexed(call, query, path)}


def _ordered_by(query: Query, value: Stored) -> dict[str, Any]:
    if query.index.kind != "child":
        return {}
    return {"by": describe(peek_of(get_at(value, query.index.path)))}


def _indexed(call: SystemCall, query: Query, path: Path) -> bool:
    """Whether clients may send `query` as well: unlike an admin, they need the index."""
    rules = call.store().rules
    try:
        require_index(query, path, () if rules is None else rules.index_on(path))
    except UsageError:
        return False
    return True


class _Counter:
    """Describes nodes of one view, and counts their children within one budget."""

    def __init__(self, view: ReadTransaction) -> None:
        self._view = view
        self._left = _COUNT_BUDGET  # keys that may still be read

    def describe(
        self, path: Path, value: Stored, count_max: int = _CHILD_COUNT_MAX
    ) -> dict[str, Any]:
        """Describe the node at `path`; `value` is its stored form, or `MAP` for one not read."""
        keys = keys_of(value)
        if value is MAP:
            # One key more than allowed is read, to know whether there are more.
            allowed = min(count_max, self._left)
            keys = list(islice(_keys(self._view, path), allowed + 1))
            self._left -= len(keys)
            if self._left < 0 or len(keys) > allowed:
                return {"kind": "map", "count": min(len(keys), allowed), "capped": True}
        if keys is None:
            return describe(value)
        return {"kind": "map", "count": len(keys), "list": _is_list(keys)}


def _keys(view: ReadTransaction, path: Path) -> Iterator[str]:
    # Walked lazily; with ephemeral values the visible keys must be merged first.
    if view.ephemeral is None:
        return view.tree.walk_keys(path)
    return iter(view.keys(path) or [])


def _is_list(keys: Sequence[str]) -> bool:
    """Whether a map with these keys, in their order, is read as a JSON array."""
    return type(present(dict.fromkeys(keys, True))) is list


def children_after(view: ReadTransaction, path: Path, after: str) -> Iterator[tuple[str, Stored]]:
    """Yield the children of `path` behind the key `after`; `MAP` instead of large ones."""
    if view.ephemeral is None:
        walked = view.tree.walk(path, start=after or None, shallow=True)
        return (child for child in walked if child[0] != after)
    keys = view.keys(path) or []
    start = bisect_right(keys, order_key(after), key=order_key) if after else 0
    return ((key, view.peek((*path, key))) for key in keys[start:])


def describe(value: Stored) -> dict[str, Any]:
    """Return the kind of a node, with its value when that is a scalar."""
    found = peek_of(value)
    return {"kind": "map"} if found is MAP else describe_leaf(found)


def describe_leaf(value: Stored) -> dict[str, Any]:
    """Return kind and value of a scalar; of a long text the first 200 characters."""
    value = leaf_of(value)
    if value is None:
        return {"kind": "null"}
    if isinstance(value, bool):
        return {"kind": "bool", "value": value}
    if isinstance(value, str):
        cut = len(value) > _SHOWN_CHARS
        return {"kind": "text", "value": value[:_SHOWN_CHARS], "cut": cut}
    return {"kind": "number", "value": value}


def count_of(text: str, count_max: int) -> int:
    """Read the parameter `limit`; raises `UsageError` for what is not from 1 to `count_max`."""
    if not text.isdecimal() or not 1 <= int(text[:9]) <= count_max:
        raise UsageError(f"limit must be an integer from 1 to {count_max}")
    return int(text)
