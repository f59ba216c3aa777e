"""Parse type text: `Decimal(12,2)`, `List(Int64)`, `Struct(a: Int64 not null, "b c": Utf8)`.

This module knows only the grammar: a name, then arguments, each a plain word, a type, or a named
type. `sennit_core.schema` interprets the arguments.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from sennit_core.errors import UsageError

__all__ = ["Argument", "Term", "parse_term", "quote_name"]

_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([(),:])|([^\s(),:"]+(?::[0-9:]+)?))')
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEPTH_MAX = 64


@dataclass(frozen=True, slots=True)
class Term:
    """A name and its arguments; `arguments` is None when there were no parentheses."""

    name: str
    arguments: tuple[Argument, ...] | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument; `label` and `nullable` are set in the form `label: Type not null`."""

    term: Term
    label: str | None = None
    nullable: bool = True


def quote_name(name: str) -> str:
    """Return a field's name as written in a type's text: in JSON quotes unless it is plain."""
    return name if _PLAIN_NAME.fullmatch(name) else json.dumps(name)


def parse_term(text: str) -> Term:
    """Parse a type's text.

    Raises:
        UsageError: the text does not follow the grammar.
    """
    reader = _Reader(text)
    term = reader.term(0)
    reader.expect_end()
    return term


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._error(f"at character {position + 1}")
            self._tokens.append(match[0].strip())
            position = match.end()
        self._tokens.reverse()

    def term(self, depth: int) -> Term:
        name = self._word()
        if depth > _DEPTH_MAX:
            raise self._error(f"nested deeper than {_DEPTH_MAX}")
        if self._peek() != "(":
            return Term(name)
        self._expect("(")
        arguments: list[Argument] = []
        while self._peek() != ")":
            arguments.append(self._argument(depth))
            if self._peek() != ")":
                self._expect(",")
        self._expect(")")
        return Term(name, tuple(arguments))

    def expect_end(self) -> None:
        if self._tokens:
            raise self._error(f"unexpected {self._tokens[-1]!r} after its end")

    def _argument(self, depth: int) -> Argument:
        label = None
        if len(self._tokens) > 1 and self._tokens[-2] == ":":
            label = self._label()
            self._expect(":")
        term = self.term(depth + 1)
        nullable = True
        if label is not None and self._peek() == "not":
            self._expect("not")
            self._expect("null")
            nullable = False
        return Argument(term, label, nullable)

    def _label(self) -> str:
        token = self._tokens.pop()
        if not token.startswith('"'):
            return token
        try:
            return str(json.loads(token))
        except ValueError:
            raise self._error(f"bad quoting in {token}") from None

    def _word(self) -> str:
        token = self._peek()
        if token is None or token in "(),:" or token.startswith('"'):
            raise self._error(
                f"a name is missing before {token!r}" if token else "it ends too soon"
            )
        return self._tokens.pop()

    def _peek(self) -> str | None:
        return self._tokens[-1] if self._tokens else None

    def _expect(self, token: str) -> None:
        if self._peek() != token:
            raise self._error(f"expected {token!r}, found {self._peek() or 'its end'!r}")
        self._tokens.pop()

    def _error(self, reason: str) -> UsageError:
        return UsageError(f"not a type: {self._text!r}: {reason}")
