"""Take a statement that changes a dataset apart: its verb, its dataset, and its clauses as written.

DuckDB's parser decides whether the statement is valid SQL. Its tree is available for queries only,
so the clauses are found among the tokens of DuckDB's tokenizer, outside of brackets, where keywords
cannot be part of an expression (`IS DISTINCT FROM` is the one exception). The clauses become parts
of queries (`lake.sql.write_worker`), which `lake.sql.guard` checks like any other query. They keep
their text, so that DuckDB alone decides what an expression means.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

import duckdb

from lake.mentions import CHANGING_VERBS, READING_VERBS, UNUSUAL_SPACES
from lake.sql.failures import syntax_error
from lake.sql.guard import statement_kinds
from sennit_core.errors import SqlError, Unsupported

__all__ = [
    "Clause",
    "CreateTable",
    "Delete",
    "DropTable",
    "Insert",
    "Merge",
    "Token",
    "Update",
    "Write",
    "parse_write",
    "tokens_of",
]

_SUPPORTED = "INSERT, UPDATE, DELETE, MERGE, TRUNCATE, CREATE TABLE and DROP TABLE"
# The words of MERGE outside of its expressions, besides names of columns.
_MERGE_WORDS = frozenset(
    ("when", "not", "matched", "by", "source", "target", "and", "then", "update", "set", "delete",
     "insert", "values", "default", "do", "nothing", "error", "name", "position", "*", ",", "=")
)  # fmt: skip
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


@dataclass(frozen=True, slots=True)
class Insert:
    """INSERT INTO.

    Args:
        table: The dataset.
        prelude: The WITH clause before the verb, "" if there is none.
        query: The rows; None for DEFAULT VALUES.
        columns: The columns that are listed; None for all.
        by_name: Whether the query's columns are assigned by name.
        place: The name as written.
    """

    table: str
    place: Clause
    prelude: Clause
    query: Clause | None
    columns: tuple[str, ...] | None
    by_name: bool


@dataclass(frozen=True, slots=True)
class CreateTable:
    """CREATE TABLE with columns, or AS a query.

    Args:
        table: The new dataset.
        query: The rows; None if there are columns.
        columns: Names and types; None if there is a query.
        replaces: OR REPLACE.
        if_missing: IF NOT EXISTS.
    """

    table: str
    query: Clause | None
    columns: tuple[tuple[str, Clause], ...] | None
    replaces: bool
    if_missing: bool


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE FROM, or TRUNCATE; `sources` are the tables of USING, "" for none."""

    table: str
    alias: str
    prelude: Clause
    sources: Clause
    condition: Clause


@dataclass(frozen=True, slots=True)
class Update:
    """UPDATE; `sources` are the tables of FROM, "" for none."""

    table: str
    alias: str
    prelude: Clause
    assignments: tuple[tuple[str, Clause], ...]
    sources: Clause
    condition: Clause


@dataclass(frozen=True, slots=True)
class Merge:
    """MERGE INTO.

    Args:
        table: The dataset.
        alias: Its name in the clauses.
        prelude: The WITH clause before the verb, "" if there is none.
        source: What is merged into it.
        join: ON or USING, and the condition.
        expressions: Those of the WHEN clauses.
        of_unmatched: Whether a clause is for rows of the dataset that nothing matches.
    """

    table: str
    alias: str
    prelude: Clause
    source: Clause
    join: Clause
    expressions: tuple[Clause, ...]
    of_unmatched: bool


@dataclass(frozen=True, slots=True)
class DropTable:
    """DROP TABLE."""

    table: str
    if_exists: bool


