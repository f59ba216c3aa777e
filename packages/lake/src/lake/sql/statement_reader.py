"""Reads a statement as the tokens of DuckDB's tokenizer, and cuts its clauses out of the text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import duckdb

from lake.sql.failures import syntax_error
from lake.statements.mentions import CHANGING_VERBS, UNUSUAL_SPACES
from sennit_core.errors import SqlError, Unsupported

__all__ = ["Clause", "StatementReader", "Token", "tokens_of"]

_QUOTED = (duckdb.token_type.string_const, duckdb.token_type.comment)
# CASE … END are brackets too: WHEN and THEN inside are not those of MERGE.
_OPENING, _CLOSING = frozenset(("(", "[", "{", "case")), frozenset((")", "]", "}", "end"))


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of the statement's text.

    Args:
        text: As written.
        offset: Its first character's index in the statement.
    """

    text: str
    offset: int

    @property
    def is_default(self) -> bool:
        """Whether it is the word DEFAULT, in the place of a value."""
        return self.text.casefold() == "default"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a statement."""

    word: str  # its text, in lower case unless it is quoted
    start: int  # index of its first character
    stop: int
    depth: int  # of brackets around it


class StatementReader:
    """The statement's tokens, without comments and the semicolons at its end."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = tokens_of(sql)
        self.position = 0

    @property
    def word(self) -> str:
        """The token at the position; "" at the end."""
        return self._word(self.position)

    @property
    def next_word(self) -> str:
        """The token after the position."""
        return self._word(self.position + 1)

    def words(self, count: int) -> tuple[str, ...]:
        """Return the next tokens; "" for those after the end."""
        return tuple(self._word(self.position + index) for index in range(count))

    def take(self) -> str:
        """Return the token at the position, and go on."""
        word = self.word
        self.position += 1
        return word

    def accept(self, word: str) -> bool:
        """Skip the token if it is this word."""
        found = self.word == word
        self.position += found
        return found

    def expect(self, word: str) -> None:
        """Skip the token, which is this word."""
        if not self.accept(word):
            shown = self.word or "the end"
            raise Unsupported(f"{word.upper()} is expected where {shown!r} is")

    def refuse(self, word: str, what: str, reason: str) -> None:
        """Raise Unsupported if the token is this word."""
        if self.word == word:
            raise Unsupported(f"{what} is not supported", hint=reason)

    def find_verb(self) -> int | None:
        """Return the index of the verb if it changes data, None for any other statement."""
        start = self._end_of_with() if self.word == "with" else 0
        return start if self._word(start) in CHANGING_VERBS else None

    def _end_of_with(self) -> int:
        """Return the index of the verb after a WITH clause."""
        outer = [i for i, token in enumerate(self.tokens) if not token.depth]
        place = 2 if self._word(1) == "recursive" else 1
        while True:
            # A name, perhaps with columns, AS, and a query in brackets.
            opened = [i for i in outer if i > place and self._word(i) == "("]
            queries = [i for i in opened if self._word(i - 1) in ("as", "materialized")]
            if not queries:
                return len(self.tokens)
            after = next(i for i in outer if i > queries[0] and self._word(i) == ")") + 1
            if self._word(after) != ",":
                return after
            place = after + 1

    def find(self, words: Collection[str], stop: int | None = None) -> int:
        """Return the index of the first of the words outside of brackets; `stop` if none is there."""
        stop = len(self.tokens) if stop is None else stop
        for index in range(self.position, stop):
            token = self.tokens[index]
            if not token.depth and token.word in words and self._word(index - 1) != "as":
                return index
        return stop

    def find_all(self, words: Collection[str], stop: int) -> list[int]:
        """Return the indexes of the words outside of brackets."""
        return [
            index
            for index in range(self.position, stop)
            if not self.tokens[index].depth and self.tokens[index].word in words
        ]

    def find_pair(self, first: str, second: str, follow: Collection[str]) -> int:
        """As `find`, for two words in sequence before one of others."""
        for index in range(self.position, len(self.tokens) - 1):
            words = self.tokens[index].word, self.tokens[index + 1].word
            follows = self._word(index + 2) in follow
            if not self.tokens[index].depth and words == (first, second) and follows:
                return index
        return len(self.tokens)

    def find_from(self, stop: int) -> int:
        """As `find` for FROM, but not that of IS [NOT] DISTINCT FROM."""
        for index in range(self.position, stop):
            token = self.tokens[index]
            if not token.depth and token.word == "from" and self._word(index - 1) != "distinct":
                return index
        return stop

    def divide(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the ranges between commas outside of brackets."""
        commas = [
            index
            for index in range(start, stop)
            if not self.tokens[index].depth and self.tokens[index].word == ","
        ]
        pairs = zip([start, *(comma + 1 for comma in commas)], [*commas, stop], strict=True)
        return [(first, last) for first, last in pairs if first < last]  # a comma may be the last

    def divide_brackets(self, index: int) -> list[tuple[int, int]]:
        """Return the ranges between commas in the brackets that open at an index."""
        depth = self.tokens[index].depth + 1
        after = range(index + 1, len(self.tokens))
        stop = next(place for place in after if self.tokens[place].depth < depth)
        inside = [i for i in range(index + 1, stop) if self.tokens[i].depth == depth]
        commas = [i for i in inside if self.tokens[i].word == ","]
        pairs = zip([index + 1, *(comma + 1 for comma in commas)], [*commas, stop], strict=True)
        return [(first, last) for first, last in pairs if first < last]

    def name(self) -> str:
        """Read the name of a dataset."""
        name = self.unquoted(self.position)
        self.position += 1
        if self.word.startswith("."):
            raise Unsupported(
                "a name with a schema or catalog", hint="use the dataset's name alone"
            )
        return name

    def alias(self, before: Collection[str]) -> str:
        """Read an alias, with or without AS; "" if there is none before one of these words."""
        if self.accept("as"):
            return self.name()
        return "" if not self.word or self.word in before else self.name()

    def names_in_brackets(self) -> tuple[str, ...]:
        """Read `(a, b, …)`."""
        self.expect("(")
        names = [self.name()]
        while self.accept(","):
            names.append(self.name())
        self.expect(")")
        return tuple(names)

    def unquoted(self, index: int) -> str:
        """Return the name that a token is, without quotes; DuckDB allows single ones too."""
        if index >= len(self.tokens):
            raise Unsupported("the statement names no dataset")
        token = self.tokens[index]
        text = self.sql[token.start : token.stop]
        quote = text[:1] if text[:1] in ("'", '"') else ""
        return text[1:-1].replace(quote * 2, quote) if quote else text

    def assignment(self, start: int, stop: int) -> tuple[str, Clause]:
        """Read `column = expression`, of SET."""
        if self.tokens[start].word == "(":
            raise Unsupported("SET (a, b) = … is not supported", hint="assign one column at a time")
        if self.tokens[start + 1].word != "=":
            raise Unsupported("SET assigns whole columns", hint="write SET column = expression")
        return self.unquoted(start), self.cut(start + 2, stop)

    def cut(self, start: int, stop: int) -> Clause:
        """Return the text from one token up to another; "" if the range is empty."""
        if start >= stop:
            return self.nothing()
        begin, end = self.tokens[start].start, self.tokens[stop - 1].stop
        return Clause(self.sql[begin:end], begin)

    def nothing(self) -> Clause:
        """Return a clause that is not there."""
        return Clause("", 0)

    def _word(self, index: int) -> str:
        return self.tokens[index].word if 0 <= index < len(self.tokens) else ""


def _refuse_unusual_spaces(text: str, start: int) -> None:
    """DuckDB's tokenizer takes these spaces for letters, so WHERE after one would be overlooked."""
    for index, letter in enumerate(text, start):
        if letter in UNUSUAL_SPACES:
            raise SqlError(
                f"the space U+{ord(letter):04X} is not supported outside of quotes",
                offset=index,
                hint="write an ordinary space",
            )


def tokens_of(sql: str) -> list[Token]:
    """Return the tokens of a statement, without comments and the semicolons at its end."""
    try:
        found = duckdb.tokenize(sql)
    except duckdb.Error as error:
        raise syntax_error(error, sql) from None
    # DuckDB counts bytes of UTF-8.
    data = sql.encode("utf-8", "surrogatepass")
    ends = [*(offset for offset, _ in found[1:]), len(data)][: len(found)]
    tokens: list[Token] = []
    depth = index = previous = 0
    for (offset, kind), end in zip(found, ends, strict=True):
        index += len(data[previous:offset].decode("utf-8", "surrogatepass"))
        previous = offset
        if kind == duckdb.token_type.comment:
            continue
        text = data[offset:end].decode("utf-8", "surrogatepass").rstrip()
        word = text if text[:1] in "\"'" else text.lower()
        if kind not in _QUOTED and not text.startswith('"'):
            _refuse_unusual_spaces(text, index)
        if tokens and tokens[-1].word.endswith("."):
            word = f'"{word}"'  # after a dot every word is a name
        is_word = kind in (duckdb.token_type.operator, duckdb.token_type.keyword)
        depth -= is_word and word in _CLOSING
        tokens.append(Token(word, index, index + len(text), depth))
        depth += is_word and word in _OPENING
    while tokens and tokens[-1].word == ";":
        tokens.pop()
    while tokens and tokens[0].word == ";":
        tokens.pop(0)
    return tokens
