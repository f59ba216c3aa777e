"""Read the clauses PARTITIONED BY and SORTED BY, in DuckDB's and DuckLake's spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lake.sql.statement_reader import StatementReader
from sennit_core.errors import Unsupported

__all__ = [
    "NO_CLAUSES",
    "LayoutClauses",
    "ResetLayout",
    "SetLayout",
    "read_layout",
    "reset_layout",
    "set_layout",
    "without_directions",
]

_SORTED = re.compile(r"\bsorted\s+by\s*\([^()]*\)", re.IGNORECASE)
_DIRECTION = re.compile(r"\b(?:asc|desc|nulls\s+(?:first|last))\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LayoutClauses:
    """The fields of both clauses as written; empty for a clause that is not there."""

    partition_by: tuple[str, ...] = ()
    sort_by: tuple[str, ...] = ()


NO_CLAUSES = LayoutClauses()


@dataclass(frozen=True, slots=True)
class SetLayout:
    """SET PARTITIONED BY (…), or SET SORTED BY (…)."""

    kind: str  # "partitioned" or "sorted"
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResetLayout:
    """RESET PARTITIONED BY, or RESET SORTED BY."""

    kind: str


def read_layout(reader: StatementReader) -> LayoutClauses:
    """Read the clauses at the position, in any order, each once at most."""
    found: dict[str, tuple[str, ...]] = {}
    while reader.words(2) in (("partitioned", "by"), ("sorted", "by")):
        kind = reader.word
        if kind in found:
            raise Unsupported(f"{kind.upper()} BY is there twice", hint="write one list of fields")
        reader.position += 2
        found[kind] = _fields(reader)
    return LayoutClauses(found.get("partitioned", ()), found.get("sorted", ()))


def without_directions(sql: str) -> str:
    """Return a statement with blanks for DESC and NULLS FIRST in SORTED BY, for DuckDB's parser.

    It accepts them in ALTER TABLE, and not in CREATE TABLE. Places stay as they are.
    """

    def blank(words: re.Match[str]) -> str:
        return " " * len(words[0])

    return _SORTED.sub(lambda clause: _DIRECTION.sub(blank, clause[0]), sql)


def set_layout(reader: StatementReader) -> SetLayout:
    """Read ALTER TABLE … SET, of which SET has been read."""
    return SetLayout(_kind(reader, "SET"), _fields(reader))


def reset_layout(reader: StatementReader) -> ResetLayout:
    """Read ALTER TABLE … RESET, of which RESET has been read."""
    return ResetLayout(_kind(reader, "RESET"))


def _kind(reader: StatementReader, verb: str) -> str:
    kind = reader.take()
    if kind not in ("partitioned", "sorted") or not reader.accept("by"):
        raise Unsupported(
            f"ALTER TABLE … {verb} {kind.upper()} is not supported",
            hint=f"{verb} is for PARTITIONED BY and SORTED BY",
        )
    return kind


def _fields(reader: StatementReader) -> tuple[str, ...]:
    if reader.word != "(":
        raise Unsupported(
            "a list of fields in brackets is expected", hint="write BY (a, month(ts))"
        )
    ranges = reader.divide_brackets(reader.position)
    fields = tuple(reader.cut(start, stop).text for start, stop in ranges)
    depth = reader.tokens[reader.position].depth
    after = range(reader.position + 1, len(reader.tokens))
    reader.position = 1 + next(place for place in after if reader.tokens[place].depth == depth)
    if not fields:
        raise Unsupported("a list without fields", hint="RESET PARTITIONED BY removes them")
    return fields
