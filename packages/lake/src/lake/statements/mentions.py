"""Find the words of a SQL text that may name a dataset, and its verb, in one pass over the text.

The executor parses the statement; the gateway only has to send it all datasets that the statement
may read. A name in SQL is a bare word, in double quotes, or (DuckDB accepts `FROM 'a.csv'`) in
single quotes. Extra words are harmless: they name no dataset, or one that the statement does not
read.
"""

from __future__ import annotations

import re

__all__ = [
    "CHANGING_VERBS",
    "EXPLAIN",
    "READING_VERBS",
    "UNUSUAL_SPACES",
    "changes_data",
    "end_of_quoted",
    "split_explain",
    "words_of",
]

EXPLAIN = re.compile(
    r"\s*(?:--[^\r\n]*[\r\n]\s*|/\*.*?\*/\s*)*explain\b\s*(?:analyze\b|\([^)]*\))?",
    re.IGNORECASE | re.DOTALL,
)
"""EXPLAIN with its options, before the query that it explains."""
UNUSUAL_SPACES = "".join(
    letter
    for letter in map(chr, range(0x80, 0x10000))
    if letter.isspace() or letter in "\u200b\ufeff"
)
"""Spaces to DuckDB's parser, but letters to its tokenizer."""

_WORD = re.compile(
    r"""
      --[^\r\n]*                          # a comment: quotes in it are ignored
    | /\*.*?\*/
    | "(?P<name>(?:[^"]|"")*)"
    | '(?P<text>(?:[^']|'')*)'
    | (?P<bare>(?:[A-Za-z0-9_$]|[^\x00-\x7f\s])+)
    """,
    re.VERBOSE | re.DOTALL,
)
# Syntax that needs DuckDB's lexer: strings with backslashes, dollar quotes, nested comments.
_HARD = re.compile(r"\b[eE]'|\b[uU]&|\$[A-Za-z_0-9]*\$|/\*(?:(?!\*/).)*/\*", re.DOTALL)


def split_explain(sql: str) -> tuple[str, str]:
    """Return EXPLAIN with its options, and the query that it explains; "" and any other statement."""
    match = EXPLAIN.match(sql)
    return ("", sql) if match is None else (match[0], sql[match.end() :])


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


CHANGING_VERBS = frozenset(
    ("insert", "update", "delete", "truncate", "merge", "create", "drop", "alter")
)
READING_VERBS = frozenset(("select", "values", "from", "table", "pivot", "unpivot", "describe"))
_SPACES = dict.fromkeys(map(ord, UNUSUAL_SPACES), " ")
_PIECE = re.compile(
    r"""
      (?P<bare>(?:[A-Za-z0-9_]|[^\x00-\x7f\s])+)
    | (?P<open>--|/\*|"|'|\$[A-Za-z_0-9]*\$|[(\[{])
    | (?P<close>[)\]}])
    | (?P<comma>,)
    """,
    re.VERBOSE,
)
_COMMENT = re.compile(r"/\*|\*/")
_END_OF_LINE = re.compile(r"[\r\n]")  # of a comment, to DuckDB


def changes_data(sql: str) -> bool:
    """Return whether a statement's verb is one that changes datasets, such as INSERT.

    This only chooses who runs the statement. Both check it with DuckDB's parser, so a wrong choice
    is refused, and never a change by somebody who may only read. It takes time in proportion to the
    text, as it runs before anything else has looked at it.
    """
    sql = _with_usual_spaces(sql)
    depth = position = 0
    # After WITH [RECURSIVE], and after each comma outside of brackets, comes a name.
    after_with = is_name = False
    while (found := _PIECE.search(sql, position)) is not None:
        position = found.end()
        if found["open"] is not None and found["open"] not in "([{":
            position = end_of_quoted(sql, found["open"], position)
            if position < 0:  # never closed: no statement
                return False
            is_name = is_name and found["open"] != '"'
        elif found["bare"] is None:
            depth += (found["open"] is not None) - (found["close"] is not None)
            is_name = is_name or (found["comma"] is not None and depth == 0)
        elif depth == 0:
            word = found["bare"].casefold()
            if is_name and word != "recursive":
                is_name = False
            elif word in CHANGING_VERBS or word in READING_VERBS:
                return word in CHANGING_VERBS
            elif word == "with" and not after_with:
                after_with = is_name = True
            elif not after_with:
                return False
    return False


def _with_usual_spaces(sql: str) -> str:
    return sql if sql.isascii() else sql.translate(_SPACES)


def end_of_quoted(sql: str, opening: str, start: int) -> int:
    """Return where a comment or quoted text ends that was opened before `start`; -1 if nowhere."""
    if opening == "--":
        line = _END_OF_LINE.search(sql, start)
        return len(sql) if line is None else line.start()
    if opening == "/*":
        return _end_of_comment(sql, start)
    # Two quotes are one in the text: the second opens a text that is joined to the first. In E'…' a
    # backslash hides a quote.
    escapes = opening == "'" and sql[start - 2 : start - 1] in ("e", "E")
    end = sql.find(opening, start)
    while escapes and end > 0 and _is_escaped(sql, start, end):
        end = sql.find(opening, end + 1)
    return -1 if end < 0 else end + len(opening)


def _end_of_comment(sql: str, start: int) -> int:
    """Return the end of a comment, which may hold others."""
    depth = 1
    for found in _COMMENT.finditer(sql, start):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return -1


def _is_escaped(sql: str, start: int, quote: int) -> bool:
    backslashes = 0
    while quote - backslashes > start and sql[quote - backslashes - 1] == "\\":
        backslashes += 1
    return backslashes % 2 == 1
