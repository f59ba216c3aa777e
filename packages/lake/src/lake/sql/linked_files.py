"""Linked files as tables of DuckDB: exactly the rows that their ingest would store, or an error.

DuckDB's CSV reader and the ingest disagree about odd values: DuckDB reads `007`, `1.5` and `1e3` as
integers, for example. So the reader returns text, and each typed column is an expression over it that
accepts only forms whose meaning is the same in both. Any other value is an error, which the ingest
resolves, as it may widen the column. A value is converted once, in an inner SELECT, because DuckDB
evaluates each branch of a CASE on its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lake.ingest.columns import KINDS, NULL_WORDS
from lake.links.local_files import LocalFile
from sennit_core.errors import BadInput, Conflict, SennitError
from sennit_core.schema import DataType, Schema

__all__ = ["LINKABLE_KINDS", "LinkedFile", "link_error"]

_SPACE = "' ' || chr(9) || chr(11) || chr(12)"
# Patterns, not lists: the optimizer makes a hash join of a long IN, which loses the rows' order.
_NULLS = "|".join(map(re.escape, NULL_WORDS))
_NOT_FINITE = "nan|-?inf(inity)?"
_MARK = "linked-value"
_VALUE = re.compile(rf"{_MARK} (\d+):(.*)", re.DOTALL)
_SHOWN_VALUE = 80
_CSV_LINE = re.compile(r"CSV Error on Line: (\d+)")
_CSV_REASON = re.compile(
    r"^((?:Expected Number of Columns|Value with|Invalid unicode|Maximum line size).*)$",
    re.MULTILINE,
)
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
_STAMP = rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([ T]{_CLOCK})?"
_ZONED = rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T]{_CLOCK}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)"
_FLOAT = r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
_LONG = r"-?[0-9]{17,}"
# Dates and times beyond these have forms that the ingest refuses, and so have infinite ones.
_DAYS = "v BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
_TIMES = "v BETWEEN TIMESTAMP '0001-01-01 00:00:00' AND TIMESTAMP '9999-12-31 23:59:59.999999'"
# What starts with a digit is no word, and `007` has a digit after its zero. Below 17 characters no digit
# is lost. DuckDB ignores `_` between digits. The rest of what it converts is a number for the ingest too.
_PLAIN_FLOAT = (
    "t >= '0' AND t < ':' AND (t >= '1' OR t < '0/') AND strlen(t) < 17 AND v < 1e300 "
    "AND NOT contains(t, '_')"
)
# The type that the text is converted to (v), and the conditions under which the value counts; t is
# the text, s the text without white space around it. The first condition is the cheap one, for most
# values; the others are evaluated only where it is false.
# Measured on values of TPC-H, in ns for each, the conversion included: an integer printed and compared
# 28, matched by a pattern 49; a date printed 40, matched 67; a price compared and searched 22, matched
# 55, printed 89. DuckDB's own conversion takes 8 to 16.
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "int": ("BIGINT", ("v::VARCHAR = t", "v::VARCHAR = s")),
    "date": ("DATE", (f"{_DAYS} AND v::VARCHAR = t", f"{_DAYS} AND v::VARCHAR = s")),
    "float": (
        "DOUBLE",
        (
            _PLAIN_FLOAT,
            (
                f"isfinite(v) AND regexp_full_match(s, '{_FLOAT}') "
                f"AND NOT regexp_full_match(s, '{_LONG}')"
            ),
            f"v IS NOT NULL AND regexp_full_match(lower(s), '{_NOT_FINITE}')",
        ),
    ),
    "timestamp": (
        "TIMESTAMP",
        (
            f"{_TIMES} AND v::VARCHAR = t",
            f"v IS NOT NULL AND regexp_full_match(s, '{_STAMP}')",
        ),
    ),
    "timestamp-utc": (
        "TIMESTAMPTZ",
        (f"v IS NOT NULL AND regexp_full_match(s, '{_ZONED}')",),
    ),
}
LINKABLE_KINDS = frozenset({*_KINDS, "bool", "text", "null"})
"""Kinds of columns (`lake.ingest.columns`) that have such an expression."""


@dataclass(frozen=True)
class LinkedFile:
    """A file that a dataset reads in place.

    Args:
        file: The file, as it was when it was linked.
        format: `csv` or `parquet`.
        delimiter: Field delimiter of a CSV file.
        skip: Lines of a CSV file above its first record of data.
        kinds: Kind of each column of a CSV file.
    """

    file: LocalFile
    format: str
    delimiter: str = ","
    skip: int = 0
    kinds: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LinkedFile:
        """Read the form of executor requests: `file` and `reader`."""
        reader = dict(data["reader"])
        kinds = tuple(reader.pop("kinds", ()))
        return cls(LocalFile.from_json(data["file"]), kinds=kinds, **reader)

    @property
    def reader(self) -> dict[str, Any]:
        """How the file is read, as stored with the link."""
        if self.format != "csv":
            return {"format": self.format}
        return {
            "format": self.format,
            "delimiter": self.delimiter,
            "skip": self.skip,
            "kinds": list(self.kinds),
        }

    def query(self, schema: Schema) -> str:
        """Return a query of the file's rows, with these columns."""
        if self.format == "parquet":
            return (
                f"SELECT * FROM read_parquet({_literal(self.file.path)}, hive_partitioning = false)"
            )
        inner, outer = [], []
        for index, (name, kind) in enumerate(zip(schema.names, self.kinds, strict=True)):
            inner.append(f"t{index}")
            if kind in _KINDS:
                inner.append(f"TRY_CAST(t{index} AS {_KINDS[kind][0]}) AS v{index}")
            outer.append(f'{_value(kind, index)} AS "{name.replace(chr(34), chr(34) * 2)}"')
        return f"SELECT {', '.join(outer)} FROM (SELECT {', '.join(inner)} FROM {self._texts()})"

    def _texts(self) -> str:
        columns = ", ".join(f"'t{index}': 'VARCHAR'" for index in range(len(self.kinds)))
        return (
            f"read_csv({_literal(self.file.path)}, auto_detect = false, columns = {{{columns}}}, "
            f"delim = {_literal(self.delimiter)}, quote = '\"', escape = '\"', header = false, "
            f"skip = {self.skip}, nullstr = '', allow_quoted_nulls = false, strict_mode = true, "
            "compression = 'none', hive_partitioning = false)"
        )


