"""The input of a text operator that may be resumed: what was taken in already is left out."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Protocol

from emsqrt._kernel import Columns
from emsqrt.kept import scan_below
from emsqrt.run import Run
from emsqrt.thin.text import Block, ColumnReader, TextRows

if TYPE_CHECKING:
    from emsqrt.kept import JournalPage


class Scan(Protocol):
    """Files that are read in blocks, and from any of these on."""

    position: tuple[str, int]

    def start_at(self, name: str, offset: int) -> bool:
        """Begin at a record of a file; False when it is not known which one is meant."""


class Resumption:
    """How much of its input an operator has still to take in.

    Args:
        rows: the input.
        run: whose journal knows.
    """

    def __init__(self, rows: TextRows, run: Run) -> None:
        self.journal: JournalPage | None = run.journal()
        self._rows = rows
        self._scan: Scan | None = scan_below(rows)
        self._marked: tuple[str, int] | None = None
        self._taken = 0
        self._skip = 0
        self._complete = False
        found = None if self.journal is None else self.journal.found()
        if self.journal is None or found is None:
            return
        self._complete = found.complete
        self._skip = found.rows
        place = self.journal.found_place
        if place is not None and self._scan is not None and self._scan.start_at(*place[:2]):
            self._taken = place[2]
            self._skip = found.rows - place[2]

    def blocks(self) -> Generator[Block]:
        """Yield the input's blocks, from where it is known that others were taken in."""
        if not self._complete:
            yield from self._rows.blocks()

    def rest(self, reader: ColumnReader, blocks: Iterator[Block]) -> Generator[tuple[Columns, int]]:
        """Yield the columns of the rows, and in each batch the first row to take."""
        for columns in reader.batches(blocks):
            self._mark(reader.place)
            count = len(columns)
            self._taken += count
            start = min(self._skip, count)
            self._skip -= start
            if start < count:
                yield columns, start
            del columns

    def _mark(self, place: tuple[str, int] | None) -> None:
        """Note where the batch begins that is taken in now: there, or with a block of the scan."""
        if place is None and self._scan is not None and self._scan.position != self._marked:
            place = self._marked = self._scan.position
        if self.journal is not None and place is not None:
            self.journal.mark(*place, self._taken)
