"""Readers: the protocol of a consistent tree state, and the tree as a write would leave it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from elkyn.tree.large_map import LargeMap
from elkyn.tree.paths import PRIORITY, Path, sorted_map
from elkyn.tree.values import Stored, copied, get_at, keys_of, leaf_of, set_many, with_at

__all__ = ["MAP", "Overlay", "Reader", "peek_of"]


class _Map:
    def __repr__(self) -> str:
        return "MAP"


MAP: Final[Any] = _Map()
"""What `peek` returns for a path that has children."""


def peek_of(value: Stored) -> Stored:
    """Return a scalar without its priority, `MAP` for a map, None for None."""
    leaf = leaf_of(value)
    return MAP if type(leaf) is dict or type(leaf) is LargeMap else leaf


class Reader(Protocol):
    """One consistent state of a tree."""

    def get(self, path: Path) -> Stored:
        """Return the stored form of the value at `path`, None when there is none."""
        ...

    def keys(self, path: Path) -> list[str] | None:
        """Return the keys of the children of `path` in order; None when it is no map."""
        ...

    def peek(self, path: Path) -> Stored:
        """Return the scalar at `path`, `MAP` (unread) for a map, None for no value."""
        ...


class Overlay:
    """The tree of `reader` after a write of `places`; reads only the requested paths.

    Many places are indexed by their path prefixes, so that looking up each of n places costs O(n)
    and not O(n²).

    Args:
        reader: the tree before the write; it must not change meanwhile.
        places: written paths and values, no path an ancestor of another; None deletes.
    """

    __slots__ = ("_below", "_emptied", "_lengths", "_places", "_reader")

    def __init__(self, reader: Reader, places: Iterable[tuple[Path, Stored]]) -> None:
        self._reader = reader
        self._places = tuple(places)
        # Made by the first read of a write with many places.
        self._below: dict[Path, list[_Place]] | None = None
        self._lengths: list[int] = []
        # What `peek` found for maps that lose children: rules ask the same path again and again.
        self._emptied: dict[Path, Stored] = {}

    def _near(self, path: Path) -> Sequence[_Place]:
        """Return the places relevant to `path`: the one at or above it, or those below."""
        if len(self._places) <= _FEW:
            return self._places
        if self._below is None:
            self._below = _by_prefix(self._places)
            self._lengths = sorted({len(place) for place, _new in self._places})
        # At most one place is at or above the path, since no place is above another: the shortest
        # prefix decides.
        for length in self._lengths:
            if length > len(path):
                break
            above = self._below.get(path[:length])
            if above is not None and len(above[0][0]) == length:
                return above
        return self._below.get(path, ())

    def get(self, path: Path) -> Stored:
        """Return the stored form of the value that will be at `path`, None for none."""
        if path and path[-1] == PRIORITY:
            return get_at(self.get(path[:-1]), path[-1:])
        depth = len(path)
        below: list[_Place] = []
        for place, new in self._near(path):
            if path[: len(place)] == place:
                return get_at(new, path[len(place) :])
            if place[:depth] == path:
                below.append((place[depth:], new))
        value = self._reader.get(path)
        # One change needs no copy of the whole value: `with_at` copies the maps on its path only.
        if len(below) <= 1:
            return with_at(value, *below[0]) if below else value
        return set_many(copied(value), below)

    def keys(self, path: Path) -> list[str] | None:
        """Return the keys that the children of `path` will have, in order; None when it is no map."""
        depth = len(path)
        touched: set[str] = set()
        for place, new in self._near(path):
            if path[: len(place)] == place:
                return keys_of(get_at(new, path[len(place) :]))
            if place[:depth] == path and place[depth] != PRIORITY:
                touched.add(place[depth])
        before = self._reader.keys(path)
        if not touched:
            return before
        kept = [key for key in before or () if key not in touched]
        shown = [key for key in touched if self.peek((*path, key)) is not None]
        return list(sorted_map(dict.fromkeys([*kept, *shown], True))) or None

    def peek(self, path: Path) -> Stored:
        """Return the scalar that will be at `path`, `MAP` for a map, None for no value."""
        if path in self._emptied:
            return self._emptied[path]
        depth = len(path)
        deletes = False
        for place, new in self._near(path):
            if path[: len(place)] == place:
                return peek_of(get_at(new, path[len(place) :]))
            if place[:depth] == path and place[depth:] != (PRIORITY,):
                # Something will be below the path, so it is a map; nothing has to be read.
                if new is not None:
                    return MAP
                deletes = True
        if deletes:
            before = self._reader.peek(path)
            if before is MAP:
                before = MAP if self.keys(path) else None
            self._emptied[path] = before
            return before
        if path and path[-1] == PRIORITY:
            return self.get(path)
        return self._reader.peek(path)


_Place: TypeAlias = tuple[Path, Stored]
_FEW = 4


def _by_prefix(places: Iterable[_Place]) -> dict[Path, list[_Place]]:
    """Index the places by their paths and by every prefix of these."""
    found: dict[Path, list[_Place]] = {}
    for place in places:
        for length in range(len(place[0]) + 1):
            found.setdefault(place[0][:length], []).append(place)
    return found
