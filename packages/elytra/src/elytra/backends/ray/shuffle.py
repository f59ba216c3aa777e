"""Run a plan that no shards split on many workers: stages that partition rows by ranges of a key.

    parts of the input ─▶ spool: run the part, keep its rows ─▶ split: by ranges ─▶ parts of the output
         (files)            sample of the keys ─▶ ranges           (objects)          one for each range

The parts of a relation, one after the other, are its rows in their order. So the rows of the last parts,
written one after the other, are those of the plan as one worker would have computed them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from elytra.backends import Report, TaskInput, TaskSpec
from elytra.backends.attempts import Run, WorkerGone
from elytra.backends.ray.attempt import Attempt
from elytra.backends.ray.cluster import Cluster
from elytra.backends.ray.files import InputFile
from elytra.backends.ray.partitions import KEY, POSITION, boundaries_of, ipc_of, keys_of
from elytra.backends.ray.shuffle_plan import (
    EACH_ROW,
    Exchange,
    exchange_of,
    is_decomposable,
    ordered_joins,
)
from emsqrt.expr import Expr, col
from emsqrt.plan import (
    Aggregate,
    Files,
    Join,
    Limit,
    Plan,
    Project,
    Scan,
    Sort,
    SortKey,
    TopK,
    Union,
    WithColumn,
    check,
    inputs_of,
    with_inputs,
)
from sennit_core.errors import Unavailable
from sennit_core.records import Progress
from sennit_core.schema import Schema

__all__ = ["ShuffledAttempt"]

_T = TypeVar("_T")
_TRIES = 3
_RANGE_BYTES = 32 << 20
_RANGES_MAX = 64


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a relation.

    Args:
        plan: What computes them, over inputs by name.
        files: Those that are files.
        pieces: Those in the object store.
    """

    plan: Plan
    files: Mapping[str, InputFile] = field(default_factory=dict)
    pieces: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def with_plan(self, plan: Plan) -> _Part:
        return replace(self, plan=plan)


