"""Several statements in one request: cut apart at semicolons, and grouped by BEGIN and COMMIT.

Only semicolons outside of quotes and comments divide. The executors parse each statement by
themselves, so a text that is cut at a wrong place is a syntax error and nothing worse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lake.statements.mentions import end_of_quoted
from sennit_core.errors import SennitError, SqlError, Unsupported, UsageError

__all__ = ["Block", "Piece", "Step", "params_of_piece", "placed", "read_script"]

STATEMENTS_MAX = 100
_CUT = re.compile(r"""--|/\*|"|'|\$[A-Za-z_0-9]*\$|;""")
_WORD = re.compile(r"\w+")
_BEGIN = frozenset(("begin", "start"))
_ENDS = {"commit": True, "end": True, "rollback": False, "abort": False}
_TRANSACTION = re.compile(
    r"(?:\s*(?:transaction|work))?\s*(?:--.*|/\*.*\*/\s*)?", re.IGNORECASE | re.DOTALL
)
_SESSION = frozenset(("prepare", "execute", "deallocate"))
_PLACE = re.compile(r"line (\d+), column (\d+)")
_ONE_REQUEST = "a transaction is one request: BEGIN; …; COMMIT"


@dataclass(frozen=True, slots=True)
class Piece:
    """One statement of a request.

    Args:
        number: Its place among the statements, from 1.
        count: The number of statements.
        text: The statement, from its first word.
        offset: Its first character's index in the request.
        line: From 1.
        column: From 1.
    """

    number: int
    count: int
    text: str
    offset: int
    line: int
    column: int

    @property
    def verb(self) -> str:
        """The first word, in lower case."""
        found = _WORD.match(self.text)
        return "" if found is None else found[0].lower()

    @property
    def place(self) -> str:
        """Where it is, for errors."""
        return f"statement {self.number} of {self.count} (line {self.line}, column {self.column})"

    def error(self, message: str, hint: str) -> SqlError:
        """Return an error about the statement as a whole."""
        return SqlError(
            f"{self.place}: {message}",
            line=self.line,
            column=self.column,
            offset=self.offset,
            hint=hint,
        )


@dataclass(frozen=True, slots=True)
class Block:
    """BEGIN, statements, and COMMIT or ROLLBACK.

    Args:
        pieces: The statements between.
        begin: BEGIN.
        end: What ends it.
        commits: Whether that is COMMIT.
    """

    pieces: tuple[Piece, ...]
    begin: Piece
    end: Piece
    commits: bool


Step = Piece | Block


def read_script(sql: str) -> Sequence[Step] | None:
    """Return the statements of a request in their order; None if it is a single one.

    Raises:
        UsageError: There are too many.
        SqlError: BEGIN and COMMIT do not belong together.
        Unsupported: A statement needs a session, which a request does not have.
    """
    pieces = list(_pieces(sql))
    for piece in pieces:
        _refuse_session(piece)
    if len(pieces) < 2 and not (pieces and _is_of_transaction(pieces[0])):
        return None
    return list(_steps(pieces))


def _pieces(sql: str) -> Iterator[Piece]:
    found = []
    start = 0
    for stop in [*_semicolons(sql), len(sql)]:
        first = _first_word(sql, start, stop)
        if first < stop:
            found.append((first, sql[first:stop].rstrip()))
        start = stop + 1
        if len(found) > STATEMENTS_MAX:
            raise UsageError(
                f"the request has more than {STATEMENTS_MAX} statements",
                hint="send them in several requests, or insert many rows by one statement",
            )
    line = at = 0  # lines before `at`: each part of the text is searched once
    for number, (first, text) in enumerate(found, 1):
        line += sql.count("\n", at, first)
        at = first
        column = first - (sql.rfind("\n", 0, first) + 1) + 1
        yield Piece(number, len(found), text, first, line + 1, column)


