"""A document as a tree of values with their source positions, from YAML or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

from emsqrt.documents.errors import BadDocument
from sennit_core.text import nearest

DEPTH_MAX = 60
VALUES_MAX = 20_000
"""Most values in one document, with every alias counted as often as it is used."""
TEXT_BYTES_MAX = 1 << 20

Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = "Scalar | list[Node] | dict[str, Node]"


@dataclass(frozen=True, slots=True)
class Place:
    """A value's position: in a file by line and column from 1, or by its path in the document."""

    source: str = ""
    line: int = 0
    column: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.line:
            return f"{self.source or 'document'}:{self.line}:{self.column}"
        return ": ".join(part for part in (self.source, self.path) if part)

    def moved(self, columns: int) -> Place:
        """Return the position moved right by `columns`."""
        return replace(self, column=self.column + columns)


@dataclass(frozen=True, slots=True)
class Node:
    """One value and its position; `plain`: a YAML scalar without quotes, or a JSON text."""

    value: Value
    place: Place
    plain: bool = False

    def fail(self, reason: str, hint: str | None = None) -> NoReturn:
        """Raise BadDocument with this position."""
        raise BadDocument(str(self.place), reason, hint=hint)

    def members(self) -> dict[str, Node]:
        """Return the members of an object."""
        if not isinstance(self.value, dict):
            self.fail(f"expected keys with values, found {self.kind}")
        return self.value

    def items(self) -> list[Node]:
        """Return the items of a list; a single value is a list of one."""
        if self.value is None:
            return []
        return self.value if isinstance(self.value, list) else [self]

    def text(self) -> str:
        """Return a text; a number is returned as it was written."""
        if isinstance(self.value, bool) or not isinstance(self.value, str | int | float):
            self.fail(f"expected a text, found {self.kind}")
        return str(self.value)

    def texts(self) -> list[str]:
        """Return a list of texts; a single one is a list of one."""
        return [item.text() for item in self.items()]

    def count(self) -> int:
        """Return a non-negative integer."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < 0:
            self.fail(f"expected a whole number from 0, found {self.kind}")
        return self.value

    def number(self) -> float:
        """Return a number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.fail(f"expected a number, found {self.kind}")
        return self.value

    def flag(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            self.fail(f"expected true or false, found {self.kind}")
        return self.value

    def data(self) -> Any:
        """Return the value and its descendants as plain Python values."""
        match self.value:
            case dict():
                return {key: each.data() for key, each in self.value.items()}
            case list():
                return [each.data() for each in self.value]
            case scalar:
                return scalar

    def only(self, allowed: Iterable[str], what: str) -> dict[str, Node]:
        """Return the members; fail if one is not in `allowed`."""
        members, known = self.members(), list(allowed)
        for key, each in members.items():
            if key not in known:
                guess = nearest(key, known)
                hint = f'did you mean "{guess}"?' if guess else f"there are {', '.join(known)}"
                each.fail(f"{what} has no {key!r}", hint)
        return members

    @property
    def kind(self) -> str:
        """The kind of value, for an error."""
        match self.value:
            case dict():
                return "keys with values"
            case list():
                return "a list"
            case None:
                return "nothing"
            case value:
                return repr(value)[:60]


def from_data(value: Any, source: str = "", path: str = "") -> Node:
    """Return the tree of plain Python values, such as parsed JSON; positions are paths.

    Raises:
        BadDocument: nested deeper than 60 levels, more than 20,000 values, or an unsupported type.
    """
    left = VALUES_MAX

    def walk(value: Any, path: str, depth: int) -> Node:
        nonlocal left
        left -= 1
        place = Place(source, path=path)
        if depth > DEPTH_MAX or left < 0:
            raise BadDocument(str(place), "nested too deep, or too many values")
        match value:
            case Mapping():
                members = {
                    str(key): walk(each, f"{path}.{key}" if path else str(key), depth + 1)
                    for key, each in value.items()
                }
                return Node(members, place)
            case list() | tuple():
                return Node(
                    [walk(each, f"{path}[{i}]", depth + 1) for i, each in enumerate(value)], place
                )
            case None | bool() | int() | float() | str():
                return Node(value, place, plain=isinstance(value, str))
        raise BadDocument(str(place), f"a {type(value).__name__} is not allowed in a document")

    return walk(value, path, 1)
