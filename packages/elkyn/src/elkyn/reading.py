"""What can be read from: a transaction's view, or the tree as it would be after a write."""

from __future__ import annotations

from typing import Protocol

from elkyn.paths import Path
from elkyn.values import Stored

__all__ = ["Reader"]


class Reader(Protocol):
    """One consistent state of a tree."""

    def get(self, path: Path) -> Stored:
        """Return the stored form of what is at `path`, None when nothing is."""
        ...

    def keys(self, path: Path) -> list[str] | None:
        """Return the keys of the children of `path` in order; None when it is no map."""
        ...
