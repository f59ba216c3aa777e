"""Parser of rules files: JSON with comments and multi-line strings, keeping source positions.

Every part keeps its offset in the file, and every character of a string its own, so that a problem
inside an expression can be reported with its position in the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from elkyn.rules.problems import BadRules, Lines, Problem

__all__ = ["Constant", "Elements", "Members", "Part", "Text", "as_json", "read_document"]

# The text comes from a user: size and nesting are bounded before anything recurses over it.
CHARACTERS_MAX = 1 << 20
NESTING_MAX = 64

_SPACE = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_PLAIN = re.compile(r'[^"\\\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]*')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![0-9A-Za-z_.])")
_WORD = re.compile(r"[A-Za-z]+")
_WORDS = {"true": True, "false": False, "null": None}
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_DIGITS_MAX = 400


@dataclass(frozen=True, slots=True)
class Text:
    """A string; `places` has the offset of each character and of the end, None without escapes."""

    value: str
    at: int
    places: tuple[int, ...] | None = None

    def place(self, index: int) -> int:
        """Return the offset in the file of character `index`."""
        return self.at + 1 + index if self.places is None else self.places[index]


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a boolean or null."""

    value: Any
    at: int


@dataclass(frozen=True, slots=True)
class Elements:
    """A list."""

    parts: tuple[Part, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Members:
    """An object; its keys are all different."""

    parts: tuple[tuple[Text, Part], ...]
    at: int


Part: TypeAlias = Text | Constant | Elements | Members


def read_document(source: str) -> Part:
    """Read JSON with comments.

    Raises:
        BadRules: `source` is malformed; the problem names the position.
    """
    if len(source) > CHARACTERS_MAX:
        raise BadRules([Problem(1, 1, "", f"longer than {CHARACTERS_MAX} characters")])
    reader = _Reader(source)
    try:
        part = reader.part(0)
        reader.end()
    except _Broken as broken:
        raise BadRules([Problem(*Lines(source).place(broken.at), "", broken.text)]) from None
    return part


def as_json(part: Part) -> Any:
    """Return the plain value of `part`."""
    if isinstance(part, Members):
        return {key.value: as_json(value) for key, value in part.parts}
    if isinstance(part, Elements):
        return [as_json(value) for value in part.parts]
    return part.value


class _Broken(Exception):
    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.text = text
        self.at = at


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0

    def _peek(self) -> str:
        found = _SPACE.match(self.source, self.at)
        self.at = found.end() if found else self.at
        if self.source.startswith("/*", self.at):
            raise _Broken("unterminated comment", self.at)
        return self.source[self.at : self.at + 1]

    def _expect(self, mark: str, after: str) -> None:
        found = self._peek()
        if found != mark:
            shown = repr(found) if found else "the end of the file"
            raise _Broken(f"expected {mark!r} {after}, found {shown}", self.at)
        self.at += 1

    def end(self) -> None:
        if self._peek():
            raise _Broken("unexpected text after the closing brace", self.at)

    def part(self, depth: int) -> Part:
        if depth > NESTING_MAX:
            raise _Broken(f"nested more than {NESTING_MAX} levels deep", self.at)
        mark = self._peek()
        if mark == "{":
            return self._members(depth)
        if mark == "[":
            return self._elements(depth)
        if mark == '"':
            return self._text()
        return self._constant(mark)

    def _members(self, depth: int) -> Members:
        at = self.at
        self.at += 1
        parts: list[tuple[Text, Part]] = []
        seen: set[str] = set()
        while self._peek() != "}":
            if parts:
                self._expect(",", "or '}' after a member")
            if self._peek() != '"':
                raise _Broken("expected a key in double quotes", self.at)
            key = self._text()
            # Of a repeated key only one rule could count: refused.
            if key.value in seen:
                raise _Broken(f"duplicate key {key.value[:80]!r}", key.at)
            seen.add(key.value)
            self._expect(":", "after a key")
            parts.append((key, self.part(depth + 1)))
        self.at += 1
        return Members(tuple(parts), at)

    def _elements(self, depth: int) -> Elements:
        at = self.at
        self.at += 1
        parts: list[Part] = []
        while self._peek() != "]":
            if parts:
                self._expect(",", "or ']' after an element")
            parts.append(self.part(depth + 1))
        self.at += 1
        return Elements(tuple(parts), at)

    def _constant(self, mark: str) -> Constant:
        at = self.at
        number = _NUMBER.match(self.source, at)
        if number:
            self.at = number.end()
            return Constant(_number(number, at), at)
        word = _WORD.match(self.source, at)
        if word and word.group() in _WORDS:
            self.at = word.end()
            return Constant(_WORDS[word.group()], at)
        raise _Broken(f"unexpected {mark!r}" if mark else "the file ends too early", at)

    def _text(self) -> Text:
        start = self.at
        plain = _PLAIN.match(self.source, start + 1)
        assert plain is not None
        if self.source.startswith('"', plain.end()):
            self.at = plain.end() + 1
            return Text(plain.group(), start)
        return self._text_with_escapes(start)

    def _text_with_escapes(self, start: int) -> Text:
        characters: list[str] = []
        places: list[int] = []
        at = start + 1
        while True:
            plain = _PLAIN.match(self.source, at)
            assert plain is not None
            characters.append(plain.group())
            places.extend(range(at, plain.end()))
            at = plain.end()
            mark = self.source[at : at + 1]
            if mark == '"':
                self.at = at + 1
                return Text("".join(characters), start, (*places, at))
            if mark != "\\":
                problem = (
                    "a character that a string must not contain" if mark else "unterminated string"
                )
                raise _Broken(problem, at if mark else start)
            character, end = self._escape(at)
            characters.append(character)
            places.append(at)
            at = end

    def _escape(self, at: int) -> tuple[str, int]:
        mark = self.source[at + 1 : at + 2]
        if mark in _ESCAPES:
            return _ESCAPES[mark], at + 2
        code = _HEX.match(self.source, at + 2) if mark == "u" else None
        if code is None:
            raise _Broken("unknown escape in a string", at)
        unit, end = int(code.group(), 16), at + 6
        low = _HEX.match(self.source, end + 2) if self.source.startswith("\\u", end) else None
        if 0xD800 <= unit < 0xDC00 and low and 0xDC00 <= int(low.group(), 16) < 0xE000:
            return chr(0x10000 + ((unit - 0xD800) << 10) + int(low.group(), 16) - 0xDC00), end + 6
        if 0xD800 <= unit < 0xE000:
            raise _Broken("half of a surrogate pair", at)
        return chr(unit), end


def _number(found: re.Match[str], at: int) -> int | float:
    text = found.group()
    if len(text) > _DIGITS_MAX:
        raise _Broken("a number with too many digits", at)
    fraction, exponent = found.groups()
    return float(text) if fraction or exponent else int(text)
