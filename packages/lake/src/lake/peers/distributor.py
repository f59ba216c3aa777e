"""The coordinator of distributed queries: from SQL over shared datasets to a query over results.

    plan (executor) ──▶ fragments at the holders of shards ──▶ files ──▶ merge (executor)

Fragments of all steps run at the same time. Their results are files in the lake's staging folder, which
are removed with the query. What cannot be distributed (parameters, views, earlier snapshots), and what
would move more than whole shards, is left to the caller, which fetches the shards. No row is sent to another node: a fragment reads the shards of its
holder, and rows of other tables that it would need come here instead.

A query that may leave out shards is planned anew without those that no node could read, until all others
were read: so each use of a dataset has the same rows.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lake.deadline import Deadline
from lake.partial import ShardsUnavailable, missing_shards
from lake.peers.distributed_query import Distributed, DistributedQuery, DistributedTable
from lake.peers.sql import DistributedPlan, Fragment, Gather, Merge, Table, sharded_table
from lake.peers.sql.wire import plan_from_data, tables_to_data
from lake.peers.step_dispatch import Coordinator, StepDispatch
from lake.peers.stop import Stop
from sennit_core.errors import UsageError
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from sennit_core.records import SnapshotInfo

__all__ = ["Distributor"]

T = TypeVar("T")
_log = get_logger(__name__)


class Distributor:
    """Runs the parts of distributed queries.

    Args:
        coordinator: This node.
        pool: Its executors.
        staging: Folder for results.
    """

    def __init__(self, coordinator: Coordinator, pool: ExecutorPool, staging: Path) -> None:
        self._coordinator = coordinator
        self._placed = coordinator.placed
        self._pool = pool
        self._staging = staging

    async def run(self, query: DistributedQuery, stop: Stop) -> Distributed | None:
        """Return a query's parts; None if it is not distributed.

        Args:
            query: The query.
            stop: Stops it.

        Raises:
            ShardsUnavailable: No node that can be reached holds a shard.
            SennitError: The error of a part, if every holder has one.
        """
        deadline = Deadline(query.seconds)
        absent: dict[str, tuple[str, ...]] = {}
        while True:
            tables = [replace(t, snapshot=_without(t.snapshot, absent)) for t in query.tables]
            try:
                found = await self._run(replace(query, tables=tables), deadline, stop)
            except ShardsUnavailable as error:
                if not query.allow_partial or not error.holders.keys() - absent.keys():
                    raise
                absent |= error.holders
                continue
            named = [(table.name, table.snapshot) for table in query.tables]
            return found and replace(found, missing=missing_shards(named, absent))

    async def _run(
        self, query: DistributedQuery, deadline: Deadline, stop: Stop
    ) -> Distributed | None:
        plan = await asyncio.to_thread(self._plan, query, deadline)
        whole_bytes = self._missing_bytes(query)
        if plan.moved_bytes >= whole_bytes:
            if query.runs:
                return None  # they are compressed, and there for the next query
            reason = f"the whole shards are {whole_bytes} bytes: they would be fetched"
            plan = replace(plan, reasons=(*plan.reasons, reason))
        data_steps = [step for step in plan.steps if isinstance(step, Fragment | Gather)]
        folder = Path(tempfile.mkdtemp(prefix="distributed-", dir=self._staging))
        try:
            started = [
                StepDispatch(self._coordinator, step, query, folder, deadline, stop)
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

    def _plan(self, query: DistributedQuery, deadline: Deadline) -> DistributedPlan:
        names = {shard.object for table in query.tables for shard in table.snapshot.shards}
        holders = {name: self._placed.holders(name) for name in names}
        node, nodes = self._coordinator.node, {each for found in holders.values() for each in found}
        request = {
            "engine": "distribute",
            "sql": query.sql,
            "tables": tables_to_data(_with_usable_keys(query.tables, holders)),
            "options": {
                "nodes": len(self._placed.alive()) + 1,
                "local": [name for name, found in holders.items() if node in found[:1]],
                "usesStates": all(map(self._placed.has_same_duckdb, nodes)),
                # A row of a private dataset would reach nodes that may not read it.
                "sendsRows": False,
            },
        }
        with self._pool.submit(
            "lake.sql",
            request,
            user=query.user,
            deadline_seconds=deadline.left,
            restartable=True,
        ) as execution:
            return plan_from_data(execution.result()["plan"])


def _without(snapshot: SnapshotInfo, absent: Mapping[str, object]) -> SnapshotInfo:
    return replace(snapshot, shards=tuple(s for s in snapshot.shards if s.object not in absent))


def _with_usable_keys(
    tables: Sequence[DistributedTable], holders: Mapping[str, Sequence[str]]
) -> list[Table]:
    """Return the tables of the planner; without keys if the shards of a bucket are not on one node.

    All shards of a bucket, of all tables with one kind of key, are read together. Copies arrive one after the
    other, so there may be a holder of each of them, but none of all.
    """
    planned = [sharded_table(table.name, table.snapshot) for table in tables]
    common: dict[tuple[tuple[int, str], int | None], set[str]] = {}
    for table in planned:
        kind = table.key_class()
        for shard in table.shards or () if kind is not None else ():
            # One without holders is missing in any plan.
            if kind is not None and (nodes := set(holders[shard.object])):
                found = common.setdefault((kind, shard.bucket), nodes)
                found &= nodes
    if all(common.values()):
        return planned
    return [replace(table, key=None) for table in planned]


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
