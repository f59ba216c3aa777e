"""Joined rows put in order, for joins that make them in another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emsqrt._kernel import RowStore
from emsqrt.external.fan_in import block_bytes
from emsqrt.external.join_output import JOINED_HEAD_BYTES, JoinOutput
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from emsqrt.external.runs import Runs

ENTRY_BYTES = 32  # what sorting takes for each row beside it


def sort_bytes_min(memory_bytes: int, joined_bytes_max: int) -> int:
    """Return the least memory to sort rows of such a length in."""
    return block_bytes(memory_bytes, 0) + joined_bytes_max + JOINED_HEAD_BYTES + 2 * ENTRY_BYTES


class JoinedSort:
    """Gathers joined rows, and leaves a sorted run of them each time that memory is full.

    Rows with equal keys stay in the order they came in.

    Args:
        memory: for the rows; see `sort_bytes_min`.
        runs: takes the runs.
    """

    def __init__(self, memory: memoryview, runs: Runs) -> None:
        split = len(memory) - block_bytes(len(memory), 0)
        self._memory, self._block = memory[:split], memory[split:]
        self._store = RowStore(self._memory)
        self._runs = runs
        self.runs_written = 0

    def add(self, rows: memoryview) -> None:
        """Take rows, spilling what there is no room for."""
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
        """Spill what there is as a run; False when there is nothing."""
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
        """Yield (bytes, rows) that lie in `joined`, of rows of which none were spilled."""
        assert not self.runs_written, "the runs have them"
        store = self._store
        store.sort()
        position = 0
        while position < store.rows:
            joined.wrote(*store.drain(joined.room(), position, store.rows))
            position += joined.rows
            yield joined.take()
