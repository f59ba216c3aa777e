"""Firebase's order of children: by key, by value, by priority, or by a path inside the child.

Absent < false < true < numbers < text < maps; equal ones by key. Numbers compare as doubles and text
by UTF-16 units, because that is what every client does; keys as `paths.order_key` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, TypeAlias

from elkyn.tree.large_map import LargeMap
from elkyn.tree.paths import PRIORITY, Path, order_key, utf16_order
from elkyn.tree.values import VALUE, Stored, get_at, priority_of

__all__ = [
    "BY_KEY",
    "BY_PRIORITY",
    "BY_VALUE",
    "MAX_NAME",
    "MIN_NAME",
    "Index",
    "Position",
    "children_of",
    "name_order",
    "rank",
]

NameOrder: TypeAlias = tuple[int, int, str]
Position: TypeAlias = tuple[int, Any, NameOrder]
"""A child's sort position: rank of the type, the value in a comparable form, the key."""

MIN_NAME, MAX_NAME = "[MIN_NAME]", "[MAX_NAME]"
"""Names below and above all keys, as clients send them; no key can hold a bracket."""

# Firebase's order of types: null, false, true, numbers, text, maps.
ABSENT, BOOLEAN, NUMBER, TEXT, MAP = range(5)


def rank(value: Stored) -> tuple[int, Any]:
    """Return the sort key of `value`: its type's rank, and a form that compares within the type."""
    kind = type(value)
    if kind is str:
        return TEXT, utf16_order(value)
    if kind is int or kind is float:
        return NUMBER, _double(value) or 0.0  # 0.0 and -0.0 are equal
    if value is None:
        return ABSENT, 0
    if kind is bool:
        return BOOLEAN, int(value)
    if VALUE in value:
        return rank(value[VALUE])
    return MAP, 0


def _double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # a client's query bound; the tree holds no such number
        return inf if number > 0 else -inf


def name_order(name: str) -> NameOrder:
    """Return the sort key of a key, or of one of the names that sort below and above all keys."""
    if name == MIN_NAME:
        return (-1, 0, "")
    if name == MAX_NAME:
        return (2, 0, "")
    return order_key(name) if name else (1, 0, "")


def children_of(value: Stored) -> Iterator[tuple[str, Stored]]:
    """Yield the children of a stored form; scalars have none, and a priority is not a child."""
    if type(value) is not LargeMap and (type(value) is not dict or VALUE in value):
        return
    for key, child in value.items():
        if key != PRIORITY:
            yield key, child


@dataclass(frozen=True, slots=True)
class Index:
    """The sort criterion of children.

    Args:
        kind: the key, the child's value, its priority, or the value at `path` inside it.
        path: only for `child`.
    """

    kind: Literal["key", "value", "priority", "child"]
    path: Path = ()

    @property
    def name(self) -> str:
        """The index's name in the WebSocket protocol and in `.indexOn`."""
        return "/".join(self.path) if self.kind == "child" else f".{self.kind}"

    def value_of(self, child: Stored) -> Stored:
        """Return the compared part of `child`; None for an index by key."""
        if self.kind == "value":
            return child
        if self.kind == "priority":
            return priority_of(child)
        if self.kind == "key":
            return None
        return get_at(child, self.path)

    def position(self, key: str, child: Stored) -> Position:
        """Return the sort position of the child `key`."""
        if self.kind == "key":
            return (0, 0, order_key(key))
        return (*rank(self.value_of(child)), order_key(key))

    def reads(self, inner: Path) -> bool:
        """Whether a write at `inner` below a child that stays a map may change its position."""
        if self.kind == "key" or self.kind == "value":
            return False
        if self.kind == "priority":
            return inner == (PRIORITY,)
        size = min(len(inner), len(self.path))
        return inner[:size] == self.path[:size]


BY_KEY = Index("key")
BY_VALUE = Index("value")
BY_PRIORITY = Index("priority")
