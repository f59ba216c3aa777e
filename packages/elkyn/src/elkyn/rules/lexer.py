"""Lexer of the expression language: names, numbers, strings, marks, regular expressions."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from elkyn.rules.problems import ExpressionError

__all__ = ["Lexer", "Token"]

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_NUMBER = re.compile(r"(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,15}")
_MARK = re.compile(r"===|!==|\*\*|\+\+|--|==|!=|<=|>=|&&|\|\||[-+*/%!<>?:()\[\],.]")
_REGEX = re.compile(
    r"/((?:[^/\\\[\n\r]|\\[^\n\r]|\[(?:[^\]\\\n\r]|\\[^\n\r])*\])+)/([A-Za-z0-9_$]*)"
)
_PLAIN = {quote: re.compile(rf"[^{quote}\\\n\r]*") for quote in "'\""}
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_HALF = re.compile("[\ud800-\udfff]")
_CODE = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})")


class Token(NamedTuple):
    """One token: `kind` is `name`, `number`, `string`, `end`, or the mark itself."""

    kind: str
    value: Any
    at: int
    end: int


class Lexer:
    """Reads `text` token by token; the parser decides where a `/` begins a regular expression."""

    __slots__ = ("_at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._at = 0

    def next(self) -> Token:
        """Return the next token.

        Raises:
            ExpressionError: there is no valid token at this position.
        """
        space = _SPACE.match(self.text, self._at)
        at = space.end() if space else self._at
        token = self._word(at)
        self._at = token.end
        return token

    def _word(self, at: int) -> Token:
        text = self.text
        if at == len(text):
            return Token("end", None, at, at)
        if found := _NAME.match(text, at):
            return Token("name", found.group(), at, found.end())
        if found := _NUMBER.match(text, at):
            return self._number(found)
        if text[at] in _PLAIN:
            return self._string(at)
        if text.startswith("/*", at):
            raise ExpressionError("unterminated comment", at)
        if found := _MARK.match(text, at):
            return Token(found.group(), found.group(), at, found.end())
        raise ExpressionError(f"unexpected {text[at]!r}", at)

    def _number(self, found: re.Match[str]) -> Token:
        follows = self.text[found.end() : found.end() + 1]
        if follows and (follows.isalnum() or follows in "_$."):
            raise ExpressionError("malformed number", found.start())
        text = found.group()
        value = int(text) if _INTEGER.fullmatch(text) else float(text)
        return Token("number", value, found.start(), found.end())

    def _string(self, start: int) -> Token:
        text, quote, at = self.text, self.text[start], start + 1
        characters: list[str] = []
        while True:
            plain = _PLAIN[quote].match(text, at)
            assert plain is not None
            characters.append(plain.group())
            at = plain.end()
            mark = text[at : at + 1]
            if mark == quote:
                return Token("string", _whole("".join(characters), start), start, at + 1)
            if mark != "\\":
                raise ExpressionError("unterminated string", start)
            character, at = _escape(text, at + 1)
            characters.append(character)

    def regex(self, at: int) -> tuple[str, str, int]:
        """Read the regular expression that begins at `at`: its pattern, flags and end."""
        found = _REGEX.match(self.text, at)
        if found is None:
            raise ExpressionError("unterminated regular expression", at)
        self._at = found.end()
        return found.group(1), found.group(2), found.end()


def _whole(text: str, at: int) -> str:
    """Combine surrogate pairs into characters."""
    if not _HALF.search(text):
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ExpressionError("this string contains a lone surrogate", at) from None


def _escape(text: str, at: int) -> tuple[str, int]:
    code = _CODE.match(text, at)
    if code:
        number = int(code.group(1) or code.group(2), 16)
        return chr(number), code.end()
    mark = text[at : at + 1]
    if not mark or mark in "\n\r" or (mark.isalnum() and mark not in _ESCAPES):
        raise ExpressionError("unknown escape in a string", at - 1)
    return _ESCAPES.get(mark, mark), at + 1
