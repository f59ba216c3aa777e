"""The interface of file stores: files are written once from start to end, read by range, removed.

`LocalStore` and `ObjectStore` implement it. A store has no concept of blocks, a segment has none of
disks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Sink(Protocol):
    """A file being written. Its creator ends it once, with `finish` or `abort`."""

    def write(self, parts: Sequence[memoryview]) -> None:
        """Append all parts; they may be changed as soon as this returns."""

    def finish(self) -> None:
        """End the file; from now on it can be opened."""

    def abort(self) -> None:
        """Remove the file; never raises if it is missing already."""


class StoredFile(Protocol):
    """A finished file being read."""

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill the target from `offset` on; SpillDamaged if the file ends before."""

    def close(self) -> None:
        """Release the resources of reading."""


class Store(Protocol):
    """The files of one run.

    Attributes:
        place: its name in errors; contains no secret.
        is_remote: whether it is across a network, so that compression pays off.
        buffer_bytes: memory that the store uses now for writing and reading.
    """

    place: str
    is_remote: bool

    @property
    def buffer_bytes(self) -> int:
        """Memory that the store uses now for writing and reading."""

    def create(self, name: str) -> Sink:
        """Begin a file; the name must be new."""

    def open(self, name: str, size_bytes: int) -> StoredFile:
        """Open a finished file of that size."""

    def remove(self, name: str) -> None:
        """Remove a file; a missing file is no error."""

    def close(self) -> None:
        """Remove all remaining files of the run."""