Write: TypeAlias = Insert | CreateTable | Delete | Update | Merge | DropTable


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a statement."""

    word: str  # its text, in lower case unless it is quoted
    start: int  # index of its first character
    stop: int
    depth: int  # of brackets around it


def parse_write(sql: str) -> Write | None:
    """Return the statement's parts; None if it is a query, or no such statement at all.

    Raises:
        SqlError: It does not parse, or is several statements.
        Unsupported: A clause or a kind of statement that changes data is not supported.
    """
    reader = _Reader(sql)
    verb = reader.find_verb()
    if verb is None:
        return None
    try:
        count = len(statement_kinds(sql))
    except duckdb.ParserException as error:
        raise syntax_error(error, sql) from None
    if count != 1:
        raise SqlError(f"{count} statements; send one", line=1, column=1, offset=0)
    prelude = reader.cut(0, verb)
    reader.position = verb
    word = reader.take()
    parse = _PARSERS.get(word)
    if parse is None:
        raise Unsupported(f"{word.upper()} is not supported", hint=f"use {_SUPPORTED}")
    return parse(reader, prelude)


def _insert(reader: _Reader, prelude: Clause) -> Insert:
    reader.refuse("or", "INSERT OR", "there are no keys, so rows cannot conflict")
    reader.expect("into")
    place = reader.cut(reader.position, reader.position + 1)
    table = reader.name()
    if reader.accept("as"):
        reader.name()
    columns = None
    if reader.word == "(" and reader.next_word not in (*READING_VERBS, "with", "("):
        columns = reader.names_in_brackets()
    by_name = False
    if reader.accept("by"):
        by_name = reader.take() == "name"
    stop = reader.find(("returning",))
    conflict = reader.find_pair("on", "conflict", ("do", "(", "on"))
    if stop < len(reader.tokens) or conflict < len(reader.tokens):
        raise Unsupported("INSERT with ON CONFLICT or RETURNING is not supported")
    if reader.word == "default":
        return Insert(table, place, prelude, None, columns, by_name)
    return Insert(table, place, prelude, reader.cut(reader.position, stop), columns, by_name)


def _update(reader: _Reader, prelude: Clause) -> Update:
    table = reader.name()
    alias = reader.alias(before=("set",)) or table
    reader.expect("set")
    end = reader.find(("returning",))
    _refuse_returning(reader, end)
    condition = reader.find(("where",))
    sources = reader.find_from(condition)
    assignments = tuple(
        _assignment(reader, start, stop) for start, stop in reader.divide(reader.position, sources)
    )
    return Update(
        table,
        alias,
        prelude,
        assignments,
        reader.cut(sources + 1, condition),
        reader.cut(condition + 1, end),
    )


def _assignment(reader: _Reader, start: int, stop: int) -> tuple[str, Clause]:
    if reader.tokens[start].word == "(":
        raise Unsupported("SET (a, b) = … is not supported", hint="assign one column at a time")
    if reader.tokens[start + 1].word != "=":
        raise Unsupported("SET assigns whole columns", hint="write SET column = expression")
    return reader.unquoted(start), reader.cut(start + 2, stop)


def _delete(reader: _Reader, prelude: Clause) -> Delete:
    reader.expect("from")
    table = reader.name()
    alias = reader.alias(before=("using", "where", "returning")) or table
    if reader.word not in ("using", "where", "returning", ""):
        raise Unsupported(f"DELETE FROM {table} … {reader.word}", hint="use USING and WHERE")
    end = reader.find(("returning",))
    _refuse_returning(reader, end)
    condition = reader.find(("where",))
    # Before the condition: a join in the list of tables may have a USING of its own.
    sources = reader.find(("using",), condition)
    return Delete(
        table, alias, prelude, reader.cut(sources + 1, condition), reader.cut(condition + 1, end)
    )


def _merge(reader: _Reader, prelude: Clause) -> Merge:
    reader.expect("into")
    table = reader.name()
    alias = reader.alias(before=("using",)) or table
    reader.expect("using")
    end = reader.find(("returning",))
    _refuse_returning(reader, end)
    when = reader.find(("when",), end)
    # The last one: the source may be a join with a condition of its own.
    join = max(reader.find_all(("on", "using"), when), default=when)
    source = reader.cut(reader.position, join)
    actions = reader.find_all(("when",), end)
    expressions: list[Clause] = []
    of_unmatched = False
    for start, stop in zip(actions, [*actions[1:], end], strict=True):
        words = [token.word for token in reader.tokens[start : start + 5]]
        of_unmatched |= words == ["when", "not", "matched", "by", "source"]
        expressions += _expressions_of_action(reader, start, stop)
    return Merge(
        table,
        alias,
        prelude,
        source,
        reader.cut(join, when),
        tuple(expressions),
        of_unmatched,
    )


def _expressions_of_action(reader: _Reader, start: int, stop: int) -> list[Clause]:
    """Return the expressions of `WHEN … [AND condition] THEN action`; refuse what else may be there.

    The statement runs as it is written, so nothing in it may stay unchecked.
    """
    reader.position = start
    then = reader.find(("then",), stop)
    condition = reader.find(("and",), then)
    ranges = [(condition + 1, then)] if condition < then else []
    names: set[int] = set()  # the tokens of columns that are assigned
    reader.position = then
    assigned = reader.find(("set",), stop)
    values = reader.find(("values",), stop)
    listed = reader.find(("(",), values)
    if assigned < stop:
        for first, last in reader.divide(assigned + 1, stop):
            if last - first > 1:  # not SET *
                _assignment(reader, first, last)
                names.add(first)
                ranges.append((first + 2, last))
    else:
        if listed < values:
            reader.position = listed
            reader.names_in_brackets()
            names.update(range(listed, reader.position))
        if values < stop:
            ranges.append((values + 1, stop))
    known = names | {index for first, last in ranges for index in range(first, last)}
    for index in range(start, stop):
        word = reader.tokens[index].word
        if index not in known and word not in _MERGE_WORDS:
            raise Unsupported(f"MERGE with {word!r} in a WHEN clause is not supported")
    return [reader.cut(first, last) for first, last in ranges]


def _truncate(reader: _Reader, prelude: Clause) -> Delete:
    reader.accept("table")
    table = reader.name()
    return Delete(table, table, prelude, reader.nothing(), reader.nothing())


def _create(reader: _Reader, _prelude: Clause) -> CreateTable:
    replaces = reader.accept("or")
    if replaces:
        reader.expect("replace")
    if reader.word != "table":
        kind = reader.word.upper()
        raise Unsupported(f"CREATE {kind} is not supported", hint=f"use {_SUPPORTED}")
    reader.take()
    if_missing = reader.accept("if")
    if if_missing:
        reader.expect("not")
        reader.expect("exists")
    table = reader.name()
    if reader.accept("as"):
        query = reader.cut(reader.position, len(reader.tokens))
        return CreateTable(table, query, None, replaces, if_missing)
    stop = reader.find((")",))
    if reader.word != "(" or stop + 1 < len(reader.tokens):
        raise Unsupported(
            "this form of CREATE TABLE is not supported",
            hint="write CREATE TABLE name AS query, or CREATE TABLE name (column type, …)",
        )
    columns = tuple(
        (reader.unquoted(start), reader.cut(start + 1, end))
        for start, end in reader.divide_brackets(reader.position)
    )
    return CreateTable(table, None, columns, replaces, if_missing)


def _drop(reader: _Reader, _prelude: Clause) -> DropTable:
    if reader.word != "table":
        raise Unsupported(f"DROP {reader.word.upper()} is not supported", hint="use DROP TABLE")
    reader.take()
    if_exists = reader.accept("if")
    if if_exists:
        reader.expect("exists")
    table = reader.name()
    if reader.position < len(reader.tokens):
        raise Unsupported("DROP TABLE takes one name", hint="CASCADE and RESTRICT have no use here")
    return DropTable(table, if_exists)


_PARSERS: dict[str, Callable[[_Reader, Clause], Write]] = {
    "insert": _insert,
    "update": _update,
    "delete": _delete,
    "truncate": _truncate,
    "merge": _merge,
    "create": _create,
    "drop": _drop,
}


def _refuse_returning(reader: _Reader, end: int) -> None:
    if end < len(reader.tokens):
        raise Unsupported("RETURNING is not supported", hint="query the rows in a second statement")


class _Reader:
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