def link_error(text: str, name: str, link: LinkedFile, schema: Schema) -> SennitError | None:
    """Return the error for a failed read of a linked file, or None.

    Args:
        text: DuckDB's message.
        name: The dataset's name.
        link: Its file.
        schema: Its columns.
    """
    what = f'{link.file.name} (dataset "{name}")'
    if found := _VALUE.search(text):
        index, value = int(found[1]), found[2]
        if index >= len(link.kinds):
            return None
        column, kind = schema.names[index], link.kinds[index]
        known = DataType.from_arrow(KINDS[kind].type)
        so_far = "empty" if kind == "null" else f"{known}"
        return Conflict(
            f"{what}: column {column!r} is {so_far} in the beginning of the file, and "
            f"{value[:_SHOWN_VALUE]!r} is not",
            hint="the ingest chooses a type for the whole column: query again when its job is done "
            "(`platform jobs`)",
        )
    if "CSV Error" not in text and link.file.path not in text:
        return None
    line, reason = _CSV_LINE.search(text), _CSV_REASON.search(text)
    return BadInput(
        what=what,
        line=int(line[1]) if line else None,
        reason=f"a record cannot be read where it is: {reason[1] if reason else 'malformed CSV'}",
        hint="query again when the ingest job of the file is done, or see its error (`platform jobs`)",
    )


def _value(kind: str, index: int) -> str:
    """Return the expression of a column: its value, NULL, or an error."""
    text = f"t{index}"
    if kind == "text":
        return text
    failure = f"error(concat('{_MARK} {index}:', {text}))"
    if kind == "null":  # its words for NULL are text: see `columns.read_column`
        return f"CASE WHEN {text} IS NULL OR regexp_full_match({text}, '{_NULLS}') THEN {text} ELSE {failure} END"
    trimmed = f"trim({text}, {_SPACE})"
    if kind == "bool":
        cases = [(f"lower({trimmed}) = '{word}'", word) for word in ("true", "false")]
    else:
        cases = [(_bound(condition, index, trimmed), f"v{index}") for condition in _KINDS[kind][1]]
    whens = " ".join(f"WHEN {condition} THEN {value}" for condition, value in cases)
    nulls = f"{text} IS NULL OR regexp_full_match({trimmed}, '{_NULLS}')"
    return f"CASE {whens} WHEN {nulls} THEN NULL ELSE {failure} END"


def _bound(condition: str, index: int, trimmed: str) -> str:
    values = {"v": f"v{index}", "t": f"t{index}", "s": trimmed}
    # Outside of the quotes only: a pattern is no name.
    parts = re.split(r"('[^']*')", condition)
    for place in range(0, len(parts), 2):
        parts[place] = re.sub(r"\b[vts]\b", lambda found: values[found[0]], parts[place])
    return "".join(parts)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
