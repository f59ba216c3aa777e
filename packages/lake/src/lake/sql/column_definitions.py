"""Read the definition of a column: its name, its type, NOT NULL and DEFAULT."""

from __future__ import annotations

from dataclasses import dataclass

from lake.sql.statement_reader import Clause, StatementReader

__all__ = ["ColumnDefinition", "read_definition"]

# The words that may follow the expression of DEFAULT, which none of them can continue outside of brackets.
_AFTER_DEFAULT = frozenset(
    ("not", "null", "default", "check", "unique", "primary", "references", "generated",
     "constraint", "using")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    """A column of CREATE TABLE or ADD COLUMN.

    Args:
        name: Its name.
        type: Its type as written; also what else is written that is not supported.
        required: NOT NULL.
        default: The expression of DEFAULT.
    """

    name: str
    type: Clause
    required: bool = False
    default: Clause | None = None


def read_definition(reader: StatementReader, start: int, stop: int) -> ColumnDefinition:
    """Read the tokens of a range, the first of which is the column's name."""
    name, tokens = reader.unquoted(start), reader.tokens
    depth = tokens[start].depth
    after = range(start + 1, stop)
    # The first word is the type, which may be called like any of these.
    place = next(
        (i for i in after[1:] if (tokens[i].word, tokens[i].depth) == ("default", depth)), stop
    )
    is_required, type_stop = _nullability(reader, start + 1, place)
    kind = reader.cut(start + 1, type_stop)
    if place == stop:
        return ColumnDefinition(name, kind, is_required)
    follows = range(place + 2, stop)
    end = next(
        (i for i in follows if tokens[i].depth == depth and tokens[i].word in _AFTER_DEFAULT), stop
    )
    is_required_after, rest = _nullability(reader, end, stop)
    if rest > end:  # it is no type, which the check of the type reports
        kind = reader.cut(start + 1, stop)
    return ColumnDefinition(
        name, kind, is_required or is_required_after, reader.cut(place + 1, end)
    )


def _nullability(reader: StatementReader, start: int, stop: int) -> tuple[bool, int]:
    """Return whether a range ends with NOT NULL, and the end of what is before that, or before NULL."""
    words = [reader.tokens[index].word for index in range(start, stop)]
    if words[-1:] != ["null"]:
        return False, stop
    is_required = words[-2:] == ["not", "null"]
    return is_required, stop - 1 - is_required
