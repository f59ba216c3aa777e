"""PIVOT whose columns come from the data: a form of it that can be checked.

DuckDB runs such a PIVOT as two statements, the first of which collects the values, and so has no single
tree for it. With any values named, `PIVOT t ON (c) IN ('') …`, it has one, of the same tables, functions
and expressions. The guard checks this form; what runs is the user's own.
"""

from __future__ import annotations

import re

import duckdb

__all__ = ["with_named_values"]

_WORD = re.compile(rb"[A-Za-z_]+")
_ENDS = frozenset((b"using", b"group", b"order", b"limit", b"offset", b"union", b"except", b";"))
_VALUES = b") IN ('')"


def with_named_values(sql: str) -> str:
    """Return a query with values named for each PIVOT ON that names none; no other text is changed."""
    text = sql.encode("utf-8", "surrogatepass")
    inserted: list[tuple[int, bytes]] = []
    tokens = [(offset, _folded(text, offset)) for offset, _ in duckdb.tokenize(sql)]
    for index, (_, word) in enumerate(tokens):
        if word in (b"pivot", b"pivot_wider"):
            inserted += _names(tokens, index + 1, len(text))
    for offset, piece in sorted(inserted, reverse=True):
        text = text[:offset] + piece + text[offset:]
    return text.decode("utf-8", "surrogatepass")


def _folded(text: bytes, offset: int) -> bytes:
    word = _WORD.match(text, offset)
    return text[offset : offset + 1] if word is None else word[0].lower()


def _names(tokens: list[tuple[int, bytes]], index: int, end: int) -> list[tuple[int, bytes]]:
    """Return what to insert into the ON list of the PIVOT before a token."""
    found: list[tuple[int, bytes]] = []
    depth, start, is_named = 0, -1, False
    for offset, word in (*tokens[index:], (end, b";")):
        closes = word in (b")", b"]", b"}")
        if start >= 0 and depth == 0 and (word == b"," or word in _ENDS or closes):
            if not is_named:
                found += [(start, b"("), (offset, _VALUES + b" ")]
            start, is_named = (offset + 1, False) if word == b"," else (-1, False)
            if word != b",":
                break
        elif start < 0 and depth == 0 and word == b"on":
            start = offset + 2
        elif depth == 0 and word == b"in":
            is_named = True
        if closes and depth == 0:
            break
        depth += (word in (b"(", b"[", b"{")) - closes
    return found
