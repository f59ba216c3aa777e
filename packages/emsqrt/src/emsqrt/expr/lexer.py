"""Split an expression's text into tokens with their offsets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from emsqrt.expr.errors import BadExpression
from sennit_core.errors import TooLarge

TEXT_CHARS_MAX = 65_536

KEYWORDS = frozenset(
    (
        *("and", "or", "not", "is", "null", "in", "between", "like", "ilike", "true", "false"),
        *("as", "distinct", "case", "when", "then", "else", "end"),
    )
)

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<name>[^\W\d]\w*)
    |(?P<quoted>`(?:[^`]|``)+`)
    |(?P<string>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<symbol>\|\||//|==|!=|<>|<=|>=|[-+*/%=<>()&|~,])""",
    re.VERBOSE,
)

_HINTS = {
    "&": "write and",
    "|": "write or; || joins texts",
    "~": "write not",
    "!": "write not, or != for unequal",
    "'": "the closing ' is missing",
    '"': 'the closing " is missing',
    "`": "the closing ` is missing",
}


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the text. `kind`: number, name, keyword, quoted, string, symbol or end."""

    kind: str
    text: str
    offset: int


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of `text`, the last one of kind "end".

    Raises:
        BadExpression: a character that begins no token.
        TooLarge: more than 65,536 characters.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise TooLarge(
            what="expression text", limit_bytes=TEXT_CHARS_MAX, actual_bytes=len(text.encode())
        )
    tokens, offset = [], 0
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if match is None or match[0] in _HINTS:
            fail_at(text, offset, f"unexpected {text[offset]!r}", _HINTS.get(text[offset]))
        kind, word = str(match.lastgroup), match[0]
        if kind == "name" and word.lower() in KEYWORDS:
            kind, word = "keyword", word.lower()
        elif kind in ("quoted", "string"):
            word = word[1:-1].replace(word[0] * 2, word[0])
        if kind != "space":
            tokens.append(Token(kind, word, offset))
        offset = match.end()
    return [*tokens, Token("end", "", offset)]


def fail_at(text: str, offset: int, reason: str, hint: str | None = None) -> NoReturn:
    """Raise BadExpression for the character at `offset`."""
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    raise BadExpression(
        reason=reason, text=text, line=line, column=column, offset=offset, hint=hint
    )
