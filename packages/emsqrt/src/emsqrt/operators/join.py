"""Joins: both sides are packed as rows, joined in C, and taken apart into batches again."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emsqrt._kernel import KeySpec, join_side, pack_join_rows
from emsqrt.expr import Column, Expr
from emsqrt.expr.evaluate import Evaluator
from emsqrt.external.cross import CrossJoin
from emsqrt.external.join import ExternalJoin
from emsqrt.external.joined import HashJoinKind
from emsqrt.external.merge_join import MergeJoin
from emsqrt.metering import begun
from emsqrt.operators.nested import carried_kinds, to_columns, unpack_batch
from emsqrt.operators.operator import Operator
from emsqrt.plan.joining import join_key_types, join_schema, shared_keys
from emsqrt.plan.nodes import Join, JoinKind
from emsqrt.run import Run
from sennit_core.errors import CapTooSmall
from sennit_core.schema import DataType, Field, Schema

BLOCK_BYTES_MAX = 1 << 18
_BLOCKS_SHARE = 16
_BLOCKS = 5  # packed rows of either side, joined rows, and these taken apart: left and right
_FIELD_BYTES = (1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 16, 4, 4)  # of each kind, as pack.h has them
_KEEPS_RIGHT = ("right", "full")

Pair = tuple[tuple[str, str], DataType]


class JoinRows:
    """Rows of two inputs put together, in the order that `Join` promises."""

    def __init__(self, node: Join, inputs: Sequence[Operator], run: Run) -> None:
        """Type the keys over both inputs' rows."""
        left, right = inputs
        self.schema = join_schema(node, left.schema, right.schema)
        self._run = run
        self._how = node.how
        types = join_key_types(node, left.schema, right.schema)
        shared = dict(zip((one for one, _ in node.on), types, strict=True))
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
        run.expect_holder()

    def batches(self) -> Generator[Any]:
        """Yield the joined rows."""
        merged = self._run.choice.merge
        with ExitStack() as stack:
            # Who merges has both inputs come at once; who hashes has the probing one come later.
            left = stack.enter_context(begun(self._probe.source.batches())) if merged else None
            opened = self._run.begun(self._build.source.batches())
            right = stack.enter_context(opened)
            held = stack.enter_context(self._run.take_working_memory("join"))
            size = min(BLOCK_BYTES_MAX, len(held.memory) // _BLOCKS_SHARE)
            cut = len(held.memory) - _BLOCKS * size
            starts = [cut + size * number for number in range(_BLOCKS)]
            memory, *rooms = (
                stack.enter_context(held.memory[start:end])
                for start, end in zip([0, *starts], [*starts, None], strict=True)
            )
            joined, *sides = rooms[2:]
            blocks = (
                self._hash(right, memory, rooms)
                if left is None
                else self._merge(left, right, memory, rooms)
            )
            with closing(blocks):
                for filled, _ in blocks:
                    yield from self._apart(joined[:filled], sides)

    def _hash(
        self, build: Iterator[Any], memory: memoryview, rooms: Sequence[memoryview]
    ) -> Generator[tuple[int, int]]:
        """Yield blocks of joined rows: one side is built, the other one probes."""
        packed, _, joined, *_ = rooms
        join = self._open(memory)
        with self._run.working(join):
            if not join.is_built:
                for block in self._build.packed(build, packed, self._run):
                    join.add_build(block)
            join.finish_build()
            with closing(self._probe.source.batches()) as probe:
                if not join.is_probed:
                    for block in self._probe.packed(probe, packed, self._run):
                        yield from join.probe(block, joined)
            yield from join.finish(joined)

    def _merge(
        self,
        left: Iterator[Any],
        right: Iterator[Any],
        memory: memoryview,
        rooms: Sequence[memoryview],
    ) -> Generator[tuple[int, int]]:
        """Yield blocks of joined rows of two sides that are sorted by the keys."""
        join = MergeJoin(memory, self._run.spill, _hashed(self._how), check=self._run.check)
        with self._run.working(join):
            yield from join.blocks(
                self._left.packed(left, rooms[0], self._run),
                self._right.packed(right, rooms[1], self._run),
                rooms[2],
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
            check=run.check,
            journal=run.journal(),
        )

    def _apart(self, joined: memoryview, rooms: Sequence[memoryview]) -> Iterator[Any]:
        """Yield batches of a block of joined rows; as many rows at a time as both rooms hold."""
        at = 0
        while at < len(joined):
            self._run.check()
            ends = [
                join_side(joined, at, room, bool(is_right), side.absent)[0]
                for is_right, (room, side) in enumerate(zip(rooms, self._sides, strict=True))
            ]
            with joined[: min(ends)] as some:
                columns = [
                    self._columns(some, at, room, bool(is_right))
                    for is_right, room in enumerate(rooms)
                ]
            at = min(ends)
            yield self._batch(*columns)

    @property
    def _sides(self) -> tuple[JoinSide, JoinSide]:
        return self._left, self._right

    def _columns(self, joined: memoryview, at: int, room: memoryview, is_right: bool) -> list[Any]:
        side = self._sides[is_right]
        _, filled, rows = join_side(joined, at, room, is_right, side.absent)
        if not side.fields:
            return []
        with room[:filled] as block:
            return list(unpack_batch(block, rows, side.schema, side.arrow_schema).columns)

    def _batch(self, left: list[Any], right: list[Any]) -> Any:
        columns, others = left, right
        kept = len(others) - len(self._shared)
        for name, other in zip(self._shared, others[kept:], strict=True):
            at = self._left.schema.names.index(name)
            columns[at] = pc.coalesce(columns[at], other)
        return pa.RecordBatch.from_arrays([*columns, *others[:kept]], schema=self.schema.to_arrow())


class JoinSide:
    """One input of a join: what is packed of its rows, and by which keys.

    Args:
        source: the input.
        fields: the columns that come out of the join, in the types that they have there.
        keys: the names of the key columns.
        types: what the two sides are compared as.
    """

    def __init__(
        self,
        source: Operator,
        fields: Sequence[Field],
        keys: Sequence[str],
        types: Sequence[DataType],
    ) -> None:
        self.source = source
        self.fields = tuple(fields)
        self.schema = Schema(self.fields)
        self.arrow_schema = self.schema.to_arrow()
        kinds = carried_kinds(self.schema)
        self.absent = _absent(kinds)
        self._key_fields = [Field(f"key{at}", kind) for at, kind in enumerate(types)]
        schema = source.schema
        self._columns = [
            *(Evaluator(_cast(field.name, field.type, schema), schema) for field in self.fields),
            # A value that the common type cannot hold equals nothing, as NULL does.
            *(
                Evaluator(_cast(name, kind, schema, strict=False), schema)
                for name, kind in zip(keys, types, strict=True)
            ),
        ]
        self._spec = KeySpec([(len(kinds) + at, False, False) for at in range(len(keys))])
        self._payload = tuple(range(len(kinds)))

    def packed(self, batches: Iterator[Any], room: memoryview, run: Run) -> Iterator[memoryview]:
        """Yield blocks of packed rows of the source's batches.

        Raises:
            CapTooSmall: a row is longer than `room`.
        """
        fields = [*self.fields, *self._key_fields]
        for batch in batches:
            run.check()
            arrays = [column(batch) for column in self._columns]
            columns = to_columns(arrays, fields, batch.num_rows)
            del batch, arrays
            start = 0
            while start < len(columns):
                try:
                    filled, rows = pack_join_rows(columns, self._spec, self._payload, start, room)
                except ValueError as error:
                    raise CapTooSmall(
                        cap_bytes=len(room) * _BLOCKS_SHARE,
                        needed_bytes=len(room) * _BLOCKS_SHARE * 2,
                        because=f"row {start} of a batch to be joined: {error}",
                    ) from error
                start += rows
                yield room[:filled]
            del columns


def _hashed(how: JoinKind) -> HashJoinKind:
    assert how != "cross", "it has no keys"
    return how


def _in_order(pairs: list[Pair], names: Sequence[str]) -> list[Pair]:
    """Return pairs of keys, and what they are compared as, in the order of the left names."""
    return sorted(pairs, key=lambda pair: names.index(pair[0][0])) if names else pairs


def _cast(name: str, kind: DataType, schema: Schema, *, strict: bool = True) -> Expr:
    column = Column(name)
    if schema.field(name).type == kind:
        return column
    return column.cast(kind) if strict else column.try_cast(kind)


def _absent(kinds: Sequence[int]) -> bytes:
    """Return a packed row of nulls."""
    nulls = ((1 << len(kinds)) - 1).to_bytes((len(kinds) + 7) // 8, "little")
    return nulls + bytes(sum(_FIELD_BYTES[kind] for kind in kinds))
