"""An in-memory tree for rules to read: data of rule tests, simulations."""

from __future__ import annotations

from typing import Any

from elkyn.tree.paths import Path
from elkyn.tree.reader import peek_of
from elkyn.tree.values import Stored, get_at, keys_of, prepare

__all__ = ["MemoryReader"]


class MemoryReader:
    """A `Reader` over a value.

    Args:
        value: the whole tree, as JSON.

    Raises:
        BadValue: a tree cannot store the value.
    """

    def __init__(self, value: Any = None) -> None:
        self._stored = prepare(value).value

    def get(self, path: Path) -> Stored:
        """Return the stored form of the value at `path`, None when there is none."""
        return get_at(self._stored, path)

    def keys(self, path: Path) -> list[str] | None:
        """Return the keys of the children of `path` in order; None when it is no map."""
        return keys_of(self.get(path))

    def peek(self, path: Path) -> Stored:
        """Return the scalar at `path`, `MAP` for a map, None for no value."""
        return peek_of(self.get(path))
