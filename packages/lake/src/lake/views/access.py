"""Views in statements: which ones a user may read, and the commit of one that a statement makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lake.statements.limits import Requester
from lake.views.views import NO_COLUMNS, ViewInfo
from sennit_core.errors import Conflict, NotFound
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from lake.access.policies import Policies
    from lake.catalog.catalog import Catalog

__all__ = ["commit_view", "view_tables", "views_shown"]


def view_tables(
    catalog: Catalog, policies: Policies, requester: Requester, views: Iterable[ViewInfo]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return views in the form of executor requests, and the ids of the datasets under them.

    Args:
        catalog: Knows views and datasets.
        policies: Say what the user may read.
        requester: The user. A view over a dataset that the user may not read is left out.
        views: Those that the statement names.
    """
    tables: dict[str, dict[str, Any]] = {}
    datasets: dict[str, None] = {}
    for view in views:
        found, names = catalog.views.under(view)
        ids = [id_ for name in sorted(names) if (id_ := catalog.find_id(name)) is not None]
        access = [policies.access(each, requester) for each in ids]
        if all(each.read for each in access):
            datasets.update(dict.fromkeys(ids))
            for each in found:
                restricted = any(one.is_restricted for one in access)
                tables.setdefault(each.id, _view_table(each, requester, restricted))
    return list(tables.values()), list(datasets)


def _view_table(view: ViewInfo, requester: Requester, restricted: bool) -> dict[str, Any]:
    owned = _owns(view, requester)
    return {
        "name": view.name,
        "id": view.id,
        "schema": NO_COLUMNS.to_json(),
        "paths": None,
        "writable": owned,
        "view": {
            "sql": view.sql,
            "columns": view.columns,
            "reads": view.reads,
            "shown": owned or not restricted,
            "damaged": view.damaged,
        },
    }


def views_shown(catalog: Catalog, policies: Policies, requester: Requester) -> list[ViewInfo]:
    """Return the views that a user may use, ordered by name.

    Text and columns are left out if a policy shows the user only a part of a dataset under the view:
    they may name what the policy hides.
    """
    shown = []
    for view in catalog.views.all():
        tables, _ = view_tables(catalog, policies, requester, [view])
        if tables:
            whole = tables[0]["view"]["shown"]
            shown.append(view if whole else replace(view, sql="", schema=NO_COLUMNS, reads=()))
    return shown


def _owns(view: ViewInfo, requester: Requester) -> bool:
    return requester.is_trusted or view.owner == requester.name


def commit_view(catalog: Catalog, answer: dict[str, Any], author: str) -> None:
    """Create, replace or drop a view, as an executor has checked it (`lake.sql.view_worker`).

    Raises:
        Conflict: The name belongs to another dataset or view than when the statement was checked.
        SqlError: The view would read itself, or too much.
    """
    name = answer["table"]
    with catalog.writing():
        existing = catalog.views.find(name)
        if (None if existing is None else existing.id) != answer["base"]:
            raise Conflict(f"view {name!r} was changed in the meantime", hint="run it again")
        if answer["action"] == "drop view":
            if existing is None:
                raise NotFound("view", name)
            catalog.views.remove(existing)
            return
        if existing is None:
            catalog.check_free(name)
        owner = author if existing is None else existing.owner
        schema = Schema.from_json(answer["schema"])
        columns, reads = tuple(answer["names"]), tuple(answer["reads"])
        catalog.views.put(ViewInfo("", name, owner, answer["query"], schema, columns, reads))
