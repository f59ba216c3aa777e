"""What a reader's permission rests on, so that an open stream is judged again only when it moved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from elkyn.paths import Path
from elkyn.reading import Reader
from elkyn.values import Stored

__all__ = ["ReadSet", "RecordingReader"]


@dataclass(frozen=True, slots=True)
class ReadSet:
    """The places that rules looked at when they judged a read.

    Until one of them changes, the same rules say the same to the same caller, unless `timed`.

    Args:
        paths: what was looked at.
        timed: a rule that was asked uses `now`: it may change its mind by itself.
    """

    paths: frozenset[Path]
    timed: bool

    def touched_by(self, written: Iterable[Path]) -> bool:
        """Whether a write of the places `written` may change the answer."""
        return any(
            path[: len(place)] == place or place[: len(path)] == path
            for place in written
            for path in self.paths
        )


class RecordingReader:
    """A `Reader` that notes what it is asked for.

    Args:
        reader: what answers.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.paths: set[Path] = set()

    def get(self, path: Path) -> Stored:
        """Note `path` and return what is there."""
        self.paths.add(path)
        return self._reader.get(path)

    def keys(self, path: Path) -> list[str] | None:
        """Note `path` and return the keys of its children."""
        self.paths.add(path)
        return self._reader.keys(path)

    def peek(self, path: Path) -> Stored:
        """Note `path` and return what stands there, children unread."""
        self.paths.add(path)
        return self._reader.peek(path)
