"""Read sets of rule evaluations: an open stream is authorized again only when a write touches its."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from elkyn.tree.paths import Path
from elkyn.tree.reader import Reader
from elkyn.tree.values import Stored

__all__ = ["ReadSet", "RecordingReader"]


@dataclass(frozen=True, slots=True)
class ReadSet:
    """The paths that rules read when they authorized a read.

    Until one of them changes, the same rules decide the same for the same caller, unless `timed`.

    Args:
        paths: the paths that were read.
        timed: an evaluated rule uses `now`, so its result may change without a write.
    """

    paths: frozenset[Path]
    timed: bool

    def touched_by(self, written: Iterable[Path]) -> bool:
        """Whether a write of the paths `written` may change the decision."""
        return any(
            # A write at, above or below a path that was read.
            path[: len(place)] == place or place[: len(path)] == path
            for place in written
            for path in self.paths
        )


class RecordingReader:
    """A `Reader` that records the paths it reads.

    Args:
        reader: the reader to forward to.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.paths: set[Path] = set()

    def get(self, path: Path) -> Stored:
        """Record `path` and return its value."""
        self.paths.add(path)
        return self._reader.get(path)

    def keys(self, path: Path) -> list[str] | None:
        """Record `path` and return the keys of its children."""
        self.paths.add(path)
        return self._reader.keys(path)

    def peek(self, path: Path) -> Stored:
        """Record `path` and return its scalar, or `MAP`."""
        self.paths.add(path)
        return self._reader.peek(path)
