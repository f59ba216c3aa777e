"""The inputs of a job that other nodes hold: which engine moves less, where tasks run, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elytra.backends import NODE_ENGINE
from elytra.backends.peers import PeersBackend
from elytra.service.plan_inputs import PlanInputs
from elytra.service.work import Shard
from elytra.splitter import Cut, Split, split
from emsqrt.plan import Aggregate, DatasetRef, Distinct, Explode, Filter, Limit, Plan, TopK
from emsqrt.planner.selectivity import selectivity
from emsqrt.planner.statistics import typical_bytes
from lake.network_jobs import Assigned, TaskShardsInfo
from lake.partial import MissingShards, ShardsUnavailable, missing_report
from sennit_core.ids import task_key

if TYPE_CHECKING:
    from lake import Lake
    from lake.network_jobs import NetworkJobs

__all__ = ["NetworkInputs", "partial_bytes"]

_DISTINCT_MIN = 200
"""Groups of keys of which nothing is known: PostgreSQL's guess, or the square root of the rows if that is more.
As `lake.peers.sql.estimates`."""
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
        cut = split(plan, self.inputs.schemas.__getitem__)
        if not isinstance(cut, Split):
            return NODE_ENGINE  # its result is made of all rows in one place
        moved = sum(partial_bytes(cut, shard.info.rows) for shard in elsewhere)
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

    def assigned(self, cut: Cut, shards: Sequence[Shard]) -> Assigned | None:
        """Return where the tasks of a plan would run now; None if this node is in no network."""
        if self._jobs is None:
            return None
        objects = [shard.info.object for shard in shards]
        parts = [[name] for name in objects] if isinstance(cut, Split) else [objects]
        return self._jobs.assign(
            [TaskShardsInfo(task_key(n), part) for n, part in enumerate(parts) if part]
        )

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


def partial_bytes(cut: Split, rows: int) -> int:
    """Return the bytes that a partial may have, as Arrow data; an estimate to choose by.

    Args:
        cut: The plan.
        rows: Of the shard.
    """
    left = float(rows)
    for step in cut.shard_steps:
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
        case _:
            return rows
