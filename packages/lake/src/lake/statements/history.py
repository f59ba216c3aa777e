"""Earlier snapshots in SQL: fill the views that stand for `t AT (VERSION => 3)` in a statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lake.catalog.catalog import Catalog
from lake.catalog.snapshots import Manifest
from sennit_core.errors import SennitError, SqlError, UnknownColumn, UsageError

__all__ = ["may_read_history", "resolve_history", "without_place"]


def may_read_history(sql: str) -> bool:
    """Return whether a text may hold an AT clause; the parser decides."""
    folded = sql.casefold()
    return "=>" in folded and "at" in folded and ("version" in folded or "timestamp" in folded)


def resolve_history(
    sql: str, found: Sequence[dict[str, Any]], catalog: Catalog
) -> tuple[str, dict[str, Manifest]]:
    """Replace the tables with an AT clause by names of views.

    Args:
        sql: The statement.
        found: The clauses (`lake.sql.history.find_history`).
        catalog: Knows the snapshots.

    Returns:
        The statement, and the snapshot of each view by the view's name.

    Raises:
        NotFound: There is no such dataset or snapshot.
    """
    views: dict[str, Manifest] = {}
    pieces, end = [], 0
    for clause in found:
        manifest = catalog.manifest_at(
            clause["table"], version=clause.get("version"), time=clause.get("time")
        )
        # Not the dataset's name, which may be in the statement without an AT clause too.
        name = f"{manifest.snapshot.dataset}@{manifest.snapshot.version}"
        if catalog.find_id(name) is not None:
            raise UsageError(f"a dataset is named {name!r}, which snapshots of another are called")
        views[name] = manifest
        pieces += [sql[end : clause["start"]], f'"{name}"{clause["after"]}']
        end = clause["stop"]
    return "".join([*pieces, sql[end:]]), views


def without_place(error: SennitError) -> SennitError:
    """Return an error in a statement whose AT clauses were replaced: its place is in that text."""
    match error:
        case UnknownColumn():
            return UnknownColumn(name=error.name, known=error.known, suggestion=error.suggestion)
        case SqlError(line=int()):
            return SqlError(error.message, hint=error.hint)
        case _:
            return error
