"""The dashboard's search: keys and values below a path that contain a text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from elkyn.server.admin.outline import children_after, count_of, describe
from elkyn.server.admin.system import SystemCall
from elkyn.server.bodies.codec import dump
from elkyn.server.request import Response
from elkyn.storage.transactions import ReadTransaction
from elkyn.tree.paths import Path, format_path, parse_path
from elkyn.tree.reader import MAP
from elkyn.tree.values import Stored, keys_of, leaf_of
from sennit_core.errors import UsageError

__all__ = ["search"]

_JSON = ("content-type", "application/json; charset=utf-8")
_FOUND_MAX = 1000
_VISITED_MAX = 50_000
"""Nodes that one request searches, in a fifth of a second; the next request continues after them."""


async def search(call: SystemCall) -> Response:
    """Answer the nodes below `path` with `text` in their key or value, ignoring case.

    Parameters: `path`, `text`, `limit` (1 to 1000, of nodes found) and `after`: the path at which
    the previous search stopped. The answer has `after` unless everything was searched.
    """
    await call.admin("/.settings/search", write=False)
    parameters = call.request.query
    text = parameters.get("text", "").casefold()
    if not text:
        raise UsageError("a search needs text", hint="add the parameter text=…")
    limit = count_of(parameters.get("limit", "100"), _FOUND_MAX)
    path = parse_path(parameters.get("path", "/"))
    after = parse_path(parameters.get("after", "/"))
    if after[: len(path)] != path:
        after = path
    found = await call.app.on_thread(_search, call, path, after[len(path) :], text, limit)
    return Response(200, dump(found), (_JSON,))


def _search(call: SystemCall, path: Path, after: Path, text: str, limit: int) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    visited, last = 0, path
    with call.store().admin.snapshot() as view:
        for place, value in _below(view, path, after):
            # The next search continues behind the last node that was looked at, in a new snapshot.
            if visited == _VISITED_MAX or len(found) == limit:
                return {"found": found, "searched": visited, "after": format_path(last)}
            visited, last = visited + 1, place
            if text in place[-1].casefold() or text in _text_of(value):
                found.append({"path": format_path(place), **describe(value)})
    return {"found": found, "searched": visited}


def _text_of(value: Stored) -> str:
    leaf = leaf_of(value)
    if isinstance(leaf, bool):
        return "true" if leaf else "false"
    return str(leaf).casefold() if isinstance(leaf, (str, int, float)) else ""


def _below(view: ReadTransaction, path: Path, after: Path) -> Iterator[tuple[Path, Stored]]:
    """Yield the nodes below `path`, parents first, that follow the node at `after`."""
    first = after[:1]
    # The child that the previous search stopped in: its own value is done, what is below it may not
    # be.
    resumed = ((key, view.peek((*path, key))) for key in first)
    later = children_after(view, path, first[0] if first else "")
    for key, value in chain(resumed, later):
        place = (*path, key)
        if (key,) == first:  # the previous search visited it: continue below it
            yield from _below(view, place, after[1:])
            continue
        yield place, value
        if value is MAP:
            yield from _below(view, place, ())
        else:
            yield from _within(place, value)


def _within(path: Path, value: Stored) -> Iterator[tuple[Path, Stored]]:
    """Yield the nodes of a map that was read whole."""
    for key in keys_of(value) or ():
        place, child = (*path, key), value[key]
        yield place, child
        yield from _within(place, child)
