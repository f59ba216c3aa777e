"""Sort joined rows, for joins that produce them in another order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emsqrt._kernel import RowStore
from emsqrt.external.fan_in import block_bytes
from emsqrt.external.join_output import JOINED_HEAD_BYTES, JoinOutput
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from emsqrt.external.runs import Runs

ENTRY_BYTES = 32  # memory that sorting needs per row, in addition to the row


def sort_bytes_min(memory_bytes: int, joined_bytes_max: int) -> int:
    """Return the least memory to sort joined rows of up to `joined_bytes_max` bytes."""
    return block_bytes(memory_bytes, 0) + joined_bytes_max + JOINED_HEAD_BYTES + 2 * ENTRY_BYTES


class JoinedSort:
    """Collects joined rows, and spills a sorted run each time the memory is full.

    Rows of equal keys stay in the order in which they were added.

    Args:
        memory: memory for the rows; see `sort_bytes_min`.
        runs: receives the runs.
    """

    def __init__(self, memory: memoryview, runs: Runs) -> None:
        split = len(memory) - block_bytes(len(memory), 0)
        self._memory, self._block = memory[:split], memory[split:]
        self._store = RowStore(self._memory)
        self._runs = runs
        self.runs_written = 0

    def add(self, rows: memoryview) -> None:
        """Add rows, spilling when the memory is full."""
        at = 0
        while at < len(rows):
            at += self._store.add_rows(rows, at)
            if at < len(rows) and not self.flush():
                raise CapTooSmall(
                    cap_bytes=len(self._memory),
                    needed_bytes=2 * len(rows),
                    because="a joined row is longer than the memory to sort it in",
                )

    def flush(self) -> bool:
        """Spill the rows as a run; return False if there are none."""
        store = self._store
        if not store.rows:
            return False
        store.sort()
        position = 0
        with self._runs.create() as writer:
            while position < store.rows:
                filled, rows = store.drain(self._block, position, store.rows)
                if rows:
                    writer.append(self._block[:filled], rows)
                # Such a row needs no other memory: it is written from the store.
                else:  # longer than a block: a block of its own
                    first, end = store.row_span(position)
                    rows = 1
                    writer.append(self._memory[first:end], rows)
                position += rows
            self._runs.add(writer.finish())
        self.runs_written += 1
        store.reset()
        return True

    def blocks(self, joined: JoinOutput) -> Iterator[tuple[int, int]]:
        """Yield (bytes, rows) in `joined`; only if no rows were spilled."""
        assert not self.runs_written, "some rows were spilled"
        store = self._store
        store.sort()
        position = 0
        while position < store.rows:
            joined.wrote(*store.drain(joined.room(), position, store.rows))
            position += joined.rows
            yield joined.flush()
