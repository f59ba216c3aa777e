"""Queries: an order, a range and a limit over the children of one path."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypedDict, Unpack

from elkyn.errors import BadPath
from elkyn.tree.ordering import (
    BY_KEY,
    BY_PRIORITY,
    BY_VALUE,
    MAX_NAME,
    MIN_NAME,
    Index,
    Position,
    children_of,
    name_order,
    rank,
)
from elkyn.tree.paths import Path, format_path, parse_path
from elkyn.tree.reader import Reader
from elkyn.tree.values import Stored
from sennit_core.errors import UsageError

__all__ = ["EVERYTHING", "Bound", "IndexMissing", "Query", "Window", "require_index", "run_query"]

Scalar: TypeAlias = str | int | float | bool | None

_BOUNDS = ("startAt", "startAfter", "endAt", "endBefore", "equalTo")
_BOUND_NAMES = ("start_at", "start_after", "end_at", "end_before", "equal_to")
_LIMITS = ("limitToFirst", "limitToLast")
_NAMED = {"$key": BY_KEY, "$value": BY_VALUE, "$priority": BY_PRIORITY}
_DECODER = json.JSONDecoder(parse_constant=lambda name: _refuse(f"{name} is no JSON"))


class IndexMissing(UsageError):
    """The rules declare no index for the order of a query."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range.

    Args:
        value: compared with the children's sort value; the key itself when ordered by key.
        key: the bound among children with an equal value; None includes all of them.
        inclusive: whether a child exactly at the bound belongs to the range.
    """

    value: Scalar
    key: str | None = None
    inclusive: bool = True


class Window(TypedDict, total=False):
    """Range and limit of a query; a bound is a value, or a tuple of a value and a key.

    Args:
        start_at: first value of the range; the key is the first one among children of that value.
        start_after: the same, excluding a child exactly at the bound.
        end_at: last value of the range, and last key among children of that value.
        end_before: the same, excluding a child exactly at the bound.
        equal_to: both ends of the range.
        limit_to_first: the maximum number of children, from the start of the range.
        limit_to_last: the maximum number of children, from its end.
    """

    start_at: Any
    start_after: Any
    end_at: Any
    end_before: Any
    equal_to: Any
    limit_to_first: int
    limit_to_last: int


@dataclass(frozen=True)
class Query:
    """A query of the children of a path: order, range and limit.

    Args:
        index: the sort criterion.
        start: the start of the range.
        end: the end of the range.
        limit: the maximum number of children.
        from_end: whether the limit selects the last children of the range instead of the first.
    """

    index: Index = BY_PRIORITY
    start: Bound | None = None
    end: Bound | None = None
    limit: int | None = None
    from_end: bool = False

    def __post_init__(self) -> None:
        for bound in (self.start, self.end):
            if bound is None:
                continue
            if self.index.kind == "key":
                if not isinstance(bound.value, str):
                    # The text of Firebase's server.
                    raise UsageError("Provided key index type is invalid, must be string")
                if bound.key is not None:
                    raise UsageError(
                        "A query ordered by key must not have a second key in its bounds"
                    )
            elif self.index.kind == "priority" and isinstance(bound.value, bool):
                raise UsageError("Provided priority is invalid, must be number, string or null")
        if self.limit is not None and self.limit <= 0:
            name = "limitToLast" if self.from_end else "limitToFirst"
            raise UsageError(f"{name} must be positive")

    @classmethod
    def build(cls, order_by: str = "$key", **window: Unpack[Window]) -> Query:
        """Make a query.

        Args:
            order_by: `$key`, `$value`, `$priority`, or a path inside each child.
            window: see `Window`.

        Raises:
            UsageError: two options exclude each other, or a value has the wrong type.
        """
        unknown = window.keys() - Window.__annotations__.keys()
        if unknown:
            raise TypeError(f"a query has no {', '.join(sorted(unknown))}")
        bounds = {
            rest: _pair(name, window[name])  # type: ignore[literal-required]
            for name, rest in zip(_BOUND_NAMES, _BOUNDS, strict=True)
            if name in window
        }
        first, last = window.get("limit_to_first"), window.get("limit_to_last")
        for name, limit in (("limit_to_first", first), ("limit_to_last", last)):
            if limit is not None and type(limit) is not int:
                raise UsageError(f"{name} must be an integer")
        return _assemble(_index(order_by), bounds, first, last)

    @classmethod
    def of_rest(cls, params: Mapping[str, str]) -> Query | None:
        """Parse the query of a REST request; None when it has no query parameters.

        Raises:
            UsageError: a parameter is invalid; the message is Firebase's.
        """
        if "orderBy" not in params:
            if any(name in params for name in (*_BOUNDS, *_LIMITS)):
                _refuse("orderBy must be defined when other query parameters are defined")
            return None
        try:
            order_by = _DECODER.decode(params["orderBy"])
        except (ValueError, RecursionError):
            order_by = None
        index = _index(order_by)
        bounds = {name: _parse_bound(params[name]) for name in _BOUNDS if name in params}
        first, last = (_parse_limit(name, params.get(name)) for name in _LIMITS)
        return _assemble(index, bounds, first, last)

    @classmethod
    def of_wire(cls, query: Mapping[str, Any]) -> Query:
        """Parse the query of a listen in the WebSocket protocol.

        Raises:
            UsageError: the query is malformed.
        """
        name = query.get("i", ".priority")
        index = _index(f"${name[1:]}" if isinstance(name, str) and name[:1] == "." else name)
        start, end = _wire_bound(query, "s", index), _wire_bound(query, "e", index)
        limit = query.get("l")
        if limit is not None and type(limit) is not int:
            _refuse("limit must be an integer")
        # `vf` is `l` or `r`: from which end the limit counts. Without it the SDKs count from the
        # start if the range has one, else from the end.
        from_end = query.get("vf", "l" if start is not None else "r") == "r"
        return cls(index, start, end, limit, limit is not None and from_end)

    def to_wire(self) -> dict[str, Any]:
        """Return the query in the format of the WebSocket protocol."""
        wire: dict[str, Any] = {}
        for letter, bound in (("s", self.start), ("e", self.end)):
            if bound is not None:
                wire[f"{letter}p"] = bound.value
                if bound.key is not None:
                    wire[f"{letter}n"] = bound.key
                wire[f"{letter}in"] = bound.inclusive
        if self.limit is not None:
            wire["l"], wire["vf"] = self.limit, "r" if self.from_end else "l"
        if self.index != BY_PRIORITY:
            wire["i"] = self.index.name
        return wire

    @property
    def loads_all(self) -> bool:
        """Whether the query selects every child."""
        return self.start is None and self.end is None and self.limit is None

    @property
    def is_default(self) -> bool:
        """Whether it is the query of a listener without a query."""
        return self.loads_all and self.index == BY_PRIORITY

    @cached_property
    def lower(self) -> tuple[Position, bool]:
        """The start of the range, and whether it is inclusive."""
        if self.start is None:
            return _LOWEST, True
        return self._position(self.start, MIN_NAME), self.start.inclusive

    @cached_property
    def upper(self) -> tuple[Position, bool]:
        """The end of the range, and whether it is inclusive."""
        if self.end is None:
            return _HIGHEST, True
        return self._position(self.end, MAX_NAME), self.end.inclusive

    def _position(self, bound: Bound, name: str) -> Position:
        if self.index.kind == "key":
            return (0, 0, name_order(str(bound.value)))
        return (*rank(bound.value), name_order(name if bound.key is None else bound.key))

    def matches(self, position: Position) -> bool:
        """Whether `position` is in the range."""
        lower, with_lower = self.lower
        upper, with_upper = self.upper
        above = position >= lower if with_lower else position > lower
        return above and (position <= upper if with_upper else position < upper)

    def select(self, children: Iterable[tuple[str, Stored]]) -> dict[str, Stored]:
        """Return the selected `children`, in the order of the query."""
        lower, with_lower = self.lower
        upper, with_upper = self.upper

        def inside() -> Iterator[tuple[Position, str, Stored]]:
            for key, child in children:
                place = self.index.position(key, child)
                above = place >= lower if with_lower else place > lower
                if above and (place <= upper if with_upper else place < upper):
                    yield place, key, child

        if self.limit is None:
            found = sorted(inside(), key=_place)
        elif self.from_end:
            # A limited query holds `limit` children at a time, however many there are.
            found = heapq.nlargest(self.limit, inside(), key=_place)[::-1]
        else:
            found = heapq.nsmallest(self.limit, inside(), key=_place)
        return {key: child for _place, key, child in found}


# Below and above the rank of every type.
_LOWEST: Position = (-1, 0, (0, 0, ""))
_HIGHEST: Position = (9, 0, (0, 0, ""))

EVERYTHING = Query()
"""All children, by priority: the query of a listener without a query."""


def _place(found: tuple[Position, str, Stored]) -> Position:
    return found[0]


def run_query(query: Query, view: Reader, path: Path) -> dict[str, Stored]:
    """Return the children of `path` that `query` selects, in its order, in their stored form.

    If `view` is a store's, memory is proportional to the result, and so is the number of rows read if
    the order is by key or has a complete index.
    """
    select = getattr(view, "select", None)
    found: dict[str, Stored] | None = None if select is None else select(query, path)
    if found is not None:
        return found
    return query.select(children_of(view.get(path)))


def require_index(query: Query, path: Path, declared: Iterable[str]) -> None:
    """Check that the rules declare the index of a query; order by key or priority needs none.

    Raises:
        IndexMissing: with Firebase's message, which clients look for.
    """
    name = query.index.name
    if query.index.kind in ("key", "priority") or name in declared:
        return
    where = f'add ".indexOn": "{name}", for path "{format_path(path)}", to the rules'
    raise IndexMissing(f"Index not defined, {where}")


def _refuse(text: str) -> Any:
    raise UsageError(text)


def _index(order_by: Any) -> Index:
    wrong = "orderBy must be a valid JSON encoded path"
    if not isinstance(order_by, str):
        _refuse(wrong)
    if order_by in _NAMED:
        return _NAMED[order_by]
    try:
        path = parse_path(order_by)
    except BadPath:
        path = ()
    return Index("child", path) if path else _refuse(wrong)


def _pair(name: str, bound: Any) -> tuple[Scalar, str | None]:
    value, key = bound if isinstance(bound, tuple) and len(bound) == 2 else (bound, None)
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise UsageError(f"{name} must be None, bool, int, float or str")
    if key is not None and not isinstance(key, str):
        raise UsageError(f"the key of {name} must be a str")
    return value, key


def _parse_bound(raw: str) -> tuple[Scalar, str | None]:
    wrong = "Constraint index field must be a JSON primitive"
    raw = raw.strip()
    try:
        value, stop = _DECODER.raw_decode(raw)
        rest = raw[stop:].lstrip()
        key = _DECODER.decode(rest[1:]) if rest[:1] == "," else None
    except (ValueError, RecursionError):
        return _refuse(wrong), None
    if isinstance(value, (dict, list)) or (rest and rest[0] != ","):
        _refuse(wrong)
    if rest and not isinstance(key, str):
        _refuse("The key after a constraint's value must be a JSON string")
    return value, key


def _parse_limit(name: str, raw: str | None) -> int | None:
    if raw is None:
        return None
    if not raw.isascii() or not raw.removeprefix("-").isdigit() or len(raw) > 18:
        _refuse(f"{name} must be an integer")
    return int(raw)


def _wire_bound(query: Mapping[str, Any], letter: str, index: Index) -> Bound | None:
    if f"{letter}p" not in query:
        return None
    value, key = query[f"{letter}p"], query.get(f"{letter}n")
    if not isinstance(value, (str, int, float, bool, type(None))):
        _refuse("Constraint index field must be a JSON primitive")
    if key is not None and not isinstance(key, str):
        _refuse("The key of a constraint must be a string")
    return Bound(value, None if index.kind == "key" else key, query.get(f"{letter}in") is not False)


def _assemble(
    index: Index,
    bounds: Mapping[str, tuple[Scalar, str | None]],
    first: int | None,
    last: int | None,
) -> Query:
    if first is not None and last is not None:
        _refuse("Only one of limitToFirst and limitToLast may be specified")
    start: Bound | None
    end: Bound | None
    if "equalTo" in bounds:
        if len(bounds) > 1:
            excluded = "startAfter, startAt, endAt, or endBefore"
            _refuse(f"equalTo cannot be specified in addition to {excluded}")
        start = end = Bound(*bounds["equalTo"])
    else:
        start = _end_of_range(index, bounds, ("startAt", "startAfter"), MAX_NAME)
        end = _end_of_range(index, bounds, ("endAt", "endBefore"), MIN_NAME)
    limit, from_end = (first, False) if last is None else (last, True)
    if limit is not None and limit <= 0:
        _refuse(f"{_LIMITS[from_end]} must be positive")
    return Query(index, start, end, limit, from_end)


def _end_of_range(
    index: Index,
    bounds: Mapping[str, tuple[Scalar, str | None]],
    names: tuple[str, str],
    beyond: str,
) -> Bound | None:
    inclusive, exclusive = names
    if inclusive in bounds and exclusive in bounds:
        _refuse(f"Only one of {inclusive} and {exclusive} may be specified")
    if inclusive in bounds:
        return Bound(*bounds[inclusive])
    if exclusive not in bounds:
        return None
    value, key = bounds[exclusive]
    if key is None and index.kind != "key":
        # Without a key, all children of that value are outside of the range.
        key = beyond
    return Bound(value, key, inclusive=False)
