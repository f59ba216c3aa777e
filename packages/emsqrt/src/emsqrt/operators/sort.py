"""Sort and top-k: rows are packed with their keys, ordered in C, and unpacked again."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from emsqrt._kernel import KeySpec
from emsqrt.expr.evaluate import Evaluator
from emsqrt.external.layout import kind_of
from emsqrt.external.sort import ExternalSort
from emsqrt.metering import begun
from emsqrt.operators.nested import to_columns, unpack_batch
from emsqrt.operators.operator import Operator
from emsqrt.plan.nodes import Sort, SortKey, TopK
from emsqrt.run import Run
from sennit_core.schema import Field, Schema

BLOCK_BYTES_MAX = 1 << 18
"""Packed rows that become one batch, where memory is short."""
_WIDE_BYTES_MAX = 1 << 20
_WIDE_SHARE = 24
"""Where it is not, one part in so many, up to the former: fewer, larger batches cost less."""


class SortRows:
    """Rows in the order of their keys; equal ones stay in the order of the input."""

    def __init__(self, node: Sort | TopK, inputs: Sequence[Operator], run: Run) -> None:
        """Type the keys over the input's rows."""
        (self._input,) = inputs
        self.schema = self._input.schema
        self._run = run
        self._keys = SortColumns(node.keys, self.schema)
        self._skip = node.offset if isinstance(node, TopK) else 0
        self._limit = node.offset + node.count if isinstance(node, TopK) else None
        run.expect_holder()

    def batches(self) -> Generator[Any]:
        """Yield the sorted rows."""
        with (
            begun(self._run.rest_of(self._input.batches())) as batches,
            self._run.take_working_memory("sort") as held,
        ):
            out_bytes = _block_bytes(len(held.memory))
            cut = len(held.memory) - out_bytes
            with held.memory[:cut] as memory, held.memory[cut:] as out:
                sorter = ExternalSort(
                    memory,
                    self._run.spill,
                    self._keys.spec(len(self.schema)),
                    tuple(range(len(self.schema))),
                    limit=self._limit,
                    check=self._run.check,
                    journal=self._run.journal() if self._limit is None else None,
                )
                with self._run.working(sorter):
                    self._gather(sorter, batches)
                    yield from self._sorted(sorter, out)

    def _gather(self, sorter: ExternalSort, batches: Iterator[Any]) -> None:
        fields = [*self.schema, *self._keys.fields]
        for batch in batches:
            self._run.check()
            arrays = [*batch.columns, *self._keys(batch)]
            sorter.add(to_columns(arrays, fields, batch.num_rows))
            del batch, arrays
        sorter.finish()

    def _sorted(self, sorter: ExternalSort, out: memoryview) -> Generator[Any]:
        arrow_schema, skip = self.schema.to_arrow(), self._skip
        for size, rows in sorter.blocks(out):
            self._run.check()
            batch = unpack_batch(out[:size], rows, self.schema, arrow_schema)
            skipped = min(skip, rows)
            skip -= skipped
            if skipped < rows:
                yield batch.slice(skipped)
            del batch


def _block_bytes(memory_bytes: int) -> int:
    wide = min(_WIDE_BYTES_MAX, memory_bytes // _WIDE_SHARE)
    return max(wide, min(BLOCK_BYTES_MAX, memory_bytes // 4))


class SortColumns:
    """The columns that rows are ordered by, made from a batch.

    Args:
        keys: what to order by, most significant first.
        schema: the rows.
    """

    def __init__(self, keys: Sequence[SortKey], schema: Schema) -> None:
        self._evaluators = [Evaluator(key.expr, schema) for key in keys]
        self._keys = keys
        self.fields = [
            Field(f"key{at}", evaluator.type) for at, evaluator in enumerate(self._evaluators)
        ]
        for field in self.fields:
            kind_of(field.type, "ordering")

    def __call__(self, batch: Any) -> list[Any]:
        """Return the keys' arrays for a batch."""
        return [evaluator(batch) for evaluator in self._evaluators]

    def spec(self, first: int) -> KeySpec:
        """Return the order of rows whose key columns begin at column `first`."""
        return KeySpec(
            [(first + at, key.descending, key.nulls_first) for at, key in enumerate(self._keys)]
        )
