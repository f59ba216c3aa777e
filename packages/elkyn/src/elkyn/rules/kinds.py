"""The static kinds (types) of expressions, and the members of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["MEMBERS", "VARIABLES", "Kind", "Method"]


class Kind(Enum):
    """The type of an expression; the value is its name in messages."""

    BOOLEAN = "a boolean"
    NUMBER = "a number"
    STRING = "a string"
    NULL = "null"
    STORED = "a stored value"
    """The result of `val()`: known only at run time."""
    ANY = "a value"
    """`auth` and its members."""
    SNAPSHOT = "a snapshot"
    QUERY = "the query"
    REGEX = "a regular expression"
    ITEMS = "a list"

    @property
    def open(self) -> bool:
        """Whether the type is known only at run time."""
        return self is Kind.STORED or self is Kind.ANY


@dataclass(frozen=True, slots=True)
class Method:
    """A method: parameter and result kinds; `optional` arguments may all be omitted."""

    result: Kind
    parameters: tuple[Kind, ...] = ()
    optional: bool = False


VARIABLES = {
    "auth": Kind.ANY,
    "now": Kind.NUMBER,
    "root": Kind.SNAPSHOT,
    "data": Kind.SNAPSHOT,
    "newData": Kind.SNAPSHOT,
    "query": Kind.QUERY,
}

_SNAPSHOT: dict[str, Kind | Method] = {
    "val": Method(Kind.STORED),
    "child": Method(Kind.SNAPSHOT, (Kind.STRING,)),
    "parent": Method(Kind.SNAPSHOT),
    "hasChild": Method(Kind.BOOLEAN, (Kind.STRING,)),
    "hasChildren": Method(Kind.BOOLEAN, (Kind.ITEMS,), optional=True),
    "exists": Method(Kind.BOOLEAN),
    "getPriority": Method(Kind.STORED),
    "isNumber": Method(Kind.BOOLEAN),
    "isString": Method(Kind.BOOLEAN),
    "isBoolean": Method(Kind.BOOLEAN),
}

_STRING: dict[str, Kind | Method] = {
    "length": Kind.NUMBER,
    "contains": Method(Kind.BOOLEAN, (Kind.STRING,)),
    "beginsWith": Method(Kind.BOOLEAN, (Kind.STRING,)),
    "endsWith": Method(Kind.BOOLEAN, (Kind.STRING,)),
    "replace": Method(Kind.STRING, (Kind.STRING, Kind.STRING)),
    "toLowerCase": Method(Kind.STRING),
    "toUpperCase": Method(Kind.STRING),
    "matches": Method(Kind.BOOLEAN, (Kind.REGEX,)),
}

_QUERY: dict[str, Kind | Method] = {
    "orderByKey": Kind.BOOLEAN,
    "orderByValue": Kind.BOOLEAN,
    "orderByPriority": Kind.BOOLEAN,
    "orderByChild": Kind.STRING,
    "startAt": Kind.STORED,
    "endAt": Kind.STORED,
    "equalTo": Kind.STORED,
    "limitToFirst": Kind.NUMBER,
    "limitToLast": Kind.NUMBER,
}

MEMBERS = {
    Kind.SNAPSHOT: _SNAPSHOT,
    Kind.QUERY: _QUERY,
    Kind.STRING: _STRING,
    Kind.STORED: _STRING,
    Kind.ANY: _STRING,
}
"""Members by the owner's kind; for ANY only methods, since its properties can have any name."""
