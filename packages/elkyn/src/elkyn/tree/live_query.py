"""Live queries: the result (window) of a query, maintained from the events of its path.

A window holds only the children that the query selects. Most events suffice to update it without
reading. When a child leaves a full window, or a child outside may enter of which the write contains
only parts, `apply` returns None: the caller then reads a fresh state, at a known place in the order
of commits, and passes it to `replace`, which computes the difference.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from elkyn.tree.events import Changes, Event, applied
from elkyn.tree.ordering import MAP, Position, children_of, rank
from elkyn.tree.paths import PRIORITY, Path, format_path, order_key, sorted_map
from elkyn.tree.query import Query
from elkyn.tree.values import Stored, get_at, is_leaf, present, same, with_at

__all__ = [
    "CHILD_EVENTS",
    "EVENTS",
    "ChildEvents",
    "EventName",
    "LiveQuery",
    "ViewEvent",
    "WindowEvents",
]

EventName: TypeAlias = Literal[
    "child_removed", "child_added", "child_moved", "child_changed", "value"
]
CHILD_EVENTS: tuple[EventName, ...] = (
    "child_removed",
    "child_added",
    "child_moved",
    "child_changed",
)
EVENTS: tuple[EventName, ...] = (*CHILD_EVENTS, "value")
"""In the order in which one write raises them, as in the client SDKs."""


class ViewEvent(NamedTuple):
    """One event of a window.

    Args:
        type: which of `EVENTS`.
        key: the child's key; None for `value`.
        value: the child's value, for `child_removed` its last one; for `value` the whole window.
        previous_key: the key of the child before it; None for the first child, `value` and
            `child_removed`.
        position: the position of the commit that made the change.
    """

    type: EventName
    key: str | None
    value: Any
    previous_key: str | None
    position: int


class Before(NamedTuple):
    """A child of a window before a step; None when it was not in the window."""

    value: Stored
    place: Position | None


@dataclass(slots=True)
class Step:
    """The effect of one event on a window: changed children, and whether its scalar changed."""

    before: dict[str, Before] = field(default_factory=dict)
    leaf: bool = False

    def __bool__(self) -> bool:
        return self.leaf or bool(self.before)


class LiveQuery:
    """The window of `query`, maintained from events; see the module docstring."""

    def __init__(self, query: Query) -> None:
        self.query = query
        # The window's children by key; `_places` and `_order` have exactly the same keys.
        self.children: dict[str, Stored] = {}
        # The scalar at the path, where the query loads everything; None while the path is a map.
        self.leaf: Stored = None
        self._places: dict[str, Position] = {}
        # (position, key), sorted: previous keys and the edge of a full window by bisection.
        self._order: list[tuple[Position, str]] = []

    @property
    def stored(self) -> Stored:
        """The window as a stored form, in the order of keys."""
        return sorted_map(dict(self.children)) if self.children else self.leaf

    def result(self) -> Any:
        """Return the window as a reader sees it, children in the order of the query."""
        if not self.children or self.query.is_default:
            return present(self.stored)
        return {key: present(self.children[key]) for _place, key in self._order}

    def place(self, key: str) -> Position:
        """Return the sort position of the child `key` of the window."""
        return self._places[key]

    def previous_key(self, key: str) -> str | None:
        """Return the key of the child before `key`."""
        index = bisect_left(self._order, (self._places[key], key))
        return self._order[index - 1][1] if index else None

    def replace(self, value: Stored) -> Step:
        """Replace the window by that of `value`, the path's current value (or only its window)."""
        fresh = self.query.select(children_of(value))
        step = Step()
        leaf = value if self.query.loads_all and is_leaf(value) else None
        step.leaf = not same(self.leaf, leaf)
        self.leaf = leaf
        for key, child in self.children.items():
            if not same(child, fresh.get(key)):
                step.before[key] = Before(child, self._places[key])
        for key in fresh.keys() - self.children.keys():
            step.before[key] = Before(None, None)
        self.children = fresh
        self._order = sorted((self.query.index.position(k, c), k) for k, c in fresh.items())
        self._places = {key: place for place, key in self._order}
        return step

    def apply(self, event: Event) -> Step | None:
        """Apply `event`; None, with the window unchanged, when a fresh state must be read."""
        if not event.changes[0][0]:
            return self.replace(event.changes[0][1])
        written: dict[str, list[tuple[Path, Stored]]] = {}
        for path, value in event.changes:
            written.setdefault(path[0], []).append((path[1:], value))
        priority = written.pop(PRIORITY, None)
        leaf = self._leaf_after(priority, bool(written))
        # Of the window before the event: a child beyond it was outside, and what else is outside is
        # unknown.
        edge = self._edge()
        after: dict[str, tuple[Stored, Position | None]] = {}
        for key, changes in written.items():
            found = self._child_after(key, changes, edge)
            if found is None:
                return None
            after[key] = found
        return self._commit(after, leaf)

    def _leaf_after(self, priority: list[tuple[Path, Stored]] | None, written: bool) -> Stored:
        if self.leaf is None or written:
            return None
        return with_at(self.leaf, (PRIORITY,), priority[0][1]) if priority else self.leaf

    def _edge(self) -> Position | None:
        """Return the last position of a full window; None when no child can be beyond it."""
        limit = self.query.limit
        if limit is None or len(self._order) < limit:
            return None
        return self._order[0 if self.query.from_end else -1][0]

    def _inside(self, place: Position, edge: Position | None) -> bool:
        if not self.query.matches(place):
            return False
        return edge is None or (place >= edge if self.query.from_end else place <= edge)

    def _child_after(
        self, key: str, changes: list[tuple[Path, Stored]], edge: Position | None
    ) -> tuple[Stored, Position | None] | None:
        """Return a written child and its position (None: outside the window); None when unknown."""
        index = self.query.index
        member = key in self.children
        child = applied(self.children.get(key), changes)
        place = None if child is None else index.position(key, child)
        inside = place is not None and self._inside(place, edge)
        # A member's whole value is known, so its new position is too. If it leaves a full window,
        # the child that follows is not known.
        if member:
            return (child, place) if inside else self._leaving(edge)
        # The child outside is known if all of it was written, or if nothing but its key decides.
        # Else the written parts alone may settle that it stays outside, and then nothing is read.
        known = not changes[0][0] or self.query.loads_all or index.kind == "key"
        if known or not (inside or self._may_enter(key, changes, edge)):
            return (child, place) if inside else (None, None)
        return None

    @staticmethod
    def _leaving(edge: Position | None) -> tuple[Stored, Position | None] | None:
        return (None, None) if edge is None else None

    def _may_enter(
        self, key: str, changes: list[tuple[Path, Stored]], edge: Position | None
    ) -> bool:
        """Whether a child outside the window may be inside after a write of parts of it."""
        ranks = _ranks_after(self.query, changes)
        return any(self._inside((*found, order_key(key)), edge) for found in ranks)

    def _commit(self, after: dict[str, tuple[Stored, Position | None]], leaf: Stored) -> Step:
        step = Step(leaf=not same(self.leaf, leaf))
        self.leaf = leaf
        for key, (child, place) in after.items():
            self._touch(step, key)
            self._drop(key)
            if place is not None:
                self.children[key] = child
                self._places[key] = place
                insort(self._order, (place, key))
        limit = self.query.limit
        while limit is not None and len(self._order) > limit:
            beyond = self._order[0 if self.query.from_end else -1][1]
            self._touch(step, beyond)
            self._drop(beyond)
        # Children that were written with their old value, or that entered and left within this
        # event.
        for key in [k for k, old in step.before.items() if same(old.value, self.children.get(k))]:
            del step.before[key]
        return step

    def _touch(self, step: Step, key: str) -> None:
        if key not in step.before:
            step.before[key] = Before(self.children.get(key), self._places.get(key))

    def _drop(self, key: str) -> None:
        place = self._places.pop(key, None)
        if place is not None:
            del self.children[key]
            del self._order[bisect_left(self._order, (place, key))]