def _semicolons(sql: str) -> Iterator[int]:
    position = 0
    while (found := _CUT.search(sql, position)) is not None:
        position = found.end()
        if found[0] == ";":
            yield found.start()
        elif (position := end_of_quoted(sql, found[0], position)) < 0:
            return  # never closed: the parser says where


def _first_word(sql: str, start: int, stop: int) -> int:
    """Return where the text after spaces and comments begins; `stop` if there is none."""
    while start < stop:
        if sql[start].isspace():
            start += 1
        elif (opening := sql[start : start + 2]) in ("--", "/*"):
            end = end_of_quoted(sql, opening, start + 2)
            start = stop if end < 0 else end
        else:
            return start
    return stop


def _refuse_session(piece: Piece) -> None:
    if piece.verb in _SESSION:
        raise Unsupported(
            f"{piece.verb.upper()} (line {piece.line}, column {piece.column}): there is no session "
            "that could keep a prepared statement",
            hint="send the statement with parameters: `params` of a request, or a prepared "
            "statement of Flight SQL",
        )


def _is_of_transaction(piece: Piece) -> bool:
    if piece.verb not in _BEGIN and piece.verb not in _ENDS:
        return False
    if _TRANSACTION.fullmatch(piece.text, len(piece.verb)) is None:
        raise piece.error(
            f"{piece.verb.upper()} with options is not supported",
            "write BEGIN, COMMIT or ROLLBACK: each transaction reads one state of the lake",
        )
    return True


def _steps(pieces: Sequence[Piece]) -> Iterator[Step]:
    begin: Piece | None = None
    inside: list[Piece] = []
    for piece in pieces:
        if not _is_of_transaction(piece):
            if begin is None:
                yield piece
            inside.append(piece)
        elif piece.verb in _BEGIN:
            if begin is not None:
                raise piece.error("BEGIN inside a transaction", "end the first one with COMMIT")
            begin, inside = piece, []
        elif begin is None:
            raise piece.error(f"{piece.verb.upper()} without BEGIN", _ONE_REQUEST)
        else:
            yield Block(tuple(inside), begin, piece, _ENDS[piece.verb])
            begin = None
    if begin is not None:
        raise begin.error("BEGIN without COMMIT or ROLLBACK", _ONE_REQUEST)


def params_of_piece(
    piece: Piece, params: list[Any] | Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return the named parameters that a statement uses.

    Raises:
        UsageError: The parameters have no names.
    """
    if not params:
        return None
    if isinstance(params, list):
        raise UsageError(
            "a list of parameters for several statements",
            hint='name them: $name in SQL, and {"name": value} as parameters',
        )
    return {name: value for name, value in params.items() if f"${name}" in piece.text} or None


def placed(error: SennitError, piece: Piece, committed: Sequence[int]) -> SennitError:
    """Return the error of a statement with its number, and its place in the whole text.

    Args:
        error: The error, with the place in the statement.
        piece: The statement.
        committed: The numbers of the statements that were committed before it.
    """
    members = {each.name: getattr(error, each.name) for each in fields(error)}
    shown = _PLACE.sub(lambda found: _moved(found, piece), str(error))
    members["message"] = f"{piece.place}: {shown}"
    done = "no statement before it is committed"
    if committed:
        several = len(committed) > 1
        numbers = ", ".join(map(str, committed))
        done = f"statement{'s' * several} {numbers} {'are' if several else 'is'} committed"
    members["hint"] = f"{error.hint}; {done}" if error.hint else done
    if isinstance(error, SqlError) and error.offset is not None:
        line, column = error.line or 1, error.column or 1
        members["offset"] = piece.offset + error.offset
        members["line"] = piece.line + line - 1
        members["column"] = column + (piece.column - 1 if line == 1 else 0)
    return type(error)(**members)


def _moved(found: re.Match[str], piece: Piece) -> str:
    line, column = int(found[1]), int(found[2])
    column += piece.column - 1 if line == 1 else 0
    return f"line {piece.line + line - 1}, column {column}"
