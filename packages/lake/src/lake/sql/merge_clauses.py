"""Read the WHEN clauses of MERGE."""

from __future__ import annotations

from dataclasses import dataclass

from lake.sql.statement_reader import Clause, StatementReader
from sennit_core.errors import Unsupported

__all__ = ["MergeAction", "read_actions"]

# The words of MERGE outside of its expressions, besides names of columns.
_WORDS = frozenset(
    ("when", "not", "matched", "by", "source", "target", "and", "then", "update", "set", "delete",
     "insert", "values", "default", "do", "nothing", "error", "name", "position", "*", ",", "=")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MergeAction:
    """A WHEN clause.

    Args:
        expressions: Those in it.
        of_unmatched: Whether it is for rows of the dataset that nothing matches.
        assigned: The columns that it sets or inserts; None if it means all of them.
        inserts: Whether it adds rows.
    """

    expressions: tuple[Clause, ...]
    of_unmatched: bool
    assigned: tuple[str, ...] | None
    inserts: bool


def read_actions(reader: StatementReader, end: int) -> list[MergeAction]:
    """Read the WHEN clauses up to a token.

    Raises:
        Unsupported: Something is in one that is not known: the statement runs as it is written, so
            nothing in it may stay unchecked.
    """
    starts = reader.find_all(("when",), end)
    return [
        _read_action(reader, start, stop)
        for start, stop in zip(starts, [*starts[1:], end], strict=True)
    ]


def _read_action(reader: StatementReader, start: int, stop: int) -> MergeAction:
    """Read `WHEN … [AND condition] THEN action`."""
    reader.position = start
    then = reader.find(("then",), stop)
    condition = reader.find(("and",), then)
    ranges = [(condition + 1, then)] if condition < then else []
    words = [token.word for token in reader.tokens[start : start + 5]]
    reader.position = then + 1
    verb = reader.word
    read = _read_set if reader.find(("set",), stop) < stop else _read_insert
    assigned, known, more = read(reader, stop)
    ranges += more
    known |= {index for first, last in ranges for index in range(first, last)}
    for index in range(start, stop):
        word = reader.tokens[index].word
        if index not in known and word not in _WORDS:
            raise Unsupported(f"MERGE with {word!r} in a WHEN clause is not supported")
    return MergeAction(
        tuple(reader.cut(first, last) for first, last in ranges),
        words == ["when", "not", "matched", "by", "source"],
        assigned if verb in ("insert", "update") else (),
        verb == "insert",
    )


_Read = tuple[tuple[str, ...] | None, set[int], list[tuple[int, int]]]
"""The columns, the tokens that are known to be names, and the ranges of expressions."""


def _read_set(reader: StatementReader, stop: int) -> _Read:
    names: list[str] = []
    known: set[int] = set()
    ranges = []
    is_all = False
    for first, last in reader.divide(reader.find(("set",), stop) + 1, stop):
        if last - first == 1:  # SET *
            is_all = True
            continue
        name, value = reader.assignment(first, last)
        names.append(name)
        known.add(first)
        if not value.is_default:
            ranges.append((first + 2, last))
    return None if is_all else tuple(names), known, ranges


def _read_insert(reader: StatementReader, stop: int) -> _Read:
    names: tuple[str, ...] | None = None
    known: set[int] = set()
    ranges: list[tuple[int, int]] = []
    values = reader.find(("values",), stop)
    listed = reader.find(("(",), values)
    if listed < values:
        reader.position = listed
        names = reader.names_in_brackets()
        known.update(range(listed, reader.position))
    if values + 1 < stop:
        if reader.tokens[values + 1].word == "(":
            found = reader.divide_brackets(values + 1)
            known.update(range(values + 1, found[-1][1] + 1))  # with brackets and commas
            ranges = [each for each in found if not reader.cut(*each).is_default]
    elif values < stop:  # DEFAULT VALUES
        names = ()
    return names, known, ranges
