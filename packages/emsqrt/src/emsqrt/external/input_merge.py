"""`InputMerge`: merge sorted inputs that arrive as batches, in memory of a fixed size.

The memory of a merge of K inputs:

    | state of the merger | rows of input 0 | rows of input 1 | … | rows of input K - 1 |

A part is refilled from its input's current batch when all of its rows are merged. Each row is checked
against the one before it, so an input that is not sorted ends the merge, and never has a wrong order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Self

from emsqrt._kernel import Merger, RowStore, merger_bytes, sorted_run
from emsqrt.external.fan_in import ENTRY_BYTES
from emsqrt.external.merging import Merging
from emsqrt.long_row import LongRow
from sennit_core.errors import BadInput

if TYPE_CHECKING:
    from emsqrt._kernel import Columns, KeySpec

_ALIGN = 64
ROW_SLACK_BYTES = 2 * ENTRY_BYTES + _ALIGN
"""Memory of a part in addition to its longest row."""


class InputMerge(Merging):
    """Merges inputs; rows of equal keys come in the order of the inputs.

    Args:
        memory: memory for everything; each input has an equal part of it.
        inputs: the batches of each input, which its keys order.
        names: of the inputs, for errors.
        keys: the keys.
        payload: the columns to pack.
        check: called often; an exception that it raises ends the merge.
    """

    def __init__(
        self,
        memory: memoryview,
        inputs: Sequence[Iterator[Columns]],
        names: Sequence[str],
        keys: KeySpec,
        payload: tuple[int, ...],
        check: Callable[[], None],
    ) -> None:
        part = (len(memory) - merger_bytes(len(inputs))) // len(inputs) // _ALIGN * _ALIGN
        super().__init__(memory, Merger(memory, [part] * len(inputs), None))
        self.row_bytes_max = 0
        self._inputs, self._names = list(inputs), names
        self._keys, self._payload, self._check = keys, payload, check
        # Of each input: its current batch, the first row of it that is not merged or in the part, and
        # the key of the row before that.
        self._batches: list[Columns | None] = [None] * len(inputs)
        self._next_rows = [0] * len(inputs)
        self._last_keys = [b""] * len(inputs)
        try:
            for source in range(len(inputs)):
                self._refill(source)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop all references to the memory and to batches; the inputs are the caller's."""
        del self._merger
        self._memory = memoryview(b"")
        self._batches.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refill(self, source: int) -> None:
        self._check()
        start, stop = self._merger.span(source)
        batch = self._batch(source)
        if batch is None:
            self._merger.refill(source, 0)
            return
        # The store writes rows one after the other from the start of its memory, as a merger reads
        # them; it is never sorted.
        store = RowStore(self._memory[start:stop])
        at = self._next_rows[source]
        added = store.add(batch, self._keys, self._payload, at)
        if added == 0:
            self._refuse_row(batch, at, stop - start)
        with self._memory[start : start + store.used_bytes] as rows:
            self._check_order(source, batch, at + added - 1, rows)
        self._next_rows[source] = at + added
        self.row_bytes_max = max(self.row_bytes_max, store.row_bytes_max)
        self._merger.refill(source, store.used_bytes)

    def _batch(self, source: int) -> Columns | None:
        """Return the batch that has the next row of an input; None at its end."""
        batch = self._batches[source]
        while batch is None or self._next_rows[source] == len(batch):
            # First: two batches of an input are never held.
            self._batches[source] = batch = None
            batch = next(self._inputs[source], None)
            if batch is None:
                return None
            self._batches[source], self._next_rows[source] = batch, 0
        return batch

    def _check_order(self, source: int, batch: Columns, last: int, rows: memoryview) -> None:
        end, _, _ = sorted_run(rows, 0, len(rows), self._last_keys[source])
        if end != len(rows):
            raise BadInput(self._names[source], reason="its rows are not in the order of the merge")
        self._last_keys[source] = self._keys.encode(batch, last)

    def _refuse_row(self, batch: Columns, at: int, part_bytes: int) -> None:
        row_bytes = RowStore(self._memory[:0]).row_bytes(batch, self._keys, self._payload, at)
        needed = 2 * (row_bytes + ROW_SLACK_BYTES) + merger_bytes(2)
        raise LongRow(
            cap_bytes=part_bytes,
            needed_bytes=needed,
            because=f"a row of the merge has {row_bytes} bytes with its key",
            row_bytes=row_bytes,
        )
