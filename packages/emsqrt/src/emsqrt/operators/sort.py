"""Sort and top-k: pack rows with their keys, order them in C, and unpack them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from emsqrt.execution_context import ExecutionContext
from emsqrt.expr.walk import columns_of
from emsqrt.external.sort import ExternalSort, sort_bytes
from emsqrt.metering import prefetch_first
from emsqrt.operators.coded import code_texts
from emsqrt.operators.long_rows import room_for, varies
from emsqrt.operators.operator import Operator
from emsqrt.operators.packing import stored_ranges
from emsqrt.operators.resuming import rest_of
from emsqrt.operators.sort_layout import SortLayout
from emsqrt.plan.nodes import Sort, TopK

BLOCK_BYTES_MAX = 1 << 18
"""Packed rows that become one batch, when memory is short."""
_WIDE_BYTES_MAX = 640 << 10
"""The same when memory is ample; an unpacked batch is up to twice as large, and the heap still
caches that much: `emsqrt.memory.malloc_tuning`."""
_ROWS_HELD = 4
"""A merge holds at least two input rows and an output row; a batch holds a fourth."""
_WIDE_SHARE = 24
"""The fraction of ample memory for one batch, up to `_WIDE_BYTES_MAX`: larger batches cost less."""


class SortRows:
    """Rows in the order of their keys; equal ones stay in input order."""

    def __init__(
        self, node: Sort | TopK, inputs: Sequence[Operator], run: ExecutionContext
    ) -> None:
        """Type the keys over the input's rows."""
        (self._input,) = inputs
        self.schema = self._input.schema
        self._run = run
        # Codes are in the order of first occurrence, so columns that are compared keep their texts.
        looked_at = frozenset().union(*(columns_of(key.expr) for key in node.keys))
        self._layout = SortLayout(
            node.keys,
            self.schema,
            code_texts(self._input, looked_at, run),
            stored_ranges(self._input, run),
        )
        self._stored_as: tuple[int, int] | None = None
        self._skip = node.offset if isinstance(node, TopK) else 0
        self._limit = node.offset + node.count if isinstance(node, TopK) else None
        # A text that is a key may be in the row twice: in the key, escaped, and in the payload.
        keys = 1 + any(field.type.name in ("Utf8", "Binary") for field in self._layout.key_fields)
        self._long_bytes = keys * run.row_bytes if varies(self.schema) else 0
        run.expect_packed_growth(keys)
        run.expect_holder(_ROWS_HELD, self._bytes_for_long_rows if run.met else 0)
        run.expect_rows(2, "free")

    @property
    def _bytes_for_long_rows(self) -> int:
        """The minimum memory for the longest known row."""
        # The inverse of `block_bytes`: what is left for the sort after the batch's share.
        return (sort_bytes(self._long_bytes) + _WIDE_BYTES_MAX) * _WIDE_SHARE // (_WIDE_SHARE - 1)

    def yield_as_stored(self, dictionary_bytes_max: int, value_count_max: int) -> None:
        """Yield columns as Parquet stores them, in shorter types than elsewhere.

        Args:
            dictionary_bytes_max: texts are yielded as dictionary arrays, all batches of a column
                with one dictionary of at most this many bytes.
            value_count_max: and of at most this many texts.
        """
        self._stored_as = dictionary_bytes_max, value_count_max

    def batches(self) -> Generator[Any]:
        """Yield the sorted rows."""
        with (
            prefetch_first(rest_of(self._input, self._run)) as batches,
            self._run.acquire_working_memory("sort") as held,
        ):
            out_bytes = block_bytes(len(held.memory))
            cut = len(held.memory) - out_bytes
            with held.memory[:cut] as memory, held.memory[cut:] as out:
                sorter = ExternalSort(
                    memory,
                    self._run.spill,
                    self._layout.spec,
                    self._layout.payload,
                    limit=self._limit,
                    check=self._run.check,
                    journal=self._run.journal(),
                )
                with self._run.working(sorter):
                    self._gather(sorter, batches)
                    yield from self._sorted(sorter, out)

    def _gather(self, sorter: ExternalSort, batches: Iterator[Any]) -> None:
        for batch in batches:
            self._run.check()
            sorter.add(self._layout.pack(batch))
            del batch
        sorter.finish()

    def _sorted(self, sorter: ExternalSort, out: memoryview) -> Generator[Any]:
        # Dictionaries are complete only now, after the last row was packed.
        if self._stored_as is not None:
            self._layout.yield_as_stored(*self._stored_as)
        skip, longest = self._skip, sorter.stats.row_bytes_max
        with room_for(longest, out, self._run, "sort") as room:
            for size, rows in sorter.blocks(room):
                self._run.check()
                batch = self._layout.unpack(room[:size], rows)
                skipped = min(skip, rows)
                # Rows before the offset are sorted, and then skipped.
                skip -= skipped
                if skipped < rows:
                    yield batch.slice(skipped)
                del batch


def block_bytes(memory_bytes: int) -> int:
    """Return the memory for packed rows that become one batch."""
    wide = min(_WIDE_BYTES_MAX, memory_bytes // _WIDE_SHARE)
    return max(wide, min(BLOCK_BYTES_MAX, memory_bytes // 4))
