"""Joins: pack both sides as rows, join them in C, and split them into batches again."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emsqrt._kernel import join_side
from emsqrt.execution_context import OUTPUT_BYTES, ExecutionContext
from emsqrt.external.cross import CrossJoin
from emsqrt.external.join import ExternalJoin, join_bytes
from emsqrt.external.join_output import HashJoinKind, JoinOutput
from emsqrt.external.merge_join import MergeJoin
from emsqrt.long_row import LongRow
from emsqrt.metering import prefetch_first
from emsqrt.operators.join_side import (
    BLOCK_BYTES_MAX,
    LONG_ROW_SHARE,
    JoinSide,
    block_bytes,
    row_bytes_max,
)
from emsqrt.operators.operator import Operator
from emsqrt.plan.joining import join_key_types, join_schema, shared_keys
from emsqrt.plan.nodes import Join, JoinKind
from sennit_core.schema import DataType, Field
from sennit_core.units import format_bytes

_BATCH_BYTES_MAX = OUTPUT_BYTES // 2
"""Largest joined rows whose batch fits the memory reserved for it."""
_SIDES = 2
_KEEPS_RIGHT = ("right", "full")

Pair = tuple[tuple[str, str], DataType]


class JoinRows:
    """Joined rows of two inputs, in the order that `Join` promises."""

    def __init__(self, node: Join, inputs: Sequence[Operator], run: ExecutionContext) -> None:
        """Type the keys over both inputs' rows."""
        left, right = inputs
        self.schema = join_schema(node, left.schema, right.schema)
        self._arrow_schema = self.schema.to_arrow()
        self._run = run
        self._how = node.how
        types = join_key_types(node, left.schema, right.schema)
        shared = dict(zip((one for one, _ in node.on), types, strict=True))
        # A key of both sides is one column. In right and full joins its value may come from the
        # right side only, so that is carried as well, and both are coalesced in `_batch`.
        self._shared = shared_keys(node) if node.how in _KEEPS_RIGHT else ()
        left_fields = [
            Field(field.name, shared[field.name] if field.name in self._shared else field.type)
            for field in left.schema
        ]
        right_fields = []
        if node.how not in ("semi", "anti"):
            hidden = shared_keys(node)
            right_fields = [field for field in right.schema if field.name not in hidden]
            right_fields += [Field(name, shared[name]) for name in self._shared]
        pairs = _in_order(list(zip(node.on, types, strict=True)), run.choice.merge)
        types = tuple(kind for _, kind in pairs)
        names = [one for (one, _), _ in pairs], [other for (_, other), _ in pairs]
        self._left = JoinSide(left, left_fields, names[0], types)
        self._right = JoinSide(right, right_fields, names[1], types)
        self._build, self._probe = self._right, self._left
        if run.choice.build_left:
            self._build, self._probe = self._probe, self._build
        keys = any(kind.name in ("Utf8", "Binary") for kind in types)
        long = [run.row_bytes * side.varies for side in self._sides]
        self._row_bytes, key_bytes = (1 + keys) * max(long), keys * run.row_bytes
        packed = [self._row_bytes] * (1 + bool(run.choice.merge))
        self._long_bytes = [sum(long) + key_bytes, *long, *packed]
        run.expect_packed_growth(1 + keys)
        if sum(side.varies for side in self._sides) < _SIDES:
            run.expect_output_growth(1)
        run.expect_holder(LONG_ROW_SHARE, self._bytes_for_long_rows if run.met else 0)
        run.expect_rows(2, "passing")

    @property
    def _bytes_for_long_rows(self) -> int:
        """The minimum memory for the longest known row."""
        rooms = sum(max(2 * BLOCK_BYTES_MAX, each) for each in self._long_bytes)
        return join_bytes(self._row_bytes) + rooms

    def batches(self) -> Generator[Any]:
        """Yield the joined rows."""
        merged = self._run.choice.merge
        with ExitStack() as stack:
            # A merge join needs both inputs at once; a hash join reads the probe side after the
            # build.
            left = (
                stack.enter_context(prefetch_first(self._probe.source.batches()))
                if merged
                else None
            )
            # The first row of the build side is pulled before memory is requested: all that gathers
            # below has gathered by then.
            opened = self._run.prefetch_first(self._build.source.batches())
            right = stack.enter_context(opened)
            held = stack.enter_context(self._run.acquire_working_memory("join"))
            whole = len(held.memory)
            row = row_bytes_max(whole, varies=any(side.varies for side in self._sides))
            # Joined rows, their batch, and packed rows, which in a merge join exist for both sides.
            #
            #     | the join | joined rows | left part | right part | packed rows, of one or both |
            #
            sizes = [2 * row, row, row, row, *([row] if merged else [])]
            sizes = [max(pair) for pair in zip(sizes, self._long_bytes, strict=True)]
            ends = [*accumulate(sizes, initial=whole - sum(sizes))]
            memory, block, *rooms = (
                stack.enter_context(held.memory[start:end])
                for start, end in zip([0, *ends], ends, strict=False)
            )
            joined, sides, packed = JoinOutput(block, block_bytes(whole)), rooms[:2], rooms[2:]
            blocks = (
                self._hash(right, memory, joined, *packed)
                if left is None
                else self._merge((left, right), memory, joined, packed)
            )
            with closing(blocks):
                for filled, _ in blocks:
                    yield from self._apart(block[:filled], sides)

    def _hash(
        self, build: Iterator[Any], memory: memoryview, joined: JoinOutput, packed: memoryview
    ) -> Generator[tuple[int, int]]:
        """Yield blocks of joined rows: one side is built, the other probes it."""
        join = self._open(memory)
        with self._run.working(join):
            if not join.is_built:
                for block in self._build.packed(build, packed, self._run):
                    join.add_build(block)
            join.finish_build()
            # Only now: the probe side's operators allocate when their first row comes.
            with closing(self._probe.source.batches()) as probe:
                if not join.is_probed:
                    for block in self._probe.packed(probe, packed, self._run):
                        yield from join.probe(block, joined)
            yield from join.finish(joined)

    def _merge(
        self,
        sides: tuple[Iterator[Any], Iterator[Any]],
        memory: memoryview,
        joined: JoinOutput,
        packed: Sequence[memoryview],
    ) -> Generator[tuple[int, int]]:
        """Yield blocks of joined rows of two sides that are sorted by the keys."""
        join = MergeJoin(memory, self._run.spill, _hashed(self._how), check=self._run.check)
        with self._run.working(join):
            yield from join.blocks(
                self._left.packed(sides[0], packed[0], self._run),
                self._right.packed(sides[1], packed[1], self._run),
                joined,
            )

    def _open(self, memory: memoryview) -> ExternalJoin | CrossJoin:
        run, choice = self._run, self._run.choice
        if self._how == "cross":
            return CrossJoin(memory, run.spill, ordered=choice.ordered, check=run.check)
        return ExternalJoin(
            memory,
            run.spill,
            _hashed(self._how),
            ordered=choice.ordered,
            build_left=choice.build_left,
            build_bytes=choice.build_bytes,
            row_bytes=self._row_bytes,
            check=run.check,
            journal=run.journal(),
        )

    def _apart(self, joined: memoryview, rooms: Sequence[memoryview]) -> Iterator[Any]:
        """Yield batches of a block of joined rows, each of as many rows as both buffers hold."""
        narrow = [room[:BLOCK_BYTES_MAX] for room in rooms]
        at = 0
        while at < len(joined):
            self._run.check()
            try:
                # Blocks of usual size first; all of the buffers only for a row that does not fit
                # one.
                at, parts = self._cut(joined, at, narrow)
            except ValueError:
                at, parts = self._cut(joined, at, rooms)  # a row longer than a block
            with self._batch_memory(sum(len(part) for part, _ in parts)):
                columns = [
                    side.columns(*part) for side, part in zip(self._sides, parts, strict=True)
                ]
                yield self._batch(*columns)
                del columns

    def _cut(
        self, joined: memoryview, at: int, rooms: Sequence[memoryview]
    ) -> tuple[int, list[tuple[memoryview, int]]]:
        """Copy joined rows from `at` on, split by side: (end of the copied rows, rows of sides)."""
        (one, other), (left, right) = rooms, self._sides
        # The left buffer may hold more rows than the right one, or fewer: cut at the smaller
        # number.
        end, filled, rows = join_side(joined, at, one, False, left.absent)
        stop, others, _ = join_side(joined[:end], at, other, True, right.absent)
        if stop < end:
            _, filled, rows = join_side(joined[:stop], at, one, False, left.absent)
        return stop, [(one[:filled], rows), (other[:others], rows)]

    def _batch_memory(self, batch_bytes: int) -> AbstractContextManager[object]:
        """Reserve memory for a batch that a long row makes larger than usual."""
        if batch_bytes <= _BATCH_BYTES_MAX:
            return nullcontext()
        budget = self._run.budget
        guard = budget.try_acquire(batch_bytes, "join")
        if guard is None:
            raise LongRow(
                cap_bytes=budget.free_bytes,
                needed_bytes=batch_bytes,
                because=f"a joined row needs {format_bytes(batch_bytes)}",
                memory="free",
            )
        return guard

    @property
    def _sides(self) -> tuple[JoinSide, JoinSide]:
        return self._left, self._right

    def _batch(self, left: list[Any], right: list[Any]) -> Any:
        columns, others = left, right
        kept = len(others) - len(self._shared)
        for name, other in zip(self._shared, others[kept:], strict=True):
            at = self._left.schema.names.index(name)
            columns[at] = pc.coalesce(columns[at], other)
        return pa.RecordBatch.from_arrays([*columns, *others[:kept]], schema=self._arrow_schema)


def _hashed(how: JoinKind) -> HashJoinKind:
    assert how != "cross", "a cross join has no keys"
    return how


def _in_order(pairs: list[Pair], names: Sequence[str]) -> list[Pair]:
    """Return pairs of keys, with their comparison types, in the order of the left names."""
    return sorted(pairs, key=lambda pair: names.index(pair[0][0])) if names else pairs
