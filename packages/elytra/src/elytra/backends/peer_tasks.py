"""Run tasks of other nodes' jobs: the other end of `elytra.backends.peers`.

A task arrives as text that anyone may have written. It is read by `TaskSpec.from_json`, may read only the shards that
the network has granted, may hold only operators that touch nothing else, and runs as the tasks of this node do: verified shards,
an executor under its cap, a deadline. The user's quota counts, and the node's admins see it in the list of statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.backends.task_spec import TaskSpec, bound_plan
from elytra.service.work import SHARDS_ENTRY
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Expect,
    Explode,
    Files,
    Filter,
    Join,
    Limit,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sort,
    TopK,
    Union,
    Window,
    WithColumn,
    check,
    plan_to_json,
    walk,
)
from lake.objects.verification import ShardFile
from lake.peers.jobs.messages import TaskDone
from lake.peers.jobs.server import TaskCall, cut_pieces
from lake.statements.queries import QueryExecution
from sennit_core.errors import Corrupt, NotFound, Unsupported, UsageError

if TYPE_CHECKING:
    from emsqrt.executor import Execution
    from lake import Lake
    from lake.peers.transport.session import Piece
    from lake.peers.transport.stop import Stop
    from lake.statements.running import RunningStatement
    from sennit_core.records import Progress

__all__ = ["PeerTasks"]

_OPERATORS = (
    *(Scan, Filter, Project, Rename, WithColumn, Explode, Aggregate, Sort, TopK, Limit, Distinct),
    *(Join, Union, Window, Sample, Expect),
)
"""Operators whose result follows from their input alone: none runs code or writes."""
_FORMAT = "parquet"
_REPORTED = ("rowsIn", "peakBytes", "capBytes", "spilledBytes")


class PeerTasks:
    """Runs tasks over shards of a lake; see `lake.peers.jobs.server.TaskRunner`.

    Args:
        lake: The lake, with its executors.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def run(
        self, call: TaskCall, stop: Stop, progressed: Callable[[Progress], object]
    ) -> Iterator[Piece]:
        """Yield the pieces of the answer.

        Raises:
            UsageError: The task is not one, or reads something else than it was granted.
            Unsupported: It has an operator that does not run for other nodes.
            NotFound: A shard is not here any more.
            Busy: The executors, or the user's quota, are used up.
            SennitError: The error of the task.
        """
        task = _validated(call)
        with ExitStack() as held:
            shards, names = self._hold(call, held)

            def begin(statement: RunningStatement) -> QueryExecution:
                return self._begin(task, call, shards, names, statement, progressed)

            text = f"a task of a pipeline over {', '.join(sorted(names))}"
            shown = replace(call.user, name=call.shown_as)
            with self._lake.running.start(text, shown, "emsqrt", begin) as statement:
                stop.attach(statement.cancel)
                try:
                    for payload in statement.payloads():
                        yield from cut_pieces(payload)
                    yield _done(call, statement.result()), b""
                except Corrupt as damage:
                    # Another holder answers; replication fetches an intact copy for the next task.
                    self._lake.catalog.note_damage(names, damage)
                    raise

    def _hold(self, call: TaskCall, held: ExitStack) -> tuple[dict[str, ShardFile], dict[str, str]]:
        """Lease the shards; return their files by object id, and the ids of their datasets by name."""
        objects = [name for names in call.shards.values() for name in names]
        lease = self._lake.retention.acquire(objects)
        held.callback(self._lake.retention.release, lease)
        files: dict[str, ShardFile] = {}
        found: dict[str, str] = {}
        for dataset, names in call.shards.items():
            info = self._lake.catalog.get(dataset)
            found[info.name] = dataset
            for index, name in enumerate(names):
                if name not in self._lake.objects:  # after the lease: what is here now stays
                    raise NotFound("shard of a task", name[:16], suggestion=None)
                place = str(self._lake.objects.place(name))
                files[name] = ShardFile(info.name, index, place, self._lake.verify_always)
        return files, found

    def _begin(
        self,
        task: TaskSpec,
        call: TaskCall,
        shards: Mapping[str, ShardFile],
        names: Mapping[str, str],
        statement: RunningStatement,
        progressed: Callable[[Progress], object],
    ) -> QueryExecution:
        infos = [self._lake.catalog.get(dataset) for dataset in names.values()]
        # Any version of them may have the shards, so the audit log names none.
        statement.datasets = {f"shards of {dataset}": dataset for dataset in names.values()}
        statement.owners = {info.owner for info in infos if info.node is None}
        paths = {each.name: shards[each.id].path for each in task.inputs}
        plan = bound_plan(replace(task, output="arrow"), paths.__getitem__, Path())
        request = {
            "plan": plan_to_json(plan),
            "shards": [shard.to_json() for shard in shards.values()],
            "sources": [],
        }
        caps = [task.limits.mem_cap_bytes, statement.memory_bytes or None]

        def submit(_step: str, _members: dict[str, Any]) -> Execution:
            return self._lake.pool.submit(
                SHARDS_ENTRY,
                request,
                mem_cap_bytes=min((each for each in caps if each), default=None),
                deadline_seconds=call.seconds,
                on_progress=progressed,
                user=call.shown_as,
                restartable=True,
            )

        return _Execution(submit, "duckdb", lambda: None, deadline_seconds=call.seconds)


class _Execution(QueryExecution):
    """One execution of a plan, in the list of statements."""

    @property
    def engine(self) -> str:
        """The engine in use."""
        return "emsqrt"

    def _report(self, answer: dict[str, Any]) -> dict[str, Any]:
        # Its `inputs` are files; those of a query, for the audit log, are snapshots.
        found = {name: int(answer.get(name) or 0) for name in _REPORTED}
        return {**found, "rows": int(answer.get("rowsOut") or 0)}


def _validated(call: TaskCall) -> TaskSpec:
    """Return a task that reads what was granted, all of it, and has only operators that may run."""
    task = TaskSpec.from_json(call.text)
    granted = {name for names in call.shards.values() for name in names}
    if any(each.kind != "shard" for each in task.inputs):
        raise UsageError("a task of another node reads more than shards")
    if {each.id for each in task.inputs} != granted:
        raise UsageError("a task of another node reads other shards than its request names")
    for node in walk(task.plan):
        _check_node(node)
    check(task.plan)  # before an executor is taken
    return task


def _check_node(node: Plan) -> None:
    if not isinstance(node, _OPERATORS):
        name = type(node).__name__
        raise Unsupported(f"the operator {name} does not run for other nodes")
    if isinstance(node, Scan) and isinstance(node.source, Files) and node.source.format != _FORMAT:
        raise UsageError(f"a shard is read as {node.source.format}, and not as {_FORMAT}")


def _done(call: TaskCall, report: Mapping[str, Any]) -> TaskDone:
    return TaskDone(call.attempt, *(report[name] for name in _REPORTED))