def _ranks_after(query: Query, changes: list[tuple[Path, Stored]]) -> Iterator[tuple[int, Any]]:
    """Yield possible sort ranks of a child of which `changes` were written, other parts unknown."""
    index = query.index
    if index.kind == "value":
        yield (MAP, 0)
    path = (PRIORITY,) if index.kind == "priority" else index.path
    for inner, value in changes:
        if path[: len(inner)] == inner:
            yield rank(get_at(value, path[len(inner) :]))
        # Something below the value that decides was written: it is a map now, or nothing is left of
        # it.
        elif path and inner[: len(path)] == path:
            yield (MAP, 0)
            yield rank(None)


class ChildEvents:
    """Translates the events of a path into child events of a window on it.

    Args:
        query: defines the window.
        wanted: the `EVENTS` to yield.
    """

    def __init__(self, query: Query, wanted: Iterable[EventName]) -> None:
        self._view = LiveQuery(query)
        self._wanted = frozenset(wanted)
        self._started = False

    def apply(self, event: Event) -> list[ViewEvent] | None:
        """Return the window's events for `event`; None when `resync` must follow."""
        step = self._view.apply(event)
        return None if step is None else self._events_of(step, event.position)

    def resync(self, event: Event) -> list[ViewEvent]:
        """Return the events that lead to the value that `event` puts."""
        return self._events_of(self._view.replace(event.changes[0][1]), event.position)

    def _events_of(self, step: Step, position: int) -> list[ViewEvent]:
        found: list[ViewEvent] = []
        for name in CHILD_EVENTS:
            if name in self._wanted:
                found += self._children(name, step, position)
        if "value" in self._wanted and (step or not self._started):
            found.append(ViewEvent("value", None, self._view.result(), None, position))
        self._started = True
        return found

    def _children(self, name: EventName, step: Step, position: int) -> Iterator[ViewEvent]:
        view = self._view
        if name == "child_removed":
            gone = [(old.place, k) for k, old in step.before.items() if k not in view.children]
            for _place, key in sorted(gone):
                yield ViewEvent(name, key, present(step.before[key].value), None, position)
            return
        keys = [key for key, old in step.before.items() if self._concerns(name, key, old)]
        for key in sorted(keys, key=view.place):
            value, previous = present(view.children[key]), view.previous_key(key)
            yield ViewEvent(name, key, value, previous, position)

    def _concerns(self, name: EventName, key: str, old: Before) -> bool:
        if key not in self._view.children:
            return False
        if old.place is None or name == "child_added":
            return old.place is None and name == "child_added"
        if name == "child_changed" or self._view.query.index.kind == "value":
            return True  # ordered by value every change is also a move, as in the SDKs
        return old.place != self._view.place(key)


