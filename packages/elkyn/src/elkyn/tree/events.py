"""Events: the changes that a write makes, as subscribers of a path see them.

A subscription receives Firebase's two events. `put` replaces the value at a path relative to the
watched one; `patch` replaces several children at once. `replay` applies either to a value: the first
event (`put "/"` of the current value) and all later ones always add up to what `get` returns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from elkyn.tree.paths import Path, format_path, parse_path, sorted_map
from elkyn.tree.values import VALUE, Stored, get_at, keys_of, prepare, present, same, weigh, with_at

__all__ = ["Change", "Changes", "Event", "Listener", "Watchers", "applied", "replay"]

Changes: TypeAlias = tuple[tuple[Path, Stored], ...]

_UNSET: Any = object()


class Event:
    """One change as a subscriber sees it. Subscribers share events: treat them as immutable.

    Args:
        kind: `put` or `patch`; read it as `type`.
        path: the changed path, relative to the watched one; `/` is the watched path itself.
        data: the new value (None: deleted), for `patch` a dict of relative paths and values;
            computed from `changes` when left out.
        position: the position of the commit that made the change; for an ephemeral write, of the
            durable write before it.
        time_ms: the time of the durable write, in milliseconds since 1970; 0 for other events.
        changes: the change in the stored form: paths relative to the watched one, and values.

    Attributes:
        encoded: unused by the store; a server caches the encoded event here for all listeners.
    """

    __slots__ = (
        "_changes",
        "_data",
        "_weight_bytes",
        "encoded",
        "path",
        "position",
        "time_ms",
        "type",
    )

    def __init__(
        self,
        kind: Literal["put", "patch"],
        path: str,
        data: Any = _UNSET,
        position: int = 0,
        *,
        time_ms: int = 0,
        changes: Changes | None = None,
    ) -> None:
        self.type = kind
        self.path = path
        self.position = position
        self.time_ms = time_ms
        self.encoded: bytes | None = None
        # Computed from `changes` on first use, where it was not passed.
        self._data = data
        self._changes = changes
        self._weight_bytes = 0

    @property
    def data(self) -> Any:
        """The new value as a reader sees it."""
        if self._data is _UNSET:
            self._data = self._shown(export=False)
        return self._data

    @property
    def exported(self) -> Any:
        """The new value with its priorities, as `.priority` and `.value`."""
        return self._shown(export=True)

    def _shown(self, *, export: bool) -> Any:
        if self.type == "put":
            return present(self.changes[0][1], export)
        above = len(parse_path(self.path))
        return {"/".join(path[above:]): present(value, export) for path, value in self.changes}

    @property
    def changes(self) -> Changes:
        """The changed paths, relative to the watched one, and their new values in the stored form."""
        if self._changes is None:
            base = parse_path(self.path)
            values = {"": self._data} if self.type == "put" else self._data
            self._changes = tuple(
                ((*base, *parse_path(relative)), prepare(value).value)
                for relative, value in values.items()
            )
        return self._changes

    @property
    def weight_bytes(self) -> int:
        """An estimate of the event's memory, in bytes."""
        if not self._weight_bytes:
            self._weight_bytes = 200 + sum(60 + weigh(value) for _path, value in self.changes)
        return self._weight_bytes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return (self.type, self.path, self.data) == (other.type, other.path, other.data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Event({self.type!r}, {self.path!r}, {self.data!r}, position={self.position})"


def replay(value: Stored, event: Event) -> Stored:
    """Apply `event` to the stored form of a watched value; use `present` to export the result."""
    return applied(value, event.changes)


def applied(value: Stored, changes: Sequence[tuple[Path, Stored]]) -> Stored:
    """Return `value` with several paths changed, none an ancestor of another; copies maps once."""
    left = list(changes)
    # Few changes, or no map to share: one path after the other. Otherwise the changes are grouped
    # by child, so that each map is copied once and not once for each change in it.
    while left and (len(left) < 3 or type(value) is not dict or VALUE in value):
        value = with_at(value, *left.pop())
    if not left:
        return value
    inside: dict[str, list[tuple[Path, Stored]]] = {}
    for path, new in left:
        inside.setdefault(path[0], []).append((path[1:], new))
    changed = dict(value)
    for key, below in inside.items():
        child = applied(changed.get(key), below)
        if child is None:
            changed.pop(key, None)
        else:
            changed[key] = child
    return sorted_map(changed) if keys_of(changed) else None


class Change(NamedTuple):
    """One written path with the visible values before and after."""

    path: Path
    old: Stored
    new: Stored


class Listener(Protocol):
    """Receives events; must not block and must not raise."""

    def deliver(self, event: Event) -> None:
        """Accept `event`; called in commit order."""
        ...


class _Node:
    __slots__ = ("children", "listeners")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.listeners: tuple[Listener, ...] = ()


class Watchers:
    """The listeners by watched path: a prefix tree, separate from the data. Thread-safe."""

    def __init__(self) -> None:
        self._root = _Node()
        # Held while events are computed; listeners are notified without it.
        self._lock = threading.Lock()

    def add(self, path: Path, listener: Listener) -> None:
        """Send changes of `path` to `listener` from now on."""
        with self._lock:
            node = self._root
            for key in path:
                node = node.children.setdefault(key, _Node())
            # A new tuple: the events of a commit refer to the listeners at the time of the commit.
            node.listeners = (*node.listeners, listener)

    def remove(self, path: Path, listener: Listener) -> None:
        """Stop sending to `listener`; an unknown listener is ignored."""
        with self._lock:
            trail = [self._root]
            for key in path:
                child = trail[-1].children.get(key)
                if child is None:
                    return
                trail.append(child)
            kept = tuple(known for known in trail[-1].listeners if known is not listener)
            trail[-1].listeners = kept
            for depth in range(len(path), 0, -1):
                if trail[depth].listeners or trail[depth].children:
                    return
                del trail[depth - 1].children[path[depth - 1]]

    def concerned(self, path: Path) -> bool:
        """Whether a listener watches `path`, an ancestor of it, or a path below it."""
        with self._lock:
            node = self._root
            for key in path:
                # Decides whether the writer reads the old value at all, so it must never miss a
                # listener; a listener above, at or below the path counts.
                if node.listeners:
                    return True
                child = node.children.get(key)
                if child is None:
                    return False
                node = child
            return bool(node.listeners or node.children)

    def all(self) -> list[tuple[Path, tuple[Listener, ...]]]:
        """Return every watched path with its listeners."""
        with self._lock:
            root = self._root
            top = [((), root.listeners)] if root.listeners else []
            return [*top, *_below((), root)]

    def events(
        self,
        base: Path,
        changes: Iterable[Change],
        *,
        patch: bool,
        position: int = 0,
        time_ms: int = 0,
    ) -> list[tuple[tuple[Listener, ...], Event]]:
        """Compute the event of each listener for one write; unchanged values are left out.

        Args:
            base: the path of the write.
            changes: the written paths at or below it, none an ancestor of another.
            patch: whether the write was an update of several children.
            position: the position of the write in the log.
            time_ms: the time of the write; 0 for a write that is not in the log.
        """
        # A write of an equal value is no change: no listener hears of it.
        real = [change for change in changes if not same(change.old, change.new)]
        found: list[tuple[tuple[Listener, ...], Event]] = []
        with self._lock:
            for path, listeners in self._touched(real):
                event = _event_at(path, base, real, patch=patch)
                if event is not None:
                    event.position, event.time_ms = position, time_ms
                    found.append((listeners, event))
        return found

    def _touched(self, changes: list[Change]) -> Iterator[tuple[Path, tuple[Listener, ...]]]:
        seen: set[Path] = set()
        for change in changes:
            node: _Node | None = self._root
            for depth in range(len(change.path) + 1):
                if node is None:
                    break
                place = change.path[:depth]
                if node.listeners and place not in seen:
                    seen.add(place)
                    yield place, node.listeners
                if depth < len(change.path):
                    node = node.children.get(change.path[depth])
            if node is not None:
                yield from _below(change.path, node)


def _below(path: Path, node: _Node) -> Iterator[tuple[Path, tuple[Listener, ...]]]:
    for key, child in node.children.items():
        if child.listeners:
            yield (*path, key), child.listeners
        yield from _below((*path, key), child)


def _event_at(path: Path, base: Path, changes: list[Change], *, patch: bool) -> Event | None:
    depth = len(path)
    inside: list[tuple[Path, Stored]] = []
    for change in changes:
        # The write replaced the watched path or an ancestor of it: the listener gets its whole new
        # value.
        if path[: len(change.path)] == change.path:
            rest = path[len(change.path) :]
            old, new = get_at(change.old, rest), get_at(change.new, rest)
            return None if same(old, new) else Event("put", "/", changes=(((), new),))
        if change.path[:depth] == path:
            inside.append((change.path[depth:], change.new))
    if patch and base[:depth] == path:
        return Event("patch", format_path(base[depth:]), changes=tuple(inside))
    if len(inside) == 1:
        return Event("put", format_path(inside[0][0]), changes=tuple(inside))
    return Event("patch", "/", changes=tuple(inside))
