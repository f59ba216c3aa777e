"""What rules see of the tree: places that are read only when a rule asks for them.

A snapshot is a pair of a reader and a path; it reads nothing by itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

from elkyn.paths import PRIORITY, Path, key_problem
from elkyn.reading import MAP, Reader
from elkyn.rules.operators import Failed, equal, named
from elkyn.values import Stored, keys_of, leaf_of

__all__ = ["Snapshot", "Subtree", "child_of", "parent_of", "priority_at", "split_keys", "value_at"]

Snapshot: TypeAlias = tuple[Reader, Path]


class _Nothing:
    """A tree without anything in it: where `child("")` leads."""

    def get(self, path: Path) -> Stored:
        return None

    def keys(self, path: Path) -> list[str] | None:
        return None

    def peek(self, path: Path) -> Stored:
        return None


NOWHERE: Snapshot = (_Nothing(), ())


class Subtree:
    """What `val()` gives of a place with children; read only when compared with another."""

    __slots__ = ("_path", "_reader")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, reader: Reader, path: Path) -> None:
        self._reader = reader
        self._path = path

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Subtree):
            return False
        if self._reader is other._reader and self._path == other._path:
            return True
        return _alike(self._reader.get(self._path), other._reader.get(other._path))

    def __repr__(self) -> str:
        return "{…}"


def _alike(left: Stored, right: Stored) -> bool:
    keys = keys_of(left)
    if keys is None:
        return keys_of(right) is None and equal(leaf_of(left), leaf_of(right))
    others = keys_of(right)
    return others is not None and keys == others and all(_alike(left[k], right[k]) for k in keys)


def value_at(reader: Reader, path: Path) -> Any:
    """`val()`."""
    value = reader.peek(path)
    return Subtree(reader, path) if value is MAP else value


def priority_at(reader: Reader, path: Path) -> Any:
    """`getPriority()`."""
    return reader.get((*path, PRIORITY))


def child_of(snapshot: Snapshot, relative: Any) -> Snapshot:
    """`child(relative)`; the empty path leads nowhere."""
    keys = split_keys(relative)
    if keys is None:
        return NOWHERE
    reader, path = snapshot
    return reader, path + keys


def parent_of(snapshot: Snapshot) -> Snapshot:
    """`parent()`."""
    reader, path = snapshot
    if not path:
        raise Failed("parent() of the root")
    return reader, path[:-1]


def split_keys(relative: Any) -> Path | None:
    """Split a relative path into keys; None for the empty one.

    Raises:
        Failed: it is no string, or no tree can hold such a path.
    """
    if type(relative) is not str:
        raise Failed(f"child() of {named(relative)}")
    if not relative:
        return None
    keys = _split_short(relative) if len(relative) <= _SHORT else _split(relative)
    if keys is None:
        raise Failed(f"no path is {relative[:80]!r}")
    return keys


_SHORT = 256


def _split(relative: str) -> Path | None:
    keys = tuple(key for key in relative.split("/") if key)
    return None if any(map(key_problem, keys)) else keys


_split_short = lru_cache(maxsize=1024)(_split)
