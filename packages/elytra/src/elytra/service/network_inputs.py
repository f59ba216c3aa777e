"""The inputs of a job that other nodes hold: which engine moves less, where tasks run, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elytra.backends import NODE_ENGINE
from elytra.backends.peers import PeersBackend
from elytra.service.plan_inputs import PlanInputs
from elytra.service.work import Shard
from elytra.splitter import Cut, Part, Split, split
from emsqrt.plan import Aggregate, DatasetRef, Distinct, Explode, Filter, Limit, Plan, Sample, TopK
from emsqrt.planner.selectivity import selectivity
from emsqrt.planner.statistics import typical_bytes
from lake.distributed.network_jobs import Assigned, TaskShardsInfo
from lake.distributed.partial import MissingShards, ShardsUnavailable, missing_report
from sennit_core.ids import task_key

if TYPE_CHECKING:
    from lake import Lake
    from lake.distributed.network_jobs import NetworkJobs

__all__ = ["NetworkInputs", "partial_bytes"]

_DISTINCT_MIN = 200
"""Groups of keys of which nothing is known: PostgreSQL's guess, or the square root of the rows if that is more.
As `lake.peers.sql.estimates`."""
_ALONE = Assigned({}, {}, {}, "")
_ITEMS = 4
"""Items of a list of which nothing is known."""


@dataclass
class NetworkInputs:
    """The inputs of one plan, as the node's network has them.

    Args:
        lake: The node's lake.
        inputs: What the plan reads.
        missing: What is left out of them.
    """

    lake: Lake
    inputs: PlanInputs
    missing: tuple[MissingShards, ...] = field(default=())

    def choose(self, engine: str, plan: Plan) -> str:
        """Return the engine of a job: the requested one, or for "auto" the one that moves fewer bytes.

        Args:
            engine: As it was requested.
            plan: The bound plan.
        """
        if engine != "auto":
            return engine
        elsewhere = self._elsewhere()
        if not elsewhere or self._jobs is None or self.inputs.needs_whole:
            return NODE_ENGINE
        cut = split(plan, self.inputs.schemas.__getitem__, rules=self.inputs.rules)
        if not isinstance(cut, Split) or any(part.others for part in cut.parts):
            return NODE_ENGINE  # its result is made of all rows in one place, or needs all of some
        objects = {shard.info.object for shard in elsewhere}
        moved = sum(
            partial_bytes(cut, part, shard.info.rows)
            for part, shard in cut.tasks(self.inputs.shards)
            if shard.info.object in objects
        )
        stored = sum(shard.info.bytes for shard in elsewhere)
        return PeersBackend.name if moved < stored else NODE_ENGINE

    def check_available(self, *, allow_partial: bool) -> None:
        """Leave out the shards that no node has which can be reached, if that is allowed.

        Raises:
            ShardsUnavailable: There are some, and it is not.
        """
        elsewhere, jobs = self._elsewhere(), self._jobs
        if not elsewhere or jobs is None:
            return
        tasks = [TaskShardsInfo(s.info.object, (s.info.object,)) for s in elsewhere]
        lost = {name for each in jobs.assign(tasks).missing.values() for name in each}
        if not lost:
            return
        try:  # from any node: copies may be where they are not to be
            self.lake.remote.ensure(lost)
        except ShardsUnavailable as error:
            if not allow_partial:
                raise
            self._leave_out(error.holders)

    def fetch(self) -> None:
        """Fetch the shards that are not here.

        Raises:
            ShardsUnavailable: No node that can be reached has one of them.
        """
        self.lake.remote.ensure([shard.info.object for shard in self._elsewhere()])

    def explained(self, engine: str, cut: Cut) -> dict[str, Any]:
        """Return where the tasks of a plan would run now; see `JobService.explain`.

        Args:
            engine: The engine of the job.
            cut: The plan.
        """
        tasks = {task_key(number): task for number, task in enumerate(self._tasks(cut))}
        infos = [
            TaskShardsInfo(key, [shard.info.object for shard in shards])
            for key, (shards, _) in tasks.items()
        ]
        found = _ALONE if self._jobs is None else self._jobs.assign(infos)
        elsewhere = {shard.info.object for shard in self._elsewhere()}
        nodes: dict[str, _NodeTasks] = {}
        for key in tasks.keys() - found.missing.keys():
            node = found.nodes.get(key, "") if engine == PeersBackend.name else ""
            row = nodes.setdefault(found.names.get(node or found.own, "this node"), _NodeTasks())
            row.add(*tasks[key], None if node in ("", found.own) else node, elsewhere)
        return {
            "engine": engine,
            "tasks": len(tasks),
            "nodes": [{"node": name, **nodes[name].to_json()} for name in sorted(nodes)],
            "missing": self._missing_by_dataset(found),
        }

    def _tasks(self, cut: Cut) -> Iterator[tuple[list[Shard], int | None]]:
        """Yield the shards that each task reads, and the bytes of its partial; None for a result."""
        shards = self.inputs.shards
        if not isinstance(cut, Split):
            yield [shard for each in shards.values() for shard in each], None
            return
        for part, shard in cut.tasks(shards):
            others = (other for ref in part.others for other in shards[ref])
            yield [shard, *others], partial_bytes(cut, part, shard.info.rows)

    def _missing_by_dataset(self, found: Assigned) -> list[dict[str, Any]]:
        lost = {name for each in found.missing.values() for name in each}
        rows = []
        for ref, shards in self.inputs.shards.items():
            count = sum(shard.info.object in lost for shard in shards)
            if count:
                rows.append({"dataset": self.lake.catalog.name(ref.dataset), "shards": count})
        return rows

    @property
    def missing_report(self) -> dict[str, Any] | None:
        """What is left out, in the form of `Sennit-Missing`; None for nothing."""
        return missing_report(self.missing) if self.missing else None

    @property
    def _jobs(self) -> NetworkJobs | None:
        jobs = self.lake.remote.jobs
        return jobs if jobs is not None and jobs.is_joined else None

    def _elsewhere(self) -> list[Shard]:
        """Return the shards that are not here, and that other nodes write."""
        return [
            shard
            for ref, shards in self.inputs.shards.items()
            if self._is_foreign(ref)
            for shard in shards
            if shard.info.object not in self.lake.objects
        ]

    def _is_foreign(self, ref: DatasetRef) -> bool:
        info = self.lake.catalog.find_known(ref.dataset)
        return info is not None and info.node is not None

    def _leave_out(self, holders: Mapping[str, tuple[str, ...]]) -> None:
        found = []
        for ref, shards in self.inputs.shards.items():
            lost = [shard.info for shard in shards if shard.info.object in holders]
            if not lost:
                continue
            self.inputs.shards[ref] = tuple(s for s in shards if s.info.object not in holders)
            nodes = sorted({node for info in lost for node in holders[info.object]})
            rows = sum(info.rows for info in lost)
            name = self.lake.catalog.name(ref.dataset)
            found.append(MissingShards(name, len(lost), rows, tuple(nodes)))
        self.missing = tuple(found)


@dataclass(slots=True)
class _NodeTasks:
    """What one node does for a job."""

    tasks: int = 0
    read: int = 0
    fetched: int = 0
    sent: int | None = 0

    def add(
        self, part: Sequence[Shard], sent: int | None, node: str | None, elsewhere: set[str]
    ) -> None:
        """Add a task.

        Args:
            part: Its shards.
            sent: The bytes of its partial; None for the result of the plan.
            node: The other node that runs it; None for this one.
            elsewhere: The shards that are not here.
        """
        self.tasks += 1
        self.read += sum(shard.info.bytes for shard in part)
        if node is None:
            self.fetched += sum(s.info.bytes for s in part if s.info.object in elsewhere)
        elif sent is None:
            self.sent = None  # all of its result
        elif self.sent is not None:
            self.sent += sent

    def to_json(self) -> dict[str, Any]:
        """Return the members of the document."""
        return {
            "tasks": self.tasks,
            "readBytes": self.read,
            "fetchedBytes": self.fetched,
            "sentBytes": self.sent,
        }


def partial_bytes(cut: Split, part: Part, rows: int) -> int:
    """Return the bytes that a partial may have, as Arrow data; an estimate to choose by.

    Args:
        cut: The plan.
        part: What runs at the shard.
        rows: Of the shard.
    """
    left = float(rows)
    for step in part.steps or ():
        left = _rows_after(step, left)
    width = sum(typical_bytes(column.type) for column in cut.partial_schema)
    return math.ceil(left * width)


def _rows_after(step: Plan, rows: float) -> float:
    match step:
        case Filter(predicate=predicate):
            return rows * selectivity(predicate, {})
        case Aggregate(keys=()):
            return 1.0
        case Aggregate() | Distinct():
            return min(rows, max(_DISTINCT_MIN, math.sqrt(rows)))
        case TopK(count=count) | Limit(count=count):
            return min(rows, count)
        case Explode():
            return rows * _ITEMS
        case Sample(fraction=float() as fraction):
            return rows * fraction
        case _:
            return rows
