"""The input of an operator that may be resumed: what was taken in already is left out."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, Protocol

from emsqrt.kept import scan_below
from emsqrt.operators.operator import Operator
from emsqrt.run import Run


class Scan(Protocol):
    """A source that knows where it is, and can begin there."""

    position: tuple[int, int]

    def start_at(self, file: int, rows: int) -> None:
        """Begin behind so many rows of a file."""


def rest_of(source: Operator, run: Run) -> Generator[Any]:
    """Return what an operator has still to take in of its input's batches.

    Args:
        source: the input.
        run: as the operator sees it; its journal knows.
    """
    return source.batches() if run.journal() is None else _rest_of(source, run)


def _rest_of(source: Operator, run: Run) -> Generator[Any]:
    """Yield the rows behind those that lie in runs; nothing is read when all of them do."""
    journal = run.journal()
    assert journal is not None, "somebody may resume this"
    found, taken, left = journal.found(), 0, 0
    scan: Scan | None = scan_below(source)
    if found is not None:
        if found.complete:
            return
        place, left = journal.found_place, found.rows
        if place is not None and scan is not None:
            scan.start_at(int(place[0]), place[1])
            taken, left = place[2], found.rows - place[2]
    with closing(source.batches()) as batches:
        for batch in batches:
            if scan is not None:
                file, row = scan.position
                journal.mark(str(file), row, taken)
            skipped = min(left, batch.num_rows)
            left -= skipped
            taken += batch.num_rows
            if skipped < batch.num_rows:
                yield batch.slice(skipped)
            del batch
