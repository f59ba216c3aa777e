"""Views: named queries, as rows of the tree `sys` beside the datasets.

A view keeps its text, not its rows. A statement that names one gets the view and the datasets under
it, with the rights of the user who runs the statement, so that a view shows no user more than its
datasets do. Names are resolved when a statement runs: a dataset under a view may be changed, renamed
or deleted, which the next statement that reads the view reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elkyn.records import Change, CheckedTable, write_changes
from lake.views.graph import check_view_graph
from sennit_core.clock import Clock
from sennit_core.errors import Conflict, Corrupt
from sennit_core.ids import new_id
from sennit_core.records import Record
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["NO_COLUMNS", "StagedViews", "ViewInfo", "Views"]

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
        view = self._new(view)
        changes, views = self.changed([view], [view.name])
        # One write for both rows: a crash leaves the old view or the new one.
        write_changes(self._tree, *changes)
        self.adopt(views)
        return view

    def remove(self, view: ViewInfo) -> None:
        """Remove a view."""
        changes, views = self.changed([], [view.name])
        write_changes(self._tree, *changes)
        self.adopt(views)

    def changed(
        self, created: Iterable[ViewInfo], removed: Iterable[str]
    ) -> tuple[list[Change], Mapping[str, ViewInfo]]:
        """Return the changes of rows that create and remove views, and the views after them.

        Args:
            created: New views, with ids.
            removed: The names of those that go or are replaced; some may not exist.

        Raises:
            SqlError: One would read itself, or too much.
        """
        folded = {name.casefold() for name in removed}
        gone = [view for name, view in self._views.items() if name in folded]
        views = {name: view for name, view in self._views.items() if name not in folded}
        created = list(created)
        views |= {view.name.casefold(): view for view in created}
        for view in created:
            check_view_graph(view.name, {name: each.reads for name, each in views.items()})
        return [
            *(self._table.change(view.id, view) for view in created),
            *(self._table.change(view.id, None) for view in gone),
        ], views

    def adopt(self, views: Mapping[str, ViewInfo]) -> None:
        """Show views whose rows were written."""
        self._views = views

    def _new(self, view: ViewInfo) -> ViewInfo:
        return replace(view, id=new_id(self._clock), created_at=self._clock.now())

    def _load(self) -> Iterator[tuple[str, ViewInfo]]:
        for view_id in self._table.ids():
            try:
                view = self._table.get(view_id)
            except Corrupt as damage:
                # Its name is lost; under its id it can still be dropped.
                view = ViewInfo(view_id, view_id, "", "", NO_COLUMNS, damaged=str(damage))
            if view is not None:
                yield view.name.casefold(), view


class StagedViews(Views):
    """The views that a transaction sees: those of its begin, with its own changes.

    Args:
        views: Those of the lake.
    """

    def __init__(self, views: Views) -> None:
        self.__dict__.update(vars(views))
        self._base = views
        self._start = self._views

    def put(self, view: ViewInfo) -> ViewInfo:
        """As `Views.put`, for the transaction."""
        view = self._new(view)
        self.adopt(self.changed([view], [view.name])[1])
        return view

    def remove(self, view: ViewInfo) -> None:
        """As `Views.remove`, for the transaction."""
        self.adopt(self.changed([], [view.name])[1])

    def to_commit(
        self, check_free: Callable[[str], object]
    ) -> tuple[list[Change], Mapping[str, ViewInfo]]:
        """Return the changes of the lake's rows, and its views after them; nothing is written.

        Args:
            check_free: Refuses a name that a dataset or view has.

        Raises:
            Conflict: Another change of one of the views came first, or a name is in use.
        """
        before, after = self._start, self._views
        names = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
        for name in names:
            if self._base.find(name) != before.get(name):
                raise Conflict(
                    f"view {name!r} was changed in the meantime", hint="run the transaction again"
                )
            if name not in before:
                check_free(name)
        return self._base.changed([after[name] for name in names if name in after], names)
