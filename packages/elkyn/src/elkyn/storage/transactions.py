"""Transactions: the durable tree with the ephemeral overlay on top, for reading and writing.

The overlay consists of ephemeral values, each at a path. The visible value is the durable value with
every ephemeral value set at its path. Both kinds of write change the visible value in the same way;
they differ in what a crash can lose:

- an ephemeral write changes only ephemeral values;
- a durable write removes the ephemeral values at and below its path, and makes one above it durable
  ("promotes" it), so a write that touches both environments only ever removes ephemeral values.

No ephemeral value is below a scalar of the durable tree: it is put at the scalar's path instead. A
durable map with a priority is visible: an ephemeral delete of its last visible child hides the map, a
durable one deletes it. When the last durable child is deleted but an ephemeral value keeps the map
visible, that value is made durable, and the priority stays.
"""

from __future__ import annotations

from elkyn.storage import indexes
from elkyn.storage.ephemeral import EphemeralOverlay
from elkyn.storage.log_rows import Entry
from elkyn.storage.receipts import IdempotencyKey
from elkyn.storage.row_tree import Tree
from elkyn.tree.paths import PRIORITY, ROOT, Path, sorted_map
from elkyn.tree.query import Query
from elkyn.tree.reader import MAP, peek_of
from elkyn.tree.values import Stored, get_at, keys_of, set_at, set_many

__all__ = ["ReadTransaction", "WriteTransaction"]


class ReadTransaction:
    """The visible tree, for reading.

    Args:
        tree: the durable tree in a transaction.
        ephemeral: the ephemeral overlay in a transaction, None when it is empty.
    """

    __slots__ = ("ephemeral", "tree")

    def __init__(self, tree: Tree, ephemeral: EphemeralOverlay | None) -> None:
        self.tree = tree
        self.ephemeral = ephemeral

    def select(self, query: Query, path: Path) -> dict[str, Stored] | None:
        """Return what `query` selects from the children of `path`; None: select from all of them."""
        return indexes.select(query, self, path)

    def get(self, path: Path) -> Stored:
        """Return the stored form of the visible value at `path`."""
        if self.ephemeral is None:
            return self.tree.get(path)
        cover = self.ephemeral.covering(path)
        if cover is not None:
            return get_at(cover[1], path[len(cover[0]) :])
        value = self.tree.get(path)
        below = [(place[len(path) :], own) for place, own in self.ephemeral.below(path)]
        return set_many(value, below) if below else value

    def keys(self, path: Path) -> list[str] | None:
        """Return the keys of the visible children of `path` in order; None when it is no map."""
        if self.ephemeral is None:
            return self.tree.keys(path)
        if self.ephemeral.covering(path) is not None:
            return keys_of(self.get(path))
        below = {place[len(path)] for place, _value in self.ephemeral.below(path)}
        keys = self.tree.keys(path) or []
        kept = [key for key in keys if key not in below]
        shown = [key for key in below if self.get((*path, key)) is not None]
        return list(sorted_map(dict.fromkeys([*kept, *shown], True))) or None

    def peek(self, path: Path) -> Stored:
        """Return the scalar at `path`, `MAP` for one with children (unread), None for nothing."""
        if self.ephemeral is None:
            return self.tree.peek(path)
        cover = self.ephemeral.covering(path)
        if cover is not None:
            return peek_of(get_at(cover[1], path[len(cover[0]) :]))
        below = list(self.ephemeral.below(path))
        if not below:
            return self.tree.peek(path)
        if any(value is not None for _place, value in below):
            return MAP
        return MAP if self.keys(path) else peek_of(self.get(path))

    @property
    def position(self) -> int:
        """The position of the last durable write that is in this state."""
        return self.tree.log.last()


