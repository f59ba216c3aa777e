"""What can be read from: a transaction's view, or the tree as it would be after a write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

from elkyn.paths import PRIORITY, Path, sorted_map
from elkyn.values import Stored, get_at, keys_of, leaf_of, with_at

__all__ = ["MAP", "Overlay", "Reader", "peek_of"]


class _Map:
    def __repr__(self) -> str:
        return "MAP"


MAP: Final[Any] = _Map()
"""What `peek` says of a place that has children."""


def peek_of(value: Stored) -> Stored:
    """Return a scalar without its priority, `MAP` for a map, None for None."""
    leaf = leaf_of(value)
    return MAP if type(leaf) is dict else leaf


class Reader(Protocol):
    """One consistent state of a tree."""

    def get(self, path: Path) -> Stored:
        """Return the stored form of what is at `path`, None when nothing is."""
        ...

    def keys(self, path: Path) -> list[str] | None:
        """Return the keys of the children of `path` in order; None when it is no map."""
        ...

    def peek(self, path: Path) -> Stored:
        """Return the scalar at `path`, `MAP` for one with children (unread), None for nothing."""
        ...


class Overlay:
    """The tree of `reader` as it is after `places` are written; reads only what is asked for.

    Args:
        reader: the tree before.
        places: what is written where, none above another; None deletes.
    """

    __slots__ = ("_places", "_reader")

    def __init__(self, reader: Reader, places: Iterable[tuple[Path, Stored]]) -> None:
        self._reader = reader
        self._places = tuple(places)

    def get(self, path: Path) -> Stored:
        """Return the stored form of what will be at `path`, None when nothing will."""
        if path and path[-1] == PRIORITY:
            return get_at(self.get(path[:-1]), path[-1:])
        depth = len(path)
        below: list[tuple[Path, Stored]] = []
        for place, new in self._places:
            if path[: len(place)] == place:
                return get_at(new, path[len(place) :])
            if place[:depth] == path:
                below.append((place[depth:], new))
        value = self._reader.get(path)
        for rest, new in below:
            value = with_at(value, rest, new)
        return value

    def keys(self, path: Path) -> list[str] | None:
        """Return the keys of the children `path` will have, in order; None when it is no map."""
        depth = len(path)
        touched: set[str] = set()
        for place, new in self._places:
            if path[: len(place)] == place:
                return keys_of(get_at(new, path[len(place) :]))
            if place[:depth] == path and place[depth] != PRIORITY:
                touched.add(place[depth])
        before = self._reader.keys(path)
        if not touched:
            return before
        kept = [key for key in before or () if key not in touched]
        shown = [key for key in touched if self.get((*path, key)) is not None]
        return list(sorted_map(dict.fromkeys([*kept, *shown], True))) or None

    def peek(self, path: Path) -> Stored:
        """Return the scalar that will be at `path`, `MAP` for one with children, or None."""
        depth = len(path)
        deletes = False
        for place, new in self._places:
            if path[: len(place)] == place:
                return peek_of(get_at(new, path[len(place) :]))
            if place[:depth] == path and place[depth:] != (PRIORITY,):
                if new is not None:
                    return MAP
                deletes = True
        if deletes:
            return MAP if self.keys(path) else peek_of(self.get(path))
        if path and path[-1] == PRIORITY:
            return self.get(path)
        return self._reader.peek(path)
