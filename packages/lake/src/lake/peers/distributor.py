"""The coordinator of distributed queries: from SQL over shared datasets to a query over results.

    plan (executor) ──▶ fragments at the holders of shards ──▶ files ──▶ merge (executor)

Fragments of all steps run at the same time. Their results are files in the lake's staging folder, which
are removed with the query. What cannot be distributed (parameters, views, earlier snapshots), and what
would move more than whole shards, is left to the caller, which fetches the shards. No row is sent to another node: a fragment reads shards of its
holder, among them all those of a table that the holder has whole; rows of other tables that it would need come here instead.
If a holder has less than was known of it, the query is planned anew without whole tables.

Shards that no known holder has sent are fetched from any node that has them, once, and the query is
planned anew: copies may be at nodes that are not to hold them. One that may leave out shards is planned anew without those that no node could read, until all others
were read: so each use of a dataset has the same rows.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lake.deadline import Deadline
from lake.partial import ShardsUnavailable, missing_shards
from lake.peers.distributed_query import Distributed, DistributedQuery
from lake.peers.limits import ByteLimit
from lake.peers.plan_cache import PlanCache
from lake.peers.sql import DistributedPlan, Fragment, Gather, Merge, arrived_table, sharded_table
from lake.peers.sql.wire import plan_from_data, tables_to_data
from lake.peers.step_dispatch import Coordinator, StepDispatch, WholeTablesUnavailable
from lake.peers.stop import Stop
from sennit_core.errors import UsageError
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from sennit_core.records import SnapshotInfo

__all__ = ["Distributor"]

T = TypeVar("T")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Run:
    """One attempt at a query.

    Args:
        query: The query.
        deadline: When it is to be over.
        stop: Stops it.
        uses_whole: Whether parts may read tables that their nodes have whole.
    """

    query: DistributedQuery
    deadline: Deadline
    stop: Stop
    uses_whole: bool


class Distributor:
    """Runs the parts of distributed queries.

    Args:
        coordinator: This node.
        pool: Its executors.
        staging: Folder for results.
        plans: The plans of earlier queries.
    """

    def __init__(
        self, coordinator: Coordinator, pool: ExecutorPool, staging: Path, plans: PlanCache
    ) -> None:
        self._coordinator = coordinator
        self._placed = coordinator.placed
        self._pool = pool
        self._staging = staging
        self._plans = plans

    async def run(self, query: DistributedQuery, stop: Stop) -> Distributed | None:
        """Return a query's parts; None if it is not distributed.

        Args:
            query: The query.
            stop: Stops it.

        Raises:
            ShardsUnavailable: No node that can be reached has a shard.
            SennitError: The error of a part, if every holder has one.
        """
        deadline = Deadline(query.seconds)
        absent: dict[str, tuple[str, ...]] = {}
        sought: set[str] = set()
        uses_whole = True
        while True:
            tables = [replace(t, snapshot=_without(t.snapshot, absent)) for t in query.tables]
            run = _Run(replace(query, tables=tables), deadline, stop, uses_whole)
            try:
                found = await self._run(run)
            except WholeTablesUnavailable as error:
                _log.info("a query is planned without whole tables: %s", error)
                uses_whole = False
                continue
            except ShardsUnavailable as error:
                try:
                    await self._seek(error, sought)
                except ShardsUnavailable as lost:
                    if not query.allow_partial or not lost.holders.keys() - absent.keys():
                        raise
                    absent |= lost.holders
                continue
            named = [(table.name, table.snapshot) for table in query.tables]
            return found and replace(
                found, missing=missing_shards(named, absent), absent=frozenset(absent)
            )

    async def _seek(self, error: ShardsUnavailable, sought: set[str]) -> None:
        """Fetch the shards that are unavailable, each once; note them.

        Raises:
            ShardsUnavailable: No node that can be reached has one of them, or all were fetched before.
        """
        missing = error.holders.keys() - sought
        if not missing:
            raise error
        sought |= missing
        await self._placed.fetch(missing)

    async def _run(self, run: _Run) -> Distributed | None:
        query, deadline, stop = run.query, run.deadline, run.stop
        plan = await asyncio.to_thread(self._plan, run)
        whole_bytes = self._missing_bytes(query)
        if plan.moved_bytes >= whole_bytes:
            if query.runs:
                return None  # they are compressed, and there for the next query
            reason = f"the whole shards are {whole_bytes} bytes: they would be fetched"
            plan = replace(plan, reasons=(*plan.reasons, reason))
        limit = ByteLimit(self._coordinator.bytes_max)
        data_steps = [step for step in plan.steps if isinstance(step, Fragment | Gather)]
        folder = Path(tempfile.mkdtemp(prefix="distributed-", dir=self._staging))
        try:
            started = [
                StepDispatch(self._coordinator, step, query, folder, deadline, stop, limit)
                for step in data_steps
            ]
            results = await _all([each.run() if query.runs else each.assign() for each in started])
        except BaseException as error:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            if not isinstance(error, UsageError):
                raise
            # The whole query may have another error, or none: a part computes what a join would have
            # left out.
            _log.info("a part of a query has an error: %s", error)
            return None
        files = dict(zip((step.result for step in data_steps), results, strict=True))
        steps = [
            {
                "result": step.result,
                "sql": step.sql,
                "files": None if isinstance(step, Merge) else files[step.result].files,
            }
            for step in plan.steps
        ]
        return Distributed(plan, steps, folder, {name: each.run for name, each in files.items()})

    def _missing_bytes(self, query: DistributedQuery) -> int:
        """Return the size of the shards of a query that are not here."""
        sizes = {s.object: s.bytes for table in query.tables for s in table.snapshot.shards}
        node = self._coordinator.node
        return sum(
            size for name, size in sizes.items() if node not in self._placed.holders(name)[:1]
        )

    def _plan(self, run: _Run) -> DistributedPlan:
        query, deadline = run.query, run.deadline
        names = dict.fromkeys(s.object for table in query.tables for s in table.snapshot.shards)
        holders = {name: self._placed.holders(name) for name in names}
        # In an order that does not depend on which of them is preferred now.
        others = {node for found in holders.values() for node in found} - {self._coordinator.node}
        numbers = {node: n for n, node in enumerate((self._coordinator.node, *sorted(others)))}
        nodes = {
            name: tuple(sorted(map(numbers.__getitem__, found))) for name, found in holders.items()
        }
        options = {
            "nodes": len(self._placed.alive()) + 1,
            "usesStates": all(map(self._placed.has_same_duckdb, numbers)),
            # A row of a private dataset would reach nodes that may not read it.
            "sendsRows": False,
            "usesWhole": run.uses_whole,
        }
        versions = tuple((t.name, t.snapshot.dataset, t.snapshot.id) for t in query.tables)
        arrived = tuple((each.name, each.schema.fields, each.bytes) for each in query.arrived)
        key = (query.sql, versions, arrived, tuple(nodes.items()), tuple(options.items()))
        found = self._plans.find(key)
        if found is not None:
            return found
        planned = [sharded_table(table.name, table.snapshot, nodes) for table in query.tables]
        planned += [arrived_table(each.name, each.schema, each.bytes) for each in query.arrived]
        request = {
            "engine": "distribute",
            "sql": query.sql,
            "tables": tables_to_data(planned),
            "options": options,
        }
        with self._pool.submit(
            "lake.sql",
            request,
            user=query.user,
            deadline_seconds=deadline.left,
            restartable=True,
        ) as execution:
            plan = plan_from_data(execution.result()["plan"])
        self._plans.put(key, plan, len(names))
        return plan


def _without(snapshot: SnapshotInfo, absent: Mapping[str, object]) -> SnapshotInfo:
    return replace(snapshot, shards=tuple(s for s in snapshot.shards if s.object not in absent))


async def _all(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines; when one fails, end the others and raise its error."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