class WriteTransaction(ReadTransaction):
    """The visible tree inside the write transaction; reads see its own writes.

    `removed` collects the ephemeral values that durable writes removed, `placed` the changes that the
    current write made to the durable tree.

    Args:
        tree: the durable tree in a transaction.
        ephemeral: the ephemeral overlay in a transaction, None when it is empty.
        position: the position of the last write before this transaction.
        term: the leader term for new entries of the log.
    """

    __slots__ = (
        "_orphaned",
        "_position",
        "_promoted",
        "_term",
        "ephemeral_changed",
        "logged_bytes",
        "placed",
        "removed",
    )

    def __init__(
        self, tree: Tree, ephemeral: EphemeralOverlay | None, position: int = 0, term: int = 1
    ) -> None:
        super().__init__(tree, ephemeral)
        self._position = position
        self._term = term
        self.logged_bytes = 0
        # What the log entry of the current write will say. `log` empties it.
        self.placed: list[tuple[Path, Stored]] = []
        self._promoted: list[int] = []  # indexes in `placed` of promoted ephemeral values
        # To put back if the durable commit fails after the commit of the ephemeral rows
        # (`Disk._restore`).
        self.removed: list[tuple[Path, Stored]] = []
        # True iff the ephemeral transaction has anything to commit.
        self.ephemeral_changed = False
        self._orphaned: dict[
            Path, Stored
        ] = {}  # priorities of maps that only ephemeral values keep visible

    @property
    def position(self) -> int:
        """The position of the last durable write so far."""
        return self._position

    def log(
        self, kind: str, base: Path, time_ms: int, idempotency_key: IdempotencyKey | None = None
    ) -> int:
        """Append the puts since the last call to the log, as one write; returns its position."""
        if self._orphaned:
            self._settle_priorities()
        placed, self.placed, self._promoted = self.placed, [], []
        return self._append(kind, base, time_ms, placed, idempotency_key)

    def log_as(self, entry: Entry) -> int:
        """Append the puts since the last call to the log as the next `entry` of another log."""
        assert entry.position == self._position + 1
        self.placed, self._promoted = [], []
        if entry.kind == "settings":
            for (name,), text in entry.places:
                self.tree.put_setting(name, text.encode())
        self._position = entry.position
        self.logged_bytes += self.tree.log.append(entry)
        return self._position

    def log_setting(self, name: str, text: str, time_ms: int) -> int:
        """Store a setting and log the change; returns its position."""
        self.tree.put_setting(name, text.encode())
        return self._append("settings", ROOT, time_ms, [((name,), text)])

    def _append(
        self,
        kind: str,
        base: Path,
        time_ms: int,
        places: list[tuple[Path, Stored]],
        idempotency_key: IdempotencyKey | None = None,
    ) -> int:
        self._position += 1
        entry = Entry(self._position, self._term, time_ms, kind, base, places, idempotency_key)
        self.logged_bytes += self.tree.log.append(entry)
        return self._position

    def put(self, path: Path, value: Stored, *, ephemeral: bool) -> None:
        """Make `value` visible at `path`; None deletes."""
        if ephemeral:
            self._put_ephemeral(path, value)
        else:
            self._put_durable(path, value)

    def _put_durable(self, path: Path, value: Stored) -> None:
        if self.ephemeral is not None:
            cover = self.ephemeral.covering(path)
            if cover is None:
                self._remove(list(self.ephemeral.below(path)))
            else:
                # An ephemeral value at or above the path covers what is written: it becomes durable
                # as a whole, with the new value inside it. Merging only the new value into the
                # ephemeral one was rejected: a crash could show half of a durable update.
                self._remove([cover])
                place, whole = cover
                path, value = place, set_at(whole, path[len(place) :], value)
                self._promoted.append(len(self.placed))
            if path and (value is None or path[-1] == PRIORITY):
                self._note_priorities(path, value)
        self.tree.set(path, value)
        self._note(path, value)

    def _note_priorities(self, path: Path, value: Stored) -> None:
        """Remember the priorities of maps that a write may leave without durable children."""
        if path[-1] == PRIORITY:
            if path[:-1] in self._orphaned or value is not None:
                self._orphaned[path[:-1]] = value
            return
        for depth in range(len(path)):
            above = path[:depth]
            priority = self.tree.peek((*above, PRIORITY))
            if priority is not None:
                self._orphaned.setdefault(above, priority)

    def _settle_priorities(self) -> None:
        """Reconcile the visible and the durable state of maps with priorities."""
        orphaned, self._orphaned = self._orphaned, {}
        for place, priority in orphaned.items():
            if self.peek(place) is None:
                if self.tree.peek(place) is not None:
                    self._delete_hidden_map(place)
            elif priority is not None and self.tree.peek((*place, PRIORITY)) != priority:
                self._keep_priority(place, priority)

    def _delete_hidden_map(self, place: Path) -> None:
        """Delete a durable map whose children are all hidden."""
        assert self.ephemeral is not None
        self._remove(list(self.ephemeral.below(place)))
        self.tree.set(place, None)
        self.placed = [kept for kept in self.placed if kept[0][: len(place)] != place]
        self.placed.append((place, None))

    def _keep_priority(self, place: Path, priority: Stored) -> None:
        assert self.ephemeral is not None
        if self.tree.peek(place) is None:
            live = (found for found in self.ephemeral.below(place) if found[1] is not None)
            promoted = next(live, None)
            if promoted is None:
                return
            self._remove([promoted])
            self.tree.set(*promoted)
            self.placed.append(promoted)
        self.tree.set((*place, PRIORITY), priority)
        self.placed.append(((*place, PRIORITY), priority))

    def _note(self, path: Path, value: Stored) -> None:
        """Record a change of the durable tree; a change below a promoted value is merged into it."""
        for index in self._promoted:
            place, whole = self.placed[index] if index < len(self.placed) else (path, None)
            if place != path and path[: len(place)] == place:
                self.placed[index] = (place, set_at(whole, path[len(place) :], value))
                return
        self.placed.append((path, value))

    def _remove(self, found: list[tuple[Path, Stored]]) -> None:
        assert self.ephemeral is not None
        for place, _value in found:
            self.ephemeral.remove(place)
        self.removed += found
        self.ephemeral_changed = self.ephemeral_changed or bool(found)

    def _put_ephemeral(self, path: Path, value: Stored) -> None:
        assert self.ephemeral is not None
        if (
            path and path[-1] == PRIORITY
        ):  # an ephemeral row holds a complete value: write all of it
            path, value = path[:-1], set_at(self.get(path[:-1]), path[-1:], value)
        self.ephemeral_changed = True
        cover = self.ephemeral.covering(path)
        if cover is None:
            for place, _value in list(self.ephemeral.below(path)):
                self.ephemeral.remove(place)
            # No ephemeral value is below a durable scalar: it is put at the scalar's path, with
            # this value in it.
            depth = self.tree.scalar_above(path)
            if depth is None:
                place = path
            elif value is None:
                return
            else:
                place = path[:depth]
                value = set_at(self.tree.get(place), path[depth:], value)
        else:
            place, whole = cover
            value = set_at(whole, path[len(place) :], value)
        # Nothing durable is left to hide.
        if value is None and self.tree.get(place) is None:
            self.ephemeral.remove(place)
        else:
            self.ephemeral.put(place, value)
        if value is None:
            self._hide_empty(place)

    def _hide_empty(self, place: Path) -> None:
        """Hide a durable map with a priority as a whole once its last visible child is hidden."""
        assert self.ephemeral is not None
        for depth in range(len(place)):
            above = place[:depth]
            if self.tree.peek((*above, PRIORITY)) is not None and self.peek(above) is None:
                for hidden, _value in list(self.ephemeral.below(above)):
                    self.ephemeral.remove(hidden)
                self.ephemeral.put(above, None)
                return
