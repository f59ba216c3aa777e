"""The input of a text operator in a resumed run: records already consumed are skipped."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Protocol

from emsqrt._kernel import Columns
from emsqrt.checkpoint import scan_below
from emsqrt.execution_context import ExecutionContext
from emsqrt.text_engine.text import Block, ColumnReader, TextRows

if TYPE_CHECKING:
    from emsqrt.checkpoint import JournalPage


class ResumableScan(Protocol):
    """Files that are read in blocks, starting at any of them."""

    position: tuple[str, int]

    def start_at(self, name: str, offset: int) -> bool:
        """Begin at a record of a file; return False when the file's name is ambiguous."""


class Resumption:
    """The part of its input that an operator has not consumed yet.

    Args:
        rows: the input.
        run: its journal says what was consumed.
    """

    def __init__(self, rows: TextRows, run: ExecutionContext) -> None:
        self.journal: JournalPage | None = run.journal()
        self._rows = rows
        self._scan: ResumableScan | None = scan_below(rows)
        self._marked: tuple[str, int] | None = None
        self._consumed = 0
        self._skip = 0
        self._complete = False
        found = None if self.journal is None else self.journal.found()
        if self.journal is None or found is None:
            return
        self._complete = found.complete
        self._skip = found.rows
        place = self.journal.found_position
        if place is not None and self._scan is not None and self._scan.start_at(*place[:2]):
            self._consumed = place[2]
            self._skip = found.rows - place[2]

    def blocks(self) -> Generator[Block]:
        """Yield the input's blocks, from the earliest position that has to be read."""
        if not self._complete:
            yield from self._rows.blocks()

    def rest(self, reader: ColumnReader, blocks: Iterator[Block]) -> Generator[tuple[Columns, int]]:
        """Yield the columns of the rows, and in each batch the first row to consume."""
        for columns in reader.batches(blocks):
            self._mark(reader.place)
            count = len(columns)
            # `_consumed`: rows of the input before the next batch, those that were skipped
            # included.
            self._consumed += count
            start = min(self._skip, count)
            self._skip -= start
            if start < count:
                yield columns, start
            del columns

    def _mark(self, place: tuple[str, int] | None) -> None:
        """Record the start of the current batch: that place, or a block of the scan."""
        # Text that an operator wrote has no offset; the scan below knows where its last block
        # began.
        if place is None and self._scan is not None and self._scan.position != self._marked:
            place = self._marked = self._scan.position
        if self.journal is not None and place is not None:
            self.journal.mark(*place, self._consumed)
