"""Run a plan that no shards split on many workers: stages that partition rows by ranges of a key.

    parts of the input ─▶ keep: run the part, keep its rows ─▶ split: by ranges ─▶ parts of the output
         (files)            sample of the keys ─▶ ranges           (objects)          one for each range

The parts of a relation, one after the other, are its rows in their order. So the rows of the last parts,
written one after the other, are those of the plan as one worker would have computed them.

A join whose one side is small does not exchange the other one: the small side is sent to all workers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.backends import Report, TaskSpec
from elytra.backends.attempts import Run
from elytra.backends.ray.cluster import Cluster
from elytra.backends.ray.early_groups import early_groups
from elytra.backends.ray.files import InputFile
from elytra.backends.ray.part_runs import KeptRows, PartRuns
from elytra.backends.ray.partitions import POSITION, boundaries_of, ipc_of, keys_of
from elytra.backends.ray.shuffle_parts import (
    Part,
    combined,
    exchanged_schema,
    groups,
    in_position_order,
    input_bytes,
    over,
    with_key,
)
from elytra.backends.ray.shuffle_plan import (
    Exchange,
    exchange_of,
    is_decomposable,
    is_each_row,
    ordered_joins,
    pruned,
    sent_sides,
    with_one_position,
)
from emsqrt.expr import Expr, col, lit
from emsqrt.plan import (
    Aggregate,
    Files,
    Join,
    Limit,
    Plan,
    Scan,
    TopK,
    Union,
    check,
    inputs_of,
    walk,
    with_inputs,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from sennit_core.schema import Schema

__all__ = ["ShuffledAttempt"]

_PART_BYTES = 64 << 20
_PARTS_OF_WORKER = 2
"""Parts have more bytes than `_PART_BYTES` only if each worker has this many: a further part costs about
10 ms of CPU time, and one alone leaves workers idle at its end."""
_RANGE_BYTES = 32 << 20
_RANGES_MAX = 64
_EARLY_BYTES = 1 << 20
_EARLY_RATIO = 8
"""Rows are grouped before a join whose other side has files of at most this size, and this share of theirs."""
_ONE_RANGE_BYTES = 1 << 20
"""Rows below this size are one range: a further task costs more than it computes."""


class ShuffledAttempt:
    """An attempt at a task on all workers of a cluster.

    Args:
        cluster: The workers.
        worker: The one that the task was assigned to, which writes the result.
        task: The task.
        inputs: Its inputs.
        output: The file of its result.
    """

    def __init__(
        self,
        cluster: Cluster,
        worker: str,
        task: TaskSpec,
        inputs: Sequence[InputFile],
        output: Path,
    ) -> None:
        self._cluster, self._worker, self._task, self._output = cluster, worker, task, output
        self._inputs = {each.name: each for each in inputs}
        self._plan = pruned(task.plan)
        self._ordered = ordered_joins(self._plan)
        self._names = count(len(inputs))

    def run(self, run: Run, report: Report) -> dict[str, Any]:
        """Run the task; raises as `Attempt.run`."""
        task, output = self._task, self._output
        with PartRuns(self._cluster, self._worker, task, output, report) as self._runs:
            run.attach(self._runs)
            try:
                part = self._gathered(self._parts(self._plan))
            finally:
                run.detach()
            return self._runs.run_last(part, run)

    def _parts(self, plan: Plan) -> list[Part]:
        """Return the rows of a plan, in parts."""
        match plan:
            case Scan(source=Files(paths=paths) as source):
                return [
                    Part(replace(plan, source=replace(source, paths=group)), self._files(group))
                    for group in groups(paths, self._part_count(plan))
                ]
            case Union(inputs=united) if len({check(each).fingerprint() for each in united}) == 1:
                return [part for each in united for part in self._parts(each)]
            case Join():
                return self._joined(plan)
            case Aggregate(keys=keys, phase="full") if is_decomposable(plan, check(plan.input)):
                partial = self._early_states(plan)
                if partial is None:
                    partial = over(self._parts(plan.input), replace(plan, phase="partial"))
                final = replace(plan, phase="final")
                key = replace(final, keys=tuple((name, col(name)) for name, _ in keys))
                return self._by_ranges(final, key, partial)
        if is_each_row(plan):
            return over(self._parts(inputs_of(plan)[0]), plan)
        inputs = [self._parts(each) for each in inputs_of(plan)]
        if len(inputs) == 1:
            return self._by_ranges(plan, plan, inputs[0])
        return [combined(plan, [self._gathered(parts) for parts in inputs])]

    def _part_count(self, scan: Scan) -> int:
        return max(
            _PARTS_OF_WORKER * self._runs.worker_count, self._input_bytes(scan) // _PART_BYTES
        )

    def _by_ranges(self, plan: Plan, shape: Plan, parts: list[Part]) -> list[Part]:
        """Return the rows of an operator of one input, by ranges of its key, or gathered.

        Args:
            plan: The operator.
            shape: As it names its key.
            parts: Its input.
        """
        exchange = None
        if len(parts) > 1:
            exchange = exchange_of(with_inputs(shape, [parts[0].plan]))
        if exchange is not None:
            return over(self._exchange([self._keep(parts, exchange.keys[0])], exchange)[0], plan)
        if isinstance(plan, Limit | TopK):
            parts = over(parts, replace(plan, count=plan.count + plan.offset, offset=0))
        return [combined(plan, [self._gathered(parts)])]

    def _early_states(self, plan: Aggregate) -> list[Part] | None:
        """Return the states of a group-by over a join, of rows that are grouped before it; None if they are not."""
        early = early_groups(plan)
        if early is None:
            return None
        # By size alone, as states of rows with many different keys are as many rows again.
        small, large = self._input_bytes(early.join.right), self._input_bytes(early.partial.input)
        if small > _EARLY_BYTES or large < small * _EARLY_RATIO:
            return None
        right = self._gathered(self._parts(early.join.right))
        parts = self._parts(early.partial.input)
        return [
            Part(early.over(each.plan, right.plan), {**each.files, **right.files}, each.pieces)
            for each in parts
        ]

    def _input_bytes(self, plan: Plan) -> int:
        """Return the size of the files that a plan reads."""
        scans = [node.source for node in walk(plan) if isinstance(node, Scan)]
        names = [name for each in scans if isinstance(each, Files) for name in each.paths]
        return input_bytes([Part(plan, self._files(names))]) or 0

    # Joins

    def _joined(self, join: Join) -> list[Part]:
        sides = [self._parts(each) for each in inputs_of(join)]
        if max(map(len, sides)) == 1:
            return [combined(join, [left[0] for left in sides])]
        shape = with_inputs(join, [parts[0].plan for parts in sides])
        exchange = exchange_of(shape)
        is_ordered = id(join) in self._ordered
        limit = self._cluster.options.broadcast_bytes
        kept: dict[int, list[KeptRows]] = {}
        sent = self._small_side(sides, sent_sides(join, is_ordered=is_ordered))
        if sent is not None:
            kept[sent] = self._keep(sides[sent], exchange.keys[sent] if exchange else lit(0))
            if exchange is None or _bytes(kept[sent]) <= limit:
                return self._with_sent(join, sides, sent, kept[sent])
        if exchange is None:
            return [combined(join, [self._gathered(parts) for parts in sides])]
        found = [
            kept.get(side) or self._keep(parts, exchange.keys[side])
            for side, parts in enumerate(sides)
        ]
        return self._joined_by_ranges(join, shape, found, exchange, is_ordered=is_ordered)

    def _small_side(self, sides: Sequence[list[Part]], allowed: Sequence[int]) -> int | None:
        """Return which of the sides that may be sent to all workers has the smaller inputs; None without one."""
        sizes = {side: input_bytes(sides[side]) or 0 for side in allowed}
        return min(sizes, key=lambda side: (sizes[side], -side)) if sizes else None

    def _with_sent(
        self, join: Join, sides: Sequence[list[Part]], sent: int, kept: list[KeptRows]
    ) -> list[Part]:
        """Return a join of each part of one side with all rows of the other, which are objects."""
        whole = self._whole(kept)
        pairs = ([whole, part] if sent == 0 else [part, whole] for part in sides[1 - sent])
        return [combined(join, pair) for pair in pairs]

    def _joined_by_ranges(
        self,
        join: Join,
        shape: Plan,
        kept: list[list[KeptRows]],
        exchange: Exchange,
        *,
        is_ordered: bool,
    ) -> list[Part]:
        """Return a join of both sides by the same ranges, in the order of a join that reads all rows."""
        keeps_right = join.how in ("right", "full")
        positions = (is_ordered, is_ordered and keeps_right)
        left, right = self._exchange(kept, exchange, positions)
        parts = [combined(join, pair) for pair in zip(left, right, strict=True)]
        if not is_ordered:
            return parts
        # Back to the order of the left side; the matches of one row are in one part, in order. The
        # rows of the right side without a match come after all others, in the order of that side.
        if keeps_right:
            parts = [part.with_plan(with_one_position(part.plan, join)) for part in parts]
        by_position = Exchange((col(POSITION),))
        (sorted_parts,) = self._exchange([self._keep(parts, col(POSITION))], by_position)
        return [in_position_order(part, check(shape).names) for part in sorted_parts]

    # Exchanges

    def _keep(self, parts: Sequence[Part], key: Expr) -> list[KeptRows]:
        return self._runs.each(self._runs.keep, [with_key(part, key) for part in parts])

    def _exchange(
        self,
        inputs: Sequence[Sequence[KeptRows]],
        exchange: Exchange,
        positions: Sequence[bool] = (False, False),
    ) -> list[list[Part]]:
        """Return the rows of each input, in parts by common ranges of keys.

        Args:
            inputs: The rows of the inputs.
            exchange: How they are sorted.
            positions: For each input, whether its rows get a position.
        """
        kept = [rows for each in inputs for rows in each]
        boundaries = boundaries_of([keys_of(rows.sample) for rows in kept], self._ranges(kept))
        stages = [
            (rows, at if has_position else None)
            for each, has_position in zip(inputs, positions, strict=False)
            for at, rows in enumerate(each)
        ]
        split_rows = iter(self._split([*stages], boundaries, exchange))
        result = []
        for each, has_position in zip(inputs, positions, strict=False):
            pieces = [next(split_rows) for _ in each]
            schema = exchanged_schema(check(each[0].part.plan), position=has_position)
            result.append(
                [
                    self._read(schema, [of_part[index] for of_part in pieces])
                    for index in range(len(boundaries) + 1)
                ]
            )
        return result

    def _split(
        self,
        stages: Sequence[tuple[KeptRows, int | None]],
        boundaries: pa.Array[Any],
        exchange: Exchange,
    ) -> list[list[list[Any]]]:
        """Return the pieces of kept rows by ranges; for each the position of the first row, if rows get one."""

        def split(stage: tuple[KeptRows, int | None]) -> list[list[Any]]:
            rows, position = stage
            options = {
                "descending": exchange.descending,
                "nullsFirst": exchange.nulls_first,
                "position": position,
            }
            return self._runs.split(rows, ipc_of(boundaries), json.dumps(options))

        return self._runs.each(split, stages)

    def _whole(self, kept: Sequence[KeptRows]) -> Part:
        """Return kept rows as one part, whose objects each worker reads."""
        none = keys_of(kept[0].sample).slice(0, 0)
        pieces = self._split([(rows, None) for rows in kept], none, Exchange(()))
        schema = exchanged_schema(check(kept[0].part.plan), position=False)
        return self._read(schema, [of_part[0] for of_part in pieces])

    def _read(self, schema: Schema, pieces: Sequence[list[Any]]) -> Part:
        return Part.of_pieces(schema, {self._name(): each for each in pieces})

    def _ranges(self, kept: Sequence[KeptRows]) -> int:
        total = _bytes(kept)
        if total <= min(_ONE_RANGE_BYTES, self._cluster.options.shuffle_bytes):
            return 1
        return min(max(-(-total // _RANGE_BYTES), self._runs.worker_count, 2), _RANGES_MAX)

    # Files

    def _gathered(self, parts: Sequence[Part]) -> Part:
        """Return a relation as one part, over files of this machine."""
        if len(parts) == 1:
            return parts[0]
        plans = tuple(part.plan for part in parts)
        if all(isinstance(plan, Scan) for plan in plans) and not any(p.pieces for p in parts):
            return combined(Union(plans), parts)
        named = [(part, self._name()) for part in parts]
        files = self._runs.each(lambda each: self._runs.write(*each), named)
        return Part.of_files(check(parts[0].plan), files)

    def _files(self, names: Sequence[str]) -> dict[str, InputFile]:
        return {name: self._inputs[name] for name in names}

    def _name(self) -> str:
        return f"partial-{next(self._names)}"


def _bytes(kept: Sequence[KeptRows]) -> int:
    return sum(rows.bytes for rows in kept)
