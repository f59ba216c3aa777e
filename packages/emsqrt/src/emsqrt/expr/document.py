"""Strict parsing of untrusted JSON: bounded, with a position in every error.

`open_document` checks size, depth and text once; an `Entry` is then one value with its JSON
Pointer (RFC 6901).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from emsqrt.expr.errors import BadPlan
from sennit_core.errors import TooLarge
from sennit_core.text import nearest

Json: TypeAlias = dict[str, Any]

TEXT_BYTES_MAX = 4 << 20
DEPTH_MAX = 420
VALUES_MAX = 200_000
EXACT_INTEGER_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One JSON value and its position in the document."""

    value: Any
    pointer: str = ""

    def fail(self, reason: str, *, hint: str | None = None) -> NoReturn:
        """Raise BadPlan with this position."""
        raise BadPlan(pointer=self.pointer, reason=reason, hint=hint)

    def at(self, key: str | int) -> Entry:
        """Return the member or item `key`, which must exist."""
        step = str(key).replace("~", "~0").replace("/", "~1")
        return Entry(self.value[key], f"{self.pointer}/{step}")

    def find(self, key: str) -> Entry | None:
        """Return the member `key`, or None when it is absent or null."""
        return None if self.value.get(key) is None else self.at(key)

    def members(self, required: Iterable[str], optional: Iterable[str] = ()) -> Entry:
        """Return self, an object that has all `required` members and no others than `optional`."""
        wanted, allowed = list(required), [*required, *optional]
        if not isinstance(self.value, dict):
            self.fail(f"expected an object, found {_kind(self.value)}")
        for key in self.value:
            if key not in allowed:
                self._fail_unknown("member", key, allowed)
        for key in wanted:
            if key not in self.value:
                self.fail(f"member {key!r} is missing")
        return self

    def text(self) -> str:
        """Return the value, which must be a string."""
        if not isinstance(self.value, str):
            self.fail(f"expected a string, found {_kind(self.value)}")
        return self.value

    def choice(self, known: Iterable[str]) -> str:
        """Return the value, which must be one of the strings `known`."""
        word, words = self.text(), list(known)
        if word not in words:
            self._fail_unknown("value", word, words)
        return word

    def boolean(self) -> bool:
        """Return the value, which must be true or false."""
        if not isinstance(self.value, bool):
            self.fail(f"expected true or false, found {_kind(self.value)}")
        return self.value

    def count(self) -> int:
        """Return the value, which must be a whole number from 0 to 2^53 - 1."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"expected a whole number, found {_kind(value)}")
        if not 0 <= value <= EXACT_INTEGER_MAX:
            self.fail(f"{value} is not between 0 and 2^53 - 1")
        return value

    def items(self, minimum: int = 0) -> list[Entry]:
        """Return the items of the value, which must be an array of `minimum` items at least."""
        if not isinstance(self.value, list):
            self.fail(f"expected an array, found {_kind(self.value)}")
        if len(self.value) < minimum:
            self.fail(f"expected at least {minimum} item(s), found {len(self.value)}")
        return [self.at(index) for index in range(len(self.value))]

    def _fail_unknown(self, what: str, word: object, known: list[str]) -> NoReturn:
        guess = nearest(word, known) if isinstance(word, str) else None
        hint = f"did you mean {guess!r}?" if guess else f"known here: {', '.join(known)}"
        self.fail(f"unknown {what} {word!r}", hint=hint)


def open_document(source: str | bytes | Mapping[str, Any]) -> Entry:
    """Return the root of a JSON document after checking its bounds.

    Args:
        source: JSON text, UTF-8 bytes, or the object already parsed.

    Raises:
        BadPlan: not JSON, a repeated member, a number or text that JSON cannot represent exactly,
            deeper than 420 levels, or more than 200,000 values.
        TooLarge: longer than 4 MiB.
    """
    value = _parse(source) if isinstance(source, str | bytes) else source
    _check_bounds(value)
    return Entry(value)


def _parse(source: str | bytes) -> Any:
    size = len(source)
    if size > TEXT_BYTES_MAX:
        raise TooLarge(what="plan text", limit_bytes=TEXT_BYTES_MAX, actual_bytes=size)
    try:
        text = source.decode("utf-8") if isinstance(source, bytes) else source
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise BadPlan(pointer="", reason=f"not JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"member {twice!r} occurs twice")
    return members


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _check_bounds(root: Any) -> None:
    """Walk the whole value without recursion: depth, number of values, text, numbers."""
    pending, seen = [(Entry(root), 1)], 0
    while pending:
        entry, depth = pending.pop()
        seen += 1
        if depth > DEPTH_MAX:
            raise _too_deep()
        if seen > VALUES_MAX:
            raise BadPlan(pointer="", reason=f"more than {VALUES_MAX:,} values")
        match entry.value:
            case dict():
                for key in entry.value:
                    _check_text(key, entry)
                pending += [(entry.at(key), depth + 1) for key in entry.value]
            case list():
                pending += [(entry.at(index), depth + 1) for index in range(len(entry.value))]
            case str():
                _check_text(entry.value, entry)
            case None | bool() | int():
                pass
            case other:
                entry.fail(f"{_kind(other)} is not allowed in a plan: floats are written as text")


def _check_text(text: Any, entry: Entry) -> None:
    if not isinstance(text, str):
        entry.fail(f"a member's name must be a string, found {_kind(text)}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        entry.fail("text contains half a surrogate pair")


def _too_deep() -> BadPlan:
    return BadPlan(pointer="", reason=f"nested deeper than {DEPTH_MAX} levels")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false"}
    if value is None:
        return "null"
    return names.get(type(value), f"the number {value!r}"[:60])
