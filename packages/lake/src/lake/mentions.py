"""Find the words of a SQL text that may name a dataset, and its verb, in one pass over the text.

The executor parses the statement; the gateway only has to send it all datasets that the statement
may read. A name in SQL is a bare word, in double quotes, or (DuckDB accepts `FROM 'a.csv'`) in
single quotes. Extra words are harmless: they name no dataset, or one that the statement does not
read.
"""

from __future__ import annotations

import re

__all__ = ["changes_data", "words_of"]

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


_CHANGING = frozenset(
    ("insert", "update", "delete", "truncate", "merge", "create", "drop", "alter")
)
_READING = frozenset(("select", "values", "from", "table", "pivot", "unpivot", "describe"))
_PIECE = re.compile(
    r"""
      --[^\n]*
    | /\*.*?\*/
    | "(?:[^"]|"")*"
    | \b[eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | \$(?P<tag>[A-Za-z_0-9]*)\$.*?\$(?P=tag)\$
    | (?P<bare>(?:[A-Za-z0-9_]|[^\x00-\x7f\s])+)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    """,
    re.VERBOSE | re.DOTALL,
)


def changes_data(sql: str) -> bool:
    """Return whether a statement's verb is one that changes datasets, such as INSERT.

    This only chooses who runs the statement. Both check it with DuckDB's parser, so a wrong choice
    is refused, and never a change by somebody who may only read.
    """
    depth, after_with = 0, False
    for found in _PIECE.finditer(sql):
        if found["open"] is not None:
            depth += 1
        elif found["close"] is not None:
            depth -= 1
        elif found["bare"] is not None and depth == 0:
            word = found["bare"].casefold()
            if word in _CHANGING or word in _READING:
                return word in _CHANGING
            # After WITH come names and queries in brackets, then the verb.
            if not after_with and word != "with":
                return False
            after_with = True
    return False
