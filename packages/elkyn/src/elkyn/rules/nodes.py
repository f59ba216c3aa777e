"""The syntax tree of an expression; every node has its start and end in the text.

The checker sets `kind`; an unchecked tree is never compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from elkyn.rules.kinds import Kind

__all__ = [
    "Binary",
    "Call",
    "Conditional",
    "Items",
    "Literal",
    "Logical",
    "Member",
    "Name",
    "Node",
    "Regex",
    "Unary",
    "walk",
]


@dataclass(slots=True)
class _Placed:
    at: int
    end: int
    depth: int = field(default=1, kw_only=True)
    kind: Kind = field(default=Kind.ANY, kw_only=True)


@dataclass(slots=True)
class Literal(_Placed):
    """A constant: None, bool, int, float or str."""

    value: Any


@dataclass(slots=True)
class Regex(_Placed):
    """`/pattern/flags`; `pattern_at` is where the pattern begins."""

    pattern: str
    flags: str
    pattern_at: int


@dataclass(slots=True)
class Name(_Placed):
    """A variable."""

    name: str


@dataclass(slots=True)
class Items(_Placed):
    """`[a, b]`: the argument of `hasChildren`."""

    items: list[Node]


@dataclass(slots=True)
class Member(_Placed):
    """`owner.name`, `owner["name"]` (for a string literal), or `owner[computed]`."""

    owner: Node
    name: str | None
    computed: Node | None


@dataclass(slots=True)
class Call(_Placed):
    """`method(arguments)`."""

    method: Node
    arguments: list[Node]


@dataclass(slots=True)
class Unary(_Placed):
    """`!operand` or `-operand`."""

    operator: str
    operand: Node


@dataclass(slots=True)
class Binary(_Placed):
    """Arithmetic, equality or order; `==` is written `===` here."""

    operator: str
    left: Node
    right: Node


@dataclass(slots=True)
class Logical(_Placed):
    """`a && b && …` or `a || b || …`, a chain in one node."""

    operator: str
    operands: list[Node]


@dataclass(slots=True)
class Conditional(_Placed):
    """`test ? yes : no`."""

    test: Node
    yes: Node
    no: Node


Node: TypeAlias = (
    Literal | Regex | Name | Items | Member | Call | Unary | Binary | Logical | Conditional
)


def walk(node: Node) -> Iterator[Node]:
    """Yield `node` and all nodes inside it."""
    waiting: list[Any] = [node]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, _Placed):
            yield found  # type: ignore[misc]
            waiting += [getattr(found, part.name) for part in fields(found)]
