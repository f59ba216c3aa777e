"""The steps of one plan, each begun when what it depends on is there.

    gathers, fragments ──▶ files ──▶ queries of this node ──▶ files ──▶ fragments that rows go along with ──▶ files

Steps that depend on nothing run at the same time. Queries of this node whose results are sent along run in an executor
before the last one, which then reads their results as it reads what has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.peers.queries.sent_rows import (
    NOTHING_SENT,
    SENT_BYTES_MAX,
    SentColumn,
    SentRows,
    SentTable,
)
from lake.peers.queries.step_dispatch import Coordinator, RowsNotSent, StepDispatch, StepResult
from lake.peers.sql import DistributedPlan, Fragment, Merge, Step
from lake.peers.sql.plan import computed_first
from lake.peers.transport.stop import Stop

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake.peers.queries.distributed_query import DistributedQuery
    from lake.peers.transport.limits import ByteLimit
    from lake.statements.deadline import Deadline

__all__ = ["PlanRun", "last_steps"]


@dataclass(frozen=True, slots=True)
class PlanRun:
    """Runs the steps of a plan.

    Args:
        coordinator: This node.
        pool: Its executors.
        plan: The plan.
        query: The query that it is of.
        absent: The object ids of shards that it leaves out.
        folder: For results.
        deadline: When the query is to be over.
        stop: Stops the query.
        limit: Of the bytes that the query receives.
    """

    coordinator: Coordinator
    pool: ExecutorPool
    plan: DistributedPlan
    query: DistributedQuery
    absent: frozenset[str]
    folder: Path
    deadline: Deadline
    stop: Stop
    limit: ByteLimit

    async def run(self) -> dict[str, StepResult]:
        """Run the steps; return their results by name, without those of queries that only the last one needs.

        Raises:
            RowsNotSent: Rows cannot be sent along with a fragment.
            SennitError: As of `StepDispatch.run`.
        """
        first = computed_first(self.plan.steps)
        steps = [s for s in self.plan.steps if not isinstance(s, Merge) or s.result in first]
        tasks: dict[str, asyncio.Task[StepResult]] = {}
        try:
            for step in steps:  # each after those that it reads
                needed = {name: tasks[name] for name in _inputs_of(step) if name in tasks}
                tasks[step.result] = asyncio.create_task(self._run(step, needed))
            results = await asyncio.gather(*tasks.values())
        except BaseException:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            raise
        return dict(zip(tasks, results, strict=True))

    async def _run(self, step: Step, needed: dict[str, asyncio.Task[StepResult]]) -> StepResult:
        if needed and self.query.runs:
            # Not `await task`, which would cancel a step that others wait for too.
            await asyncio.wait(needed.values())
        found = {name: task.result() for name, task in needed.items()} if self.query.runs else {}
        if isinstance(step, Merge):
            return await self._compute(step, found) if self.query.runs else StepResult([])
        sent = NOTHING_SENT
        if isinstance(step, Fragment) and step.broadcasts:
            sent = await asyncio.to_thread(self._sent, step, found)
        dispatch = StepDispatch(
            self.coordinator, step, self.query, self.folder, self.deadline, self.stop, self.limit,
            sent,
        )  # fmt: skip
        return await (dispatch.run() if self.query.runs else dispatch.assign())

    def _sent(self, step: Fragment, found: dict[str, StepResult]) -> SentRows:
        """Read what is sent along with a fragment."""
        snapshots = {table.name: table.snapshot for table in self.query.tables}
        names = dict.fromkeys(name for each in step.broadcasts for name in each.tables)
        origins = tuple((snapshots[name].dataset, snapshots[name].id) for name in names)
        tables: list[SentTable] = []
        parts: list[bytes] = []
        for each in step.broadcasts:
            # Files of steps that were planned and do not run have no rows.
            files = [Path(file) for file in found[each.result].files] if found else []
            sizes = tuple(file.stat().st_size for file in files)
            _check_size(sum(sizes) + sum(map(len, parts)))
            columns = tuple(SentColumn(column.name, column.type) for column in each.columns)
            tables.append(SentTable(each.result, columns, sizes))
            parts += [file.read_bytes() for file in files]
        return SentRows(tuple(tables), b"".join(parts), origins)

    async def _compute(self, step: Merge, found: dict[str, StepResult]) -> StepResult:
        """Run a query of this node in an executor; return its result as a file."""
        place = self.folder / f"{step.result}.arrow"
        stop = Stop()
        self.stop.attach(stop.stop)
        work = asyncio.create_task(asyncio.to_thread(self._write, step, found, place, stop))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.stop()
            # A thread is not cancelled: the folder is removed only when nothing writes to it any more.
            await asyncio.gather(work, return_exceptions=True)
            raise
        return StepResult([str(place)])

    def _request(self, step: Merge, found: dict[str, StepResult]) -> dict[str, Any]:
        # Tables of other results have to be there too: they decide the types of those that are read.
        nothing = StepResult([])
        steps = [
            {"result": s.result, "sql": s.sql, "files": found.get(s.result, nothing).files}
            for s in self.plan.steps[: self.plan.steps.index(step)]
        ]
        return {
            "engine": "merge",
            "finalSql": step.sql,
            "tables": self.query.here(self.plan, self.absent),  # reads files
            "steps": steps,
            "format": "arrow",
        }

    def _write(self, step: Merge, found: dict[str, StepResult], place: Path, stop: Stop) -> None:
        size = 0
        with (
            place.open("wb") as file,
            self.pool.submit(
                "lake.sql",
                self._request(step, found),
                user=self.query.user,
                deadline_seconds=self.deadline.left,
                restartable=True,
            ) as execution,
        ):
            stop.attach(execution.cancel)
            for payload in execution.payloads():
                size += len(payload)
                _check_size(size)
                file.write(payload)
            execution.result()


def last_steps(
    plan: DistributedPlan, results: Mapping[str, StepResult], *, counts_rows: bool
) -> list[dict[str, Any]]:
    """Return the steps of the last request `merge`.

    Args:
        plan: The plan.
        results: What `PlanRun.run` has returned.
        counts_rows: Whether all rows are needed; else only those that are read, as rows that went along with a
            fragment may be needed no more.
    """
    steps = {step.result: step for step in plan.steps}
    waiting, read = list(plan.reads), set[str]()
    while waiting:
        name = waiting.pop()
        if name in steps and name not in read:
            read.add(name)
            if name not in results:
                waiting += _inputs_of(steps[name])
    return [
        {
            "result": name,
            "sql": step.sql,
            "files": _files(results[name], counts_rows or name in read)
            if name in results
            else None,
        }
        for name, step in steps.items()
    ]


def _inputs_of(step: Step) -> tuple[str, ...]:
    """Return what a step reads apart from shards: results of other steps, and of a query also tables."""
    if isinstance(step, Fragment):
        return tuple(each.result for each in step.broadcasts)
    return step.reads if isinstance(step, Merge) else ()


def _files(result: StepResult, is_read: bool) -> list[str]:
    return result.files if is_read else []


def _check_size(size: int) -> None:
    if size > SENT_BYTES_MAX:
        raise RowsNotSent(
            f"{size} bytes of rows for other nodes", hint=f"at most {SENT_BYTES_MAX} are sent along"
        )
