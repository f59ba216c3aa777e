"""Operators on one block of text at a time: select, limit, union."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from types import MappingProxyType

from emsqrt._kernel import LineWriter
from emsqrt.execution_context import ExecutionContext
from emsqrt.text_engine.buffers import PARSE_FRONT_BYTES, buffer_bytes, new_buffer, write_blocks
from emsqrt.text_engine.text import STANDARD, Block, ColumnReader, TextRows, record_end
from sennit_core.schema import Field, Schema


class SelectText:
    """Some fields of each record, in another order, in the engine's own dialect.

    Args:
        rows: the records.
        columns: (name, name of the source field); None passes whole records on, checked
            and counted, each with its line end.
        run: provides the budget.
        instead: {field: the field that replaces it where it is empty}.
    """

    def __init__(
        self,
        rows: TextRows,
        columns: Sequence[tuple[str, str]] | None,
        run: ExecutionContext,
        instead: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.dialect = rows.dialect if columns is None else STANDARD
        self.rows = 0
        self.passes_on = self._rows = rows
        self._run = run
        names = rows.schema.names
        self._fields = None if columns is None else [names.index(old) for _, old in columns]
        self._instead = None
        self.schema = rows.schema
        if columns is not None:
            self._instead = [names.index(instead.get(old, old)) for _, old in columns]
            kept = (Field(new, rows.schema.field(old).type) for new, old in columns)
            self.schema = Schema(tuple(kept))
        self._out_bytes = buffer_bytes(run)
        self._guard = run.admit(
            PARSE_FRONT_BYTES + self._out_bytes, "select", "records are read and written in blocks"
        )

    def blocks(self) -> Generator[Block]:
        """Yield the records."""
        writer = LineWriter(
            self._fields,
            record_fields=len(self._rows.schema),
            delimiter=self._rows.dialect.delimiter,
            quote=self._rows.dialect.quote,
            instead=self._instead,
        )
        with self._guard, new_buffer(self._out_bytes) as out:
            reader = ColumnReader(self._rows, (), new_buffer(PARSE_FRONT_BYTES))
            with closing(reader.batches()) as batches:
                for columns in batches:
                    fill = partial(writer.write, columns)
                    for start, end, size in write_blocks(fill, len(columns), out):
                        yield Block(out[:size], rows=end - start)


class RenameText:
    """The same records under other names."""

    def __init__(self, rows: TextRows, schema: Schema) -> None:
        self.schema = schema
        self.dialect = rows.dialect
        self.passes_on = self._rows = rows

    @property
    def rows(self) -> int:
        """The number of records that were parsed, as counted by the input."""
        return self._rows.rows

    @rows.setter
    def rows(self, count: int) -> None:
        self._rows.rows = count

    def blocks(self) -> Generator[Block]:
        """Yield the input's blocks."""
        yield from self._rows.blocks()


class LimitText:
    """Skip some records, pass on some records, then stop pulling."""

    def __init__(self, rows: TextRows, count: int, skip: int, run: ExecutionContext) -> None:
        self.schema = rows.schema
        self.dialect = rows.dialect
        self.rows = 0
        self._rows = rows
        self._count = count
        self._skip = skip
        self._run = run

    def blocks(self) -> Generator[Block]:
        """Yield the records within the limit."""
        skip, left = self._skip, self._count
        if not left:
            return
        with closing(self._rows.blocks()) as blocks:
            for block in blocks:
                start, skipped = self._after(block.data, 0, skip)
                end, passed = self._after(block.data, start, left)
                skip, left = skip - skipped, left - passed
                # A block without a count comes from a scan, whose records are counted where they
                # are looked at.
                if not block.rows:
                    self._rows.rows += skipped + passed
                if end > start:
                    # Text of an operator has no place in a file.
                    offset = block.offset + start if block.offset >= 0 else -1
                    yield Block(
                        block.data[start:end],
                        offset,
                        block.source,
                        passed,
                        encoding=block.encoding,
                    )
                if not left:
                    return

    def _after(self, data: memoryview, start: int, count: int) -> tuple[int, int]:
        """Return the end of `count` records from `start` on, and how many there were."""
        found = 0
        while found < count and start < len(data):
            start = record_end(data, start, self.dialect)
            found += 1
        return start, found


class UnionText:
    """All records of the inputs one after the other; their fields and types are the same."""

    def __init__(self, inputs: Sequence[TextRows]) -> None:
        self.schema = inputs[0].schema
        self.dialect = inputs[0].dialect
        self._inputs = inputs
        self._current = inputs[0]

    @property
    def rows(self) -> int:
        """The number of records that were parsed of all inputs."""
        return sum(rows.rows for rows in self._inputs)

    @rows.setter
    def rows(self, count: int) -> None:
        """Add newly parsed records to the count of the input whose block was yielded last."""
        # The consumer counts the union; the new part belongs to the input that is read now.
        self._current.rows += count - self.rows

    def blocks(self) -> Generator[Block]:
        """Yield the blocks of every input."""
        for rows in self._inputs:
            self._current = rows
            with closing(rows.blocks()) as blocks:
                yield from blocks
