"""Which datasets and views of a request a statement reads."""

from __future__ import annotations

from contextlib import suppress

from lake.sql.tables import Table
from lake.sql.views import checked_view, views_read
from sennit_core.errors import NotFound, SennitError, error_from_json

__all__ = ["listed_tables", "repeatable", "used_tables"]


def used_tables(tables: list[Table], wanted: frozenset[str]) -> list[Table]:
    """Return the datasets and views that a statement reads; a view comes after what it reads.

    Args:
        tables: Candidate datasets.
        wanted: Names or ids, as written.

    Raises:
        NotFound: There is no dataset of a name; the gateway, which knows all names, adds a
            suggestion.
        Corrupt: A dataset is damaged.
        SqlError: A view cannot be used any more.
    """
    found: dict[str, Table] = {}
    views: dict[str, Table] = {}
    by_name = {key: t for t in tables for key in (t.name.casefold(), t.id)}
    # Sorted, so that the same statement always reports the same name first.
    for name in sorted(wanted):
        table = by_name.get(name.casefold())
        if table is None:
            raise NotFound(kind="dataset", name=name, suggestion=None)
        read = [table] if table.view is None else _under(by_name, table)
        for each in read:
            if each.damage is not None:
                raise error_from_json(each.damage)
            # By id, as a statement may use both the name and the id of one dataset.
            (found if each.view is None else views)[each.id] = each
    return [*found.values(), *views.values()]


def _under(by_name: dict[str, Table], view: Table) -> list[Table]:
    """Return what a view reads, and the view."""
    views = views_read(by_name, view.name)
    names = {name.casefold() for each in views if each.view is not None for name in each.view.reads}
    datasets = [by_name[name] for name in sorted(names) if by_name[name].view is None]
    return [*datasets, *views]


def listed_tables(tables: list[Table]) -> list[Table]:
    """Return what a statement that reads the catalog lists: views that can be used, after the rest."""
    datasets = [table for table in tables if table.view is None and table.damage is None]
    by_name = {key: t for t in tables for key in (t.name.casefold(), t.id)}
    views: dict[str, Table] = {}
    for table in tables:
        if table.view is not None:
            with suppress(SennitError):
                found = _under(by_name, table)
                if all(each.damage is None for each in found):
                    views.update({each.id: each for each in found if each.view is not None})
    return [*datasets, *views.values()]


def repeatable(tables: list[Table]) -> bool:
    """Return whether a query over these has the same result while their snapshots are the same."""
    # A linked file is compared with its link at each use, so its results are not kept.
    return not any(
        table.link is not None or (table.view is not None and checked_view(table).volatile)
        for table in tables
    )