class _Runs:
    """The tasks of an attempt that run at the moment, which are cancelled together."""

    def __init__(self) -> None:
        self.each: list[Run] = []

    def cancel(self) -> None:
        """Cancel them."""
        for run in self.each:
            run.stop()


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
        self._specs = {each.name: each for each in task.inputs}
        self._ordered = ordered_joins(task.plan)
        self._names = count(len(inputs))
        self._tasks = count(1)
        self._ended = count(1)
        self._placed = count()
        self._runs = _Runs()
        self._temporary: list[Path] = []

    def run(self, run: Run, report: Report) -> dict[str, Any]:
        """Run the task; raises as `Attempt.run`."""
        workers = max(1, len(self._cluster.joined(self._worker)))
        run.attach(self._runs)
        try:
            with ThreadPoolExecutor(workers, thread_name_prefix="elytra-shuffle") as threads:
                self._threads, self._report = threads, report
                part = self._gathered(self._parts(self._task.plan))
            run.detach()
            task = self._spec(self._task.id, part)
            last = Attempt(
                self._cluster, self._worker, task, [*part.files.values()], self._output, part.pieces
            )
            return last.run(run, report)
        finally:
            run.detach()
            for path in self._temporary:
                path.unlink(missing_ok=True)

    def _parts(self, plan: Plan) -> list[_Part]:
        """Return the rows of a plan, in parts."""
        match plan:
            case Scan(source=Files(paths=paths) as source):
                return [
                    _Part(replace(plan, source=replace(source, paths=group)), self._files(group))
                    for group in _groups(paths)
                ]
            case Union(inputs=united) if len({check(each).fingerprint() for each in united}) == 1:
                return [part for each in united for part in self._parts(each)]
            case Join():
                return self._joined(plan)
            case Aggregate(keys=keys, phase="full") if is_decomposable(plan, check(plan.input)):
                partial = _over(self._parts(plan.input), replace(plan, phase="partial"))
                final = replace(plan, phase="final")
                key = replace(final, keys=tuple((name, col(name)) for name, _ in keys))
                return self._by_ranges(final, key, [partial])
        inputs = [self._parts(each) for each in inputs_of(plan)]
        if isinstance(plan, EACH_ROW):
            return _over(inputs[0], plan)
        return self._by_ranges(plan, plan, inputs)

    def _by_ranges(self, plan: Plan, shape: Plan, inputs: list[list[_Part]]) -> list[_Part]:
        """Return the rows of an operator over parts, by ranges of its key, or gathered.

        Args:
            plan: The operator.
            shape: As it names its key.
            inputs: The parts of its inputs.
        """
        exchange = None
        if max(map(len, inputs)) > 1:
            exchange = exchange_of(with_inputs(shape, [parts[0].plan for parts in inputs]))
        if exchange is None:
            if isinstance(plan, Limit | TopK):
                few = replace(plan, count=plan.count + plan.offset, offset=0)
                inputs = [_over(inputs[0], few)]
            return [_combined(plan, [self._gathered(parts) for parts in inputs])]
        exchanged = self._exchange(inputs, exchange)
        return [_combined(plan, parts) for parts in zip(*exchanged, strict=True)]

    def _joined(self, join: Join) -> list[_Part]:
        inputs = [self._parts(each) for each in inputs_of(join)]
        shape = with_inputs(join, [parts[0].plan for parts in inputs])
        exchange = exchange_of(shape) if max(map(len, inputs)) > 1 else None
        if exchange is None:
            return self._by_ranges(join, join, inputs)
        is_ordered = id(join) in self._ordered
        left, right = self._exchange(inputs, exchange, position=is_ordered)
        parts = [_combined(join, pair) for pair in zip(left, right, strict=True)]
        if not is_ordered:
            return parts
        # Back to the order of the left side; the matches of one row are in one part, in order.
        names = check(shape).names
        by_position = Exchange((col(POSITION),))
        (sorted_parts,) = self._exchange([parts], by_position)
        return [
            part.with_plan(
                Project(
                    Sort(part.plan, (SortKey(col(POSITION)),)),
                    tuple((name, col(name)) for name in names),
                )
            )
            for part in sorted_parts
        ]

    def _exchange(
        self, inputs: list[list[_Part]], exchange: Exchange, *, position: bool = False
    ) -> list[list[_Part]]:
        """Return the rows of each input, in parts by common ranges of keys.

        Args:
            inputs: The parts of the inputs.
            exchange: Their keys.
            position: Whether the rows of the first one get a position.
        """
        stages = [
            (side, at, _with_key(part, exchange.keys[side]))
            for side, parts in enumerate(inputs)
            for at, part in enumerate(parts)
        ]
        kept = self._each(lambda stage: self._spooled(stage[2]), stages)
        total = sum(size for _, _, size in kept)
        workers = len(self._cluster.joined(self._worker))
        ranges = min(max(-(-total // _RANGE_BYTES), workers, 2), _RANGES_MAX)
        boundaries = boundaries_of([keys_of(sample) for _, sample, _ in kept], ranges)

        def split(numbered: tuple[int, tuple[int, int, _Part]]) -> list[list[Any]]:
            index, (side, at, part) = numbered
            options = {
                "descending": exchange.descending,
                "nullsFirst": exchange.nulls_first,
                "position": at if position and side == 0 else None,
            }
            return self._split(kept[index][0], part, ipc_of(boundaries), json.dumps(options))

        split_rows = self._each(split, list(enumerate(stages)))
        result = []
        for side, parts in enumerate(inputs):
            schema = _exchanged_schema(check(parts[0].plan), position=position and side == 0)
            mine = [rows for (of, _, _), rows in zip(stages, split_rows, strict=True) if of == side]
            result.append(
                [
                    self._read(schema, [rows[index] for rows in mine])
                    for index in range(len(boundaries) + 1)
                ]
            )
        return result

    def _read(self, schema: Schema, pieces: list[list[Any]]) -> _Part:
        names = [self._name() for _ in pieces]
        scan = Scan(Files(tuple(names), "arrow"), schema)
        return _Part(scan, {}, dict(zip(names, pieces, strict=True)))

    def _spooled(self, part: _Part) -> tuple[Attempt, bytes, int]:
        """Run a part at any worker, which keeps its rows; return a sample of the keys, and the bytes."""

        def spool(attempt: Attempt, run: Run) -> tuple[Attempt, bytes, int]:
            return attempt, *attempt.spool(run, _Quiet())

        return self._somewhere(part, spool)

    def _split(self, attempt: Attempt, part: _Part, ranges: bytes, options: str) -> list[list[Any]]:
        for _ in range(_TRIES):
            try:
                found = attempt.split(ranges, options)
            except WorkerGone:  # and the rows with it
                attempt, _, _ = self._spooled(part)
            else:
                self._progress()
                return found
        raise Unavailable("Ray (workers were lost in each of three tries)")

    def _gathered(self, parts: list[_Part]) -> _Part:
        """Return a relation as one part, over files of this machine."""
        if len(parts) == 1:
            return parts[0]
        if all(isinstance(part.plan, Scan) and not part.pieces for part in parts):
            plans = [part.plan for part in parts]
            return _combined(Union(tuple(plans)), parts)
        schema = check(parts[0].plan)
        files = self._each(self._file, parts)
        return _Part(
            Scan(Files(tuple(each.name for each in files), "arrow"), schema),
            {each.name: each for each in files},
        )

    def _file(self, part: _Part) -> InputFile:
        name = self._name()
        path = self._output.with_name(f".{self._task.id}-{name}.arrow")
        self._temporary.append(path)

        def write(attempt: Attempt, run: Run) -> None:
            replace(attempt, output=path).run(run, _Quiet())

        self._somewhere(part, write)
        self._progress()
        return InputFile(name, str(path), path.stat().st_size, None)

    def _somewhere(self, part: _Part, do: Callable[[Attempt, Run], _T]) -> _T:
        """Run a part at any worker, and at another one if that is lost."""
        for _ in range(_TRIES):
            workers = self._cluster.joined(self._worker)
            if not workers:
                break
            worker = workers[next(self._placed) % len(workers)]
            task = self._spec(f"{self._task.id}-{next(self._tasks)}", part)
            task = replace(
                task,
                output="arrow",
                copy_bytes_max=0,
                limits=replace(task.limits, output_bytes_max=None),
            )
            attempt = Attempt(
                self._cluster, worker, task, [*part.files.values()], self._output, part.pieces
            )
            with self._running() as run:
                try:
                    return do(attempt, run)
                except WorkerGone:
                    continue
        raise Unavailable("Ray (workers were lost in each of three tries)")

    @contextmanager
    def _running(self) -> Iterator[Run]:
        run = Run()
        self._runs.each.append(run)
        try:
            yield run
        finally:
            self._runs.each.remove(run)

    def _spec(self, task_id: str, part: _Part) -> TaskSpec:
        inputs = [
            self._specs.get(name) or TaskInput(name, "partial", name)
            for name in (*part.files, *part.pieces)
        ]
        return replace(self._task, id=task_id, plan=part.plan, inputs=tuple(inputs))

    def _each(self, do: Callable[[Any], _T], items: Sequence[Any]) -> list[_T]:
        futures = [self._threads.submit(do, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            self._runs.cancel()
            raise

    def _progress(self) -> None:
        self._report.progressed(Progress(rows=next(self._ended), phase="shuffle"))

    def _files(self, names: Sequence[str]) -> dict[str, InputFile]:
        return {name: self._inputs[name] for name in names}

    def _name(self) -> str:
        return f"partial-{next(self._names)}"


class _Quiet:
    """A report of a part, whose end its caller sees."""

    def started(self) -> None:
        pass

    def progressed(self, progress: Progress) -> None:
        pass

    def finished(self, result: dict[str, Any]) -> None:
        pass

    def failed(self, error: dict[str, Any], *, retryable: bool) -> None:
        pass


def _groups(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the files of a scan in groups, in order."""
    size = max(1, -(-len(paths) // _RANGES_MAX))
    return [tuple(paths[start : start + size]) for start in range(0, len(paths), size)]


def _over(parts: Sequence[_Part], node: Plan) -> list[_Part]:
    return [part.with_plan(with_inputs(node, [part.plan])) for part in parts]


def _combined(node: Plan, parts: Sequence[_Part]) -> _Part:
    files = {name: file for part in parts for name, file in part.files.items()}
    pieces = {name: each for part in parts for name, each in part.pieces.items()}
    return _Part(with_inputs(node, [part.plan for part in parts]), files, pieces)


def _with_key(part: _Part, key: Expr) -> _Part:
    return part.with_plan(WithColumn(part.plan, ((KEY, key),)))


def _exchanged_schema(schema: Schema, *, position: bool) -> Schema:
    if not position:
        return schema
    from sennit_core.schema import DataType, Field

    return Schema((*schema.fields, Field(POSITION, DataType.parse("Int64"))))
