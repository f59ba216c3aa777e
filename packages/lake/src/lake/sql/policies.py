"""Apply access policies to the views of datasets.

The view of a dataset with a policy is

    SELECT TRY((mask)) AS a, TRY(("b")) AS "b"
    FROM (SELECT * FROM read_parquet(…) WHERE TRY((condition)) LIMIT 9223372036854775807)

DuckDB's optimizer moves filters of the user's query towards the scan, and orders the conditions of
one filter by their cost. Without a barrier, `WHERE CAST(secret AS INT) > 0` may so see a hidden row
before the policy's condition does, and put its value into an error. No filter can move below a
LIMIT, as it would change which rows are counted, and this one is streamed at no cost.

TRY around each column keeps the statistics of the files (least and greatest value of all rows)
from the functions that show them, and errors of a mask or condition, which would quote a hidden
value, become NULL: a row whose condition fails is hidden. `design/0115` has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lake.access.rules import outdated
from lake.sql.guard import expression_nodes
from lake.sql.statement_reader import tokens_of
from lake.sql.types import literal, quoted
from sennit_core.schema import Schema

__all__ = ["TablePolicy", "bound_expression", "restricted_rows", "shown_columns"]

_BARRIER = f"LIMIT {(1 << 63) - 1}"


@dataclass(frozen=True)
class TablePolicy:
    """The part of a dataset that a user sees.

    Args:
        rows: The condition of the rows; None for all.
        columns: The mask of each column that is not shown as it is; None for a hidden one.
        user: Value of `current_user`.
        role: Value of `current_role`.
    """

    rows: str | None
    columns: Mapping[str, str | None]
    user: str = ""
    role: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TablePolicy:
        """Read the form of executor requests (`lake.access.policies.Access.to_json`)."""
        columns = dict(data["columns"])
        return cls(data["rows"], columns, data["user"], data["role"])

    def to_json(self) -> dict[str, Any]:
        """Return the form of executor requests."""
        columns = [[name, mask] for name, mask in self.columns.items()]
        return {"rows": self.rows, "columns": columns, "user": self.user, "role": self.role}

    def names(self, schema: Schema) -> tuple[str, ...]:
        """Return the names of the columns that are not hidden."""
        return tuple(name for name in schema.names if self.columns.get(name, "") is not None)


def restricted_rows(
    source: str, table: str, schema: Schema, policy: TablePolicy, numbers: Sequence[str] = ()
) -> str:
    """Return the query of the rows and columns that a policy shows.

    Args:
        source: The dataset's rows, as an item of FROM.
        table: The dataset's name, for errors.
        schema: Its columns.
        policy: Its expressions are checked again, as a second line of defense.
        numbers: Columns that `read_parquet` adds, which the result has too.

    Raises:
        Denied: The policy names a column that the dataset does not have (any more).
    """
    columns = shown_columns(table, schema, policy)
    columns += numbers
    # By name: a source may have the numbers as columns of its own.
    every = [*map(quoted, schema.names), *numbers] if numbers else ["*"]
    rows = f"SELECT {', '.join(every)} FROM {source}"
    if policy.rows is not None:
        rows += f" WHERE TRY((\n{bound_expression(policy.rows, policy)}\n)) {_BARRIER}"
    return f"SELECT {', '.join(columns)} FROM ({rows})"


def shown_columns(table: str, schema: Schema, policy: TablePolicy) -> list[str]:
    """Return the columns that a policy shows, as expressions of those of the dataset.

    Raises:
        Denied: The policy names a column that the dataset does not have (any more).
    """
    missing = sorted(set(policy.columns) - set(schema.names))
    if missing:
        raise outdated(table, f"it has no column {missing[0]!r}")
    columns = []
    for name in policy.names(schema):
        mask = policy.columns.get(name)
        shown = quoted(name) if mask is None else _mask(mask, name, policy)
        columns.append(f"TRY(({shown})) AS {quoted(name)}")
    if not columns:
        raise outdated(table, "no column is left")
    return columns


def _mask(text: str, column: str, policy: TablePolicy) -> str:
    # The type of a bare NULL would be INTEGER.
    if text.strip().casefold() == "null":
        return f"CASE WHEN false THEN {quoted(column)} END"
    return f"\n{bound_expression(text, policy)}\n"


@lru_cache(maxsize=256)
def _checked(text: str) -> str:
    expression_nodes(text)
    return text


def bound_expression(text: str, policy: TablePolicy) -> str:
    """Return a checked expression with the user's name and role as constants."""
    values = {"current_user": policy.user, "current_role": policy.role}
    pieces, end = [], 0
    for token in tokens_of(text):
        if token.word in values:
            pieces += [text[end : token.start], literal(values[token.word])]
            end = token.stop
    return _checked("".join([*pieces, text[end:]]))
