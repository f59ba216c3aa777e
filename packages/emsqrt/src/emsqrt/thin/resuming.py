"""The input of a text operator that may be resumed: what was taken in already is left out."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from emsqrt._kernel import Columns
from emsqrt.run import Run
from emsqrt.thin.text import Block, ColumnReader, TextRows

if TYPE_CHECKING:
    from emsqrt.kept import JournalPage


class Resumption:
    """How much of its input an operator has still to take in.

    Args:
        rows: the input.
        run: whose journal knows.
    """

    def __init__(self, rows: TextRows, run: Run) -> None:
        self.journal: JournalPage | None = run.journal()
        self._rows = rows
        self._taken = 0
        self._skip = 0
        self._complete = False
        found = None if self.journal is None else self.journal.found()
        if self.journal is None or found is None:
            return
        self._complete = found.complete
        self._skip = found.rows
        place = self.journal.found_place
        if place is not None and _start_at(rows, place[0], place[1]):
            self._taken = place[2]
            self._skip = found.rows - place[2]

    def blocks(self) -> Generator[Block]:
        """Yield the input's blocks, from where it is known that others were taken in."""
        if not self._complete:
            yield from self._rows.blocks()

    def rest(self, reader: ColumnReader, blocks: Iterator[Block]) -> Generator[tuple[Columns, int]]:
        """Yield the columns of the rows, and in each batch the first row to take."""
        for columns in reader.batches(blocks):
            if self.journal is not None and reader.place is not None:
                self.journal.mark(*reader.place, self._taken)
            count = len(columns)
            self._taken += count
            start = min(self._skip, count)
            self._skip -= start
            if start < count:
                yield columns, start
            del columns


def _start_at(rows: TextRows, source: str, offset: int) -> bool:
    """Let the scan right below begin at a record; False when something lies between."""
    start_at = getattr(rows, "start_at", None)
    return start_at is not None and bool(start_at(source, offset))
