"""Views: named queries, as rows of the tree `sys` beside the datasets.

A view keeps its text, not its rows. A statement that names one gets the view and the datasets under
it, with the rights of the user who runs the statement, so that a view shows nobody more than its
datasets do. Names are resolved when a statement runs: a dataset under a view may be changed, renamed
or deleted, which the next statement that reads the view reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elkyn.records import CheckedTable, write_changes
from lake.view_graph import check_view_graph
from sennit_core.clock import Clock
from sennit_core.errors import Conflict, Corrupt
from sennit_core.ids import new_id
from sennit_core.records import Record
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["NO_COLUMNS", "ViewInfo", "Views"]

NO_COLUMNS = Schema(())


@dataclass(frozen=True, slots=True)
class ViewInfo(Record):
    """A view.

    Args:
        id: Its id; each replacement has another one.
        owner: The user who created it.
        sql: The query; "" for a user who may not see it.
        schema: The columns that it had when it was created; none for such a user.
        columns: Names for its first columns, in the place of the query's.
        reads: The names of datasets and views in the query, once for each occurrence.
        created_at: Unix seconds.
        damaged: Why it cannot be used; None while it can.
    """

    id: str
    name: str
    owner: str
    sql: str
    schema: Schema
    columns: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    created_at: float = 0.0
    damaged: str | None = None


class Views:
    """The views of a lake. The catalog's lock serializes changes.

    Args:
        tree: The namespace `sys`.
        clock: Source of creation times.
    """

    def __init__(self, tree: ElkynStore, clock: Clock) -> None:
        self._tree = tree
        self._table = CheckedTable(tree, "/views", ViewInfo)
        self._clock = clock
        # By casefolded name. Replaced as a whole by each change, so that readers need no lock.
        self._views: Mapping[str, ViewInfo] = dict(self._load())

    def all(self) -> Sequence[ViewInfo]:
        """Return the views, ordered by name."""
        return sorted(self._views.values(), key=lambda view: view.name.casefold())

    def find(self, name: str) -> ViewInfo | None:
        """Return the view with a name (case-insensitive)."""
        return self._views.get(name.casefold())

    def find_all(self, words: Iterable[str]) -> Sequence[ViewInfo]:
        """Return the views whose folded name is one of the words."""
        views = self._views
        return [views[word] for word in words if word in views] if views else []

    def check_free(self, name: str) -> None:
        """Refuse a name that a view has.

        Raises:
            Conflict: A view has the name.
        """
        if (found := self.find(name)) is not None:
            raise Conflict(f"a view named {found.name!r} exists", hint="use another name")

    def under(self, view: ViewInfo) -> tuple[list[ViewInfo], set[str]]:
        """Return the views that a view reads, itself included, and the other names in them."""
        found, others = {view.name.casefold(): view}, set[str]()
        waiting = [view]
        while waiting:
            for name in waiting.pop().reads:
                folded = name.casefold()
                below = self._views.get(folded)
                if below is None:
                    others.add(name)
                elif folded not in found:
                    found[folded] = below
                    waiting.append(below)
        return list(found.values()), others

    def put(self, view: ViewInfo) -> ViewInfo:
        """Create a view, or replace the one with its name.

        Raises:
            SqlError: It would read itself, or too much.
        """
        folded = view.name.casefold()
        before = self._views.get(folded)
        view = replace(view, id=new_id(self._clock), created_at=self._clock.now())
        views = {**self._views, folded: view}
        check_view_graph(view.name, {name: each.reads for name, each in views.items()})
        # One write for both rows: a crash leaves the old view or the new one.
        changes = [self._table.change(view.id, view)]
        if before is not None:
            changes.append(self._table.change(before.id, None))
        write_changes(self._tree, *changes)
        self._views = views
        return view

    def remove(self, view: ViewInfo) -> None:
        """Remove a view."""
        self._table.remove(view.id)
        self._views = {
            name: each for name, each in self._views.items() if name != view.name.casefold()
        }

    def _load(self) -> Iterator[tuple[str, ViewInfo]]:
        for view_id in self._table.ids():
            try:
                view = self._table.get(view_id)
            except Corrupt as damage:
                # Its name is lost; under its id it can still be dropped.
                view = ViewInfo(view_id, view_id, "", "", NO_COLUMNS, damaged=str(damage))
            if view is not None:
                yield view.name.casefold(), view
