"""Snapshots in rules: paths of the tree, read lazily.

A snapshot is a pair of a reader and a path; it reads nothing by itself.

A path may contain characters that no key can (`root.child("banned/" + auth.token.email)`): the live
service accepts such a rule, and no data exists at the path. goldibex/targaryen has recorded its
results: its `bin/targaryen-specs` evaluates each expression of
`test/spec/lib/parser/fixtures.json` on the live service.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from elkyn.rules.operators import Failed, equal, named
from elkyn.tree.paths import PRIORITY, Path, key_problem
from elkyn.tree.reader import MAP, Reader
from elkyn.tree.values import Stored, keys_of, leaf_of

__all__ = [
    "Snapshot",
    "Steps",
    "Subtree",
    "child_of",
    "illegal_child",
    "parent_of",
    "priority_at",
    "split_path",
    "value_at",
]

Snapshot: TypeAlias = tuple[Reader, Path]


class _Nothing:
    """An empty tree: the target of `child("")`."""

    def get(self, path: Path) -> Stored:
        return None

    def keys(self, path: Path) -> list[str] | None:
        return None

    def peek(self, path: Path) -> Stored:
        return None


NOWHERE: Snapshot = (_Nothing(), ())


class _IllegalPath(_Nothing):
    """The target of a path with an invalid key: it does not exist, but its parents may.

    Args:
        tree: the tree of the valid part of the path.
        depth: the number of keys of the valid part.
    """

    def __init__(self, tree: Reader, depth: int) -> None:
        self.tree = tree
        self.depth = depth


class Subtree:
    """The result of `val()` for a path with children; read only when compared with another."""

    __slots__ = ("_path", "_reader")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, reader: Reader, path: Path) -> None:
        self._reader = reader
        self._path = path

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Subtree):
            return False
        # The same place of the same state: equal without being read.
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
    """`child(relative)`; the empty path and an invalid key lead to snapshots without a value."""
    steps = split_path(relative)
    if steps is None:
        return NOWHERE
    if steps.illegal is not None:
        return illegal_child(snapshot, steps.keys, steps.illegal)
    reader, path = snapshot
    return reader, path + steps.keys


def illegal_child(snapshot: Snapshot, keys: Path, illegal: int) -> Snapshot:
    """Return the snapshot at a path whose key at the index `illegal` is invalid."""
    reader, path = snapshot
    if not isinstance(reader, _Nothing):
        # Remembers the tree, because `parent()` may lead back to a path that can exist.
        reader = _IllegalPath(reader, len(path) + illegal)
    return reader, path + keys


def parent_of(snapshot: Snapshot) -> Snapshot:
    """`parent()`."""
    reader, path = snapshot
    if not path:
        raise Failed("parent() of the root")
    path = path[:-1]
    if isinstance(reader, _IllegalPath) and len(path) <= reader.depth:
        reader = reader.tree
    return reader, path


class Steps(NamedTuple):
    """A relative path: its keys, and the index of the first invalid one."""

    keys: Path
    illegal: int | None


def split_path(relative: Any) -> Steps | None:
    """Split a relative path into keys; None for the empty one.

    Raises:
        Failed: `relative` is not a string.
    """
    if type(relative) is not str:
        raise Failed(f"child() of {named(relative)}")
    if not relative:
        return None
    return _split_short(relative) if len(relative) <= _SHORT else _split(relative)


_SHORT = 256


def _split(relative: str) -> Steps:
    keys = tuple(key for key in relative.split("/") if key)
    illegal = (index for index, key in enumerate(keys) if key_problem(key))
    return Steps(keys, next(illegal, None))


_split_short = lru_cache(maxsize=1024)(_split)