class WindowEvents:
    """Translates the events of a path into `put` and `patch` of a window on it.

    The first event is a `put "/"`; applying the later ones to it yields the window at each commit.
    """

    def __init__(self, query: Query) -> None:
        self._view = LiveQuery(query)
        self._started = False

    def apply(self, event: Event) -> list[Event] | None:
        """Return the window's events for `event`; None when `resync` must follow."""
        step = self._view.apply(event)
        if step is None:
            return None
        if event.changes[0][0]:
            return self._parts(step, event.changes, event.position)
        return [self._whole(event.position)] if step or not self._started else []

    def resync(self, event: Event) -> list[Event]:
        """Return the events that lead to the value that `event` puts."""
        step = self._view.replace(event.changes[0][1])
        if not self._started:
            return [self._whole(event.position)]
        return self._parts(step, (), event.position)

    def _whole(self, position: int) -> Event:
        self._started = True
        return Event("put", "/", position=position, changes=(((), self._view.stored),))

    def _parts(self, step: Step, written: Changes, position: int) -> list[Event]:
        found: list[tuple[Path, Stored]] = []
        for key, old in step.before.items():
            new = self._view.children.get(key)
            if old.value is None or new is None or not written:
                found.append(((key,), new))
            else:
                found += [(path, value) for path, value in written if path[0] == key]
        if not found:
            return []
        if len(found) == 1:
            path = format_path(found[0][0])
            return [Event("put", path, position=position, changes=tuple(found))]
        return [Event("patch", "/", position=position, changes=tuple(found))]
