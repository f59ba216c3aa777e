"""Events: what a write means to those who watch a path.

A watched path sees Firebase's two events. `put` replaces what is at a path relative to the watched
one; `patch` replaces several children at once. `replay` applies either to a value, so the first
event (`put "/"` of the current value) and all that follow always add up to what `get` returns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

from elkyn.paths import Path, format_path, parse_path
from elkyn.values import Stored, get_at, prepare, present, same, set_at, weigh

__all__ = ["Change", "Event", "Listener", "Watchers", "replay"]


@dataclass(frozen=True)
class Event:
    """One change as a watcher sees it; shared between watchers, so do not change `data`.

    Args:
        type: `put` or `patch`.
        path: where, relative to the watched path; `/` is the watched path itself.
        data: the new value (None: deleted), for `patch` a dict of relative paths and values.
    """

    type: Literal["put", "patch"]
    path: str
    data: Any

    @cached_property
    def weight_bytes(self) -> int:
        """An estimate of the memory the event takes."""
        return 200 + weigh(self.data)


def replay(value: Stored, event: Event) -> Stored:
    """Apply `event` to the stored form of a watched value; `present` shows the result."""
    base = parse_path(event.path)
    if event.type == "put":
        return set_at(value, base, prepare(event.data).value)
    for relative, child in event.data.items():
        value = set_at(value, (*base, *parse_path(relative)), prepare(child).value)
    return value


class Change(NamedTuple):
    """One written path with the visible values before and after."""

    path: Path
    old: Stored
    new: Stored


class Listener(Protocol):
    """What receives events; must not block and must not raise."""

    def deliver(self, event: Event) -> None:
        """Take `event`; called in commit order."""
        ...


class _Node:
    __slots__ = ("children", "listeners")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.listeners: tuple[Listener, ...] = ()


class Watchers:
    """Who watches which path: a tree of its own, beside the data. Safe for threads."""

    def __init__(self) -> None:
        self._root = _Node()
        self._lock = threading.Lock()

    def add(self, path: Path, listener: Listener) -> None:
        """Send changes of `path` to `listener` from now on."""
        with self._lock:
            node = self._root
            for key in path:
                node = node.children.setdefault(key, _Node())
            node.listeners = (*node.listeners, listener)

    def remove(self, path: Path, listener: Listener) -> None:
        """Send no more to `listener`; unknown ones are ignored."""
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
        """Whether anybody watches `path`, a place above it, or one below it."""
        with self._lock:
            node = self._root
            for key in path:
                if node.listeners:
                    return True
                child = node.children.get(key)
                if child is None:
                    return False
                node = child
            return bool(node.listeners or node.children)

    def events(
        self, base: Path, changes: Iterable[Change], *, patch: bool
    ) -> list[tuple[tuple[Listener, ...], Event]]:
        """Work out who is told what about one write; unchanged values are left out.

        Args:
            base: the path that was written to.
            changes: the places written below it, none above another.
            patch: whether the write was an update of several children.
        """
        real = [change for change in changes if not same(change.old, change.new)]
        found: list[tuple[tuple[Listener, ...], Event]] = []
        with self._lock:
            for path, listeners in self._touched(real):
                event = _event_at(path, base, real, patch=patch)
                if event is not None:
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
    inside: dict[Path, Stored] = {}
    for change in changes:
        if path[: len(change.path)] == change.path:
            rest = path[len(change.path) :]
            old, new = get_at(change.old, rest), get_at(change.new, rest)
            return None if same(old, new) else Event("put", "/", present(new))
        if change.path[:depth] == path:
            inside[change.path] = present(change.new)
    if patch and base[:depth] == path:
        data = {"/".join(place[len(base) :]): value for place, value in inside.items()}
        return Event("patch", format_path(base[depth:]), data)
    if len(inside) == 1:
        place, value = inside.popitem()
        return Event("put", format_path(place[depth:]), value)
    return Event("patch", "/", {"/".join(p[depth:]): value for p, value in inside.items()})
