"""Read CSV to Arrow, one bounded block at a time.

`pyarrow.csv.open_csv` reads ahead without a bound, and its reader ends the process when it runs out
of memory. So blocks are split here (`emsqrt.io.records`) and parsed by the kernel
(`emsqrt.io.csv_parser`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emsqrt.io.bad_rows import BadRows
from emsqrt.io.csv_options import CsvOptions, read_header
from emsqrt.io.csv_parser import CsvBatches
from emsqrt.io.records import RecordBlock, RecordTooLong, split_records
from emsqrt.io.sources import ByteSource
from emsqrt.long_row import LongRow
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

BLOCK_BYTES_MAX = 1 << 20
BLOCK_BYTES_MIN = 1 << 16
_BLOCK_COPIES = 5
"""Raw block, the parser's copy, and columns with their slack, which need twice the block."""
_RECORD_BYTES_MAX = 64 << 20


class CsvScan:
    """Reads one CSV file; `bytes_done` is updated during iteration.

    Args:
        source: the file.
        schema: the columns to read, in order, with their types.
        options: the format of the file.
        budget: the budget for a block and its columns.
        block_bytes: read this much at a time; None chooses it by the budget.
        bad_rows: receives records that violate the schema.
    """

    def __init__(
        self,
        source: ByteSource | Path,
        schema: Schema,
        options: CsvOptions,
        budget: MemoryBudget,
        block_bytes: int | None = None,
        *,
        bad_rows: BadRows | None = None,
    ) -> None:
        source = options.decoded(source)
        self._source, self._options, self._budget = source, options, budget
        self._bad_rows = bad_rows or BadRows()
        self._block_bytes = block_bytes or block_bytes_for(budget)
        names, self._start = read_header(source, options)
        self._parser = CsvBatches(names, schema, options, source, self._bad_rows)
        self._parser.start_at(self._start)
        self.need_bytes = self._block_bytes * _BLOCK_COPIES + source.need_bytes
        self.need_because = need_because(source, self._block_bytes)
        self.record_copies = _BLOCK_COPIES
        """The number of copies in memory of a record that is longer than a block."""
        self.bytes_done = 0

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield a batch for each block; `guard` holds `need_bytes` and grows for a long record."""
        longest = self._options.record_bytes_max or min(
            _RECORD_BYTES_MAX, max(self._block_bytes, self._budget.free_bytes // _BLOCK_COPIES)
        )
        with self._source.open() as stream:
            stream.skip(self._start)
            self.bytes_done = stream.stored_bytes
            blocks = split_records(
                stream,
                self._options.dialect,
                block_bytes=self._block_bytes,
                record_bytes_max=longest,
                offset=self._start,
                what=self._source.name,
            )
            if self._options.record_bytes_max is None and longest < _RECORD_BYTES_MAX:
                blocks = wanting_memory(blocks, self._budget, longest, _BLOCK_COPIES)
            for block in blocks:
                hold_block(block, guard, self.need_bytes, _BLOCK_COPIES, self._source.name)
                self.bytes_done = stream.stored_bytes
                yield from self._parser.parse(block)
                del block
            guard.resize(self.need_bytes)


def block_bytes_for(budget: MemoryBudget) -> int:
    """Return the block size that uses about a quarter of what the budget has free."""
    wanted = budget.free_bytes // (4 * _BLOCK_COPIES)
    return max(BLOCK_BYTES_MIN, min(wanted, BLOCK_BYTES_MAX))


def wanting_memory(
    blocks: Iterator[RecordBlock], budget: MemoryBudget, longest: int, copies: int
) -> Iterator[RecordBlock]:
    """Yield blocks; raise LongRow for a record that is too long only because of the cap.

    Args:
        blocks: the blocks of `split_records`.
        budget: the budget from which `longest` was derived.
        longest: the longest record that fits memory, in bytes.
        copies: the number of its copies in memory.

    Raises:
        LongRow: a record is longer than `longest`.
    """
    try:
        yield from blocks
    except RecordTooLong as error:
        # The length is unknown if the record's end was not found nearby.
        row_bytes = error.record_bytes or 2 * longest
        raise LongRow(
            cap_bytes=longest * copies,
            needed_bytes=(row_bytes + 1) * copies,
            because=f"the record at byte {error.byte_offset} of {error.what} is longer than "
            f"{format_bytes(longest)}",
            row_bytes=row_bytes,
            memory="read",
        ) from None


def hold_block(
    block: RecordBlock, guard: BudgetGuard, need_bytes: int, copies: int, name: str
) -> None:
    """Resize a reader's guard for a block, which is larger than others if it has a long record.

    Args:
        block: whole records.
        guard: the reader's guard.
        need_bytes: the least bytes of the guard.
        copies: the number of copies of the block in memory.
        name: the name of the file.

    Raises:
        LongRow: other operators reserved the memory after the reader had checked the free memory.
    """
    size_bytes = len(block.data)
    if not guard.try_resize(max(need_bytes, size_bytes * copies)):
        raise LongRow(
            cap_bytes=guard.size_bytes,
            needed_bytes=size_bytes * copies,
            because=f"the record at byte {block.offset} of {name} has {format_bytes(size_bytes)}",
            row_bytes=size_bytes,
            memory="read",
        )


def need_because(source: ByteSource, block_bytes: int) -> str:
    """Return the reason why reading a text file needs memory, for errors."""
    packed = f" of {source.codec}, whose window is its own," if source.codec else ""
    return f"{source.name}{packed} is read in blocks of {format_bytes(block_bytes)}"
