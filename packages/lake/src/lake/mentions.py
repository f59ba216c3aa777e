"""Find the words of a SQL text that may name a dataset, in one pass over the text.

The executor parses the statement; the gateway only has to send it all datasets that the statement
may read. A name in SQL is a bare word, in double quotes, or (DuckDB accepts `FROM 'a.csv'`) in
single quotes. Extra words are harmless: they name no dataset, or one that the statement does not
read.
"""

from __future__ import annotations

import re

__all__ = ["words_of"]

_WORD = re.compile(
    r"""
      --[^\n]*                            # a comment: quotes in it are ignored
    | /\*.*?\*/
    | "(?P<name>(?:[^"]|"")*)"
    | '(?P<text>(?:[^']|'')*)'
    | (?P<bare>(?:[A-Za-z0-9_$]|[^\x00-\x7f\s])+)
    """,
    re.VERBOSE | re.DOTALL,
)
# Syntax that needs DuckDB's lexer: strings with backslashes, dollar quotes, nested comments.
_HARD = re.compile(r"\b[eE]'|\b[uU]&|\$[A-Za-z_0-9]*\$|/\*(?:(?!\*/).)*/\*", re.DOTALL)


def words_of(sql: str) -> frozenset[str] | None:
    """Return the casefolded words that may name datasets; None if the text needs a real lexer."""
    if _HARD.search(sql):
        return None
    words = set()
    for found in _WORD.finditer(sql):
        if (bare := found["bare"]) is not None:
            words.add(bare.casefold())
        elif (name := found["name"]) is not None:
            words.add(name.replace('""', '"').casefold())
        elif (text := found["text"]) is not None:
            words.add(text.replace("''", "'").casefold())
    return frozenset(words)
