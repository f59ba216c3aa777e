"""The input of an operator in a resumed run: rows that it already consumed are skipped."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, Protocol

from emsqrt.checkpoint import scan_below
from emsqrt.execution_context import ExecutionContext
from emsqrt.operators.operator import Operator


class ResumableScan(Protocol):
    """A source that knows its position, and can begin there."""

    position: tuple[int, int]

    def start_at(self, file: int, rows: int) -> None:
        """Skip the first rows of a file."""


def rest_of(source: Operator, run: ExecutionContext) -> Generator[Any]:
    """Return the batches of its input that an operator has not consumed yet.

    Args:
        source: the input.
        run: the operator's view; its journal says what was consumed.
    """
    return source.batches() if run.journal() is None else _rest_of(source, run)


def _rest_of(source: Operator, run: ExecutionContext) -> Generator[Any]:
    """Yield the rows after those in sorted runs; read nothing when all rows are in runs."""
    journal = run.journal()
    assert journal is not None, "the run is resumable"
    found, consumed, left = journal.found(), 0, 0
    scan: ResumableScan | None = scan_below(source)
    if found is not None:
        # The whole input is in sorted runs.
        if found.complete:
            return
        place, left = journal.found_position, found.rows
        if place is not None and scan is not None:
            scan.start_at(int(place[0]), place[1])
            # `consumed`: rows before the next batch. `left`: rows of it, and of later ones, that
            # are in runs.
            consumed, left = place[2], found.rows - place[2]
    with closing(source.batches()) as batches:
        for batch in batches:
            if scan is not None:
                file, row = scan.position
                # Before the batch is passed on: a run that ends inside it is recorded with the
                # place where it begins.
                journal.mark(str(file), row, consumed)
            skipped = min(left, batch.num_rows)
            left -= skipped
            consumed += batch.num_rows
            if skipped < batch.num_rows:
                yield batch.slice(skipped)
            del batch
