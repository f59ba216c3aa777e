"""Operators that look at one block of text at a time: limit, union."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

from emsqrt._kernel import csv_record_end
from emsqrt.run import Run
from emsqrt.thin.text import Block, TextRows


class LimitText:
    """Skip some records, pass on some records, and pull no more."""

    def __init__(self, rows: TextRows, count: int, skip: int, run: Run) -> None:
        self.schema = rows.schema
        self.dialect = rows.dialect
        self.rows = 0
        self._rows = rows
        self._count = count
        self._skip = skip
        self._run = run

    def blocks(self) -> Generator[Block]:
        """Yield the records that lie within the limit."""
        skip, left = self._skip, self._count
        if not left:
            return
        with closing(self._rows.blocks()) as blocks:
            for block in blocks:
                start, skipped = self._after(block.data, 0, skip)
                end, passed = self._after(block.data, start, left)
                skip, left = skip - skipped, left - passed
                if end > start:
                    yield Block(block.data[start:end], -1, block.source, passed)
                if not left:
                    return

    def _after(self, data: memoryview, start: int, count: int) -> tuple[int, int]:
        """Return where `count` records from `start` on end, and how many there were."""
        delimiter, quote = ord(self.dialect.delimiter), self.dialect.quote
        mark = -1 if quote is None else ord(quote)
        found = 0
        while found < count and start < len(data):
            start = csv_record_end(data, start, len(data), delimiter, mark) or len(data)
            found += 1
        return start, found


class UnionText:
    """All records of one input after the other; their fields and types are the same."""

    def __init__(self, inputs: Sequence[TextRows]) -> None:
        self.schema = inputs[0].schema
        self.dialect = inputs[0].dialect
        self.rows = 0
        self._inputs = inputs

    def blocks(self) -> Generator[Block]:
        """Yield the blocks of every input."""
        for rows in self._inputs:
            with closing(rows.blocks()) as blocks:
                yield from blocks
