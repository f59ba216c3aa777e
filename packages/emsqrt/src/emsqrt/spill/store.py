"""What keeps segments: files that are written once from front to back, read by range, removed.

`LocalStore` and `ObjectStore` are the two there are. A store knows nothing of blocks; a segment
knows nothing of disks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Sink(Protocol):
    """A file being written. Whoever made it ends it once, with `finish` or `abort`."""

    def write(self, parts: Sequence[memoryview]) -> None:
        """Append all parts; they may be changed as soon as this returns."""

    def finish(self) -> None:
        """End the file; from now on it can be opened."""

    def abort(self) -> None:
        """Remove what was written; never raises for what is gone already."""


class Source(Protocol):
    """A finished file being read."""

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill the target from `offset` on; SpillDamaged when the file ends before."""

    def close(self) -> None:
        """Give back what reading holds."""


class Store(Protocol):
    """A place for the files of one run.

    Attributes:
        place: what errors call it; holds no secret.
        is_remote: whether bytes cost more than the work to make them fewer.
        buffer_bytes: memory the store holds just now for writing and reading.
    """

    place: str
    is_remote: bool

    @property
    def buffer_bytes(self) -> int:
        """Memory the store holds just now for writing and reading."""

    def create(self, name: str) -> Sink:
        """Begin a file; the name is new."""

    def open(self, name: str, size_bytes: int) -> Source:
        """Open a finished file of that size."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone already is no error."""

    def close(self) -> None:
        """Remove whatever is left of the run."""
