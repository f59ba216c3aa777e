"""Which words of a SQL text may name a dataset, found in one pass over the text.

The executor parses the statement; the gateway only has to send it the datasets that the statement can
mean. A name can stand in SQL as a bare word, in double quotes, or (DuckDB reads `FROM 'a.csv'` so) in
single quotes. Words too many are harmless: they name no dataset, or one that the statement does not
read.
"""

from __future__ import annotations

import re

__all__ = ["words_of"]

_WORD = re.compile(
    r"""
      --[^\n]*                            # a comment: its quotes are none
    | /\*.*?\*/
    | "(?P<name>(?:[^"]|"")*)"
    | '(?P<text>(?:[^']|'')*)'
    | (?P<bare>(?:[A-Za-z0-9_$]|[^\x00-\x7f\s])+)
    """,
    re.VERBOSE | re.DOTALL,
)
# What would need a lexer as DuckDB's: strings with backslashes, dollar quotes, comments in comments.
_HARD = re.compile(r"\b[eE]'|\b[uU]&|\$[A-Za-z_0-9]*\$|/\*(?:(?!\*/).)*/\*", re.DOTALL)


def words_of(sql: str) -> frozenset[str] | None:
    """The words that may be names of datasets, folded; None where only a real lexer could tell."""
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
