"""The coordinator of distributed queries: from SQL over shared datasets to a query over results.

    plan (executor) ──▶ fragments at the holders of shards ──▶ files ──▶ merge (executor)

Fragments of all steps run at the same time. Their results are files in the lake's staging folder, which
are removed with the query. What cannot be distributed (parameters, views, earlier snapshots), and what
would move more than whole shards, is left to the caller, which fetches the shards. A fragment reads shards of its
holder, among them all those of a table that the holder has whole, and rows that are sent along with it (`lake.peers.queries.sent_rows`), to holders
that may have all datasets which these come from; other rows that it would need come here instead.
If a holder has less than was known of it, or may have less, the query is planned anew without whole tables, or without such rows.

Shards that no known holder has sent are fetched from any node that has them, once, and the query is
planned anew: copies may be at nodes that are not to hold them. One that may leave out shards is planned anew without those that no node could read, until all others
were read: so each use of a dataset has the same rows.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lake.distributed.partial import ShardsUnavailable, missing_shards
from lake.peers.queries.distributed_query import Distributed, DistributedQuery, DistributedTable
from lake.peers.queries.plan_cache import PlanCache
from lake.peers.queries.plan_run import PlanRun, last_steps
from lake.peers.queries.sent_rows import SENT_BYTES_MAX
from lake.peers.queries.step_dispatch import Coordinator, RowsNotSent, WholeTablesUnavailable
from lake.peers.sql import DistributedPlan, arrived_table, sharded_table
from lake.peers.sql.wire import plan_from_data, tables_to_data
from lake.peers.transport.limits import ByteLimit
from lake.peers.transport.stop import Stop
from lake.statements.deadline import Deadline
from sennit_core.errors import UsageError
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from sennit_core.records import SnapshotInfo

__all__ = ["Distributor"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Run:
    """One attempt at a query.

    Args:
        query: The query.
        deadline: When it is to be over.
        stop: Stops it.
        uses_whole: Whether parts may read tables that their nodes have whole.
        sends_rows: Whether rows may be sent along with parts.
        absent: The object ids of shards that it leaves out.
    """

    query: DistributedQuery
    deadline: Deadline
    stop: Stop
    uses_whole: bool
    sends_rows: bool
    absent: frozenset[str]


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
        self._here = coordinator.whole_are_here

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
        uses_whole = sends_rows = True
        while True:
            tables = [replace(t, snapshot=_without(t.snapshot, absent)) for t in query.tables]
            changed = replace(query, tables=tables)
            run = _Run(changed, deadline, stop, uses_whole, sends_rows, frozenset(absent))
            try:
                found = await self._run(run)
            except RowsNotSent as error:
                _log.info("a query is planned without rows for other nodes: %s", error)
                sends_rows = False
                continue
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
        if self._reads_whole(plan, whole_bytes):
            if query.runs:
                return None  # they are compressed, and there for the next query
            then = "one executor reads them here" if self._here else "they would be fetched"
            reason = f"the whole shards are {whole_bytes} bytes: {then}"
            plan = replace(plan, reasons=(*plan.reasons, reason))
        limit = ByteLimit(self._coordinator.bytes_max)
        folder = Path(tempfile.mkdtemp(prefix="distributed-", dir=self._staging))
        try:
            results = await PlanRun(
                self._coordinator,
                self._pool,
                plan,
                query,
                run.absent,
                folder,
                deadline,
                stop,
                limit,
            ).run()
        except BaseException as error:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            if not isinstance(error, UsageError):
                raise
            # The whole query may have another error, or none: a part computes what a join would have
            # left out.
            _log.info("a part of a query has an error: %s", error)
            return None
        steps = last_steps(plan, results, counts_rows=query.explained)
        runs = {name: each.run for name, each in results.items() if each.run is not None}
        senders = {
            Path(file).stem: node
            for each in results.values()
            for file, node in zip(each.files, each.senders, strict=False)
            if node != self._coordinator.node
        }
        return Distributed(plan, steps, folder, runs, senders)

    def _reads_whole(self, plan: DistributedPlan, whole_bytes: int) -> bool:
        """Return whether the whole shards are to be read here, in place of the parts of a plan."""
        if (
            self._here
        ):  # nothing would be fetched: parts pay where workers compute what one executor would
            return plan.strategy in ("gather", "local")
        return plan.moved_bytes >= whole_bytes

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
        holders = {
            name: [node for node in self._placed.holders(name) if node not in query.distrusted]
            for name in names
        }
        # In an order that does not depend on which of them is preferred now.
        others = {node for found in holders.values() for node in found} - {self._coordinator.node}
        numbers = {node: n for n, node in enumerate((self._coordinator.node, *sorted(others)))}
        nodes = {
            name: tuple(sorted(map(numbers.__getitem__, found))) for name, found in holders.items()
        }
        options = {
            "nodes": len(self._placed.alive()),
            "usesStates": all(map(self._placed.has_same_duckdb, numbers)),
            "sendsBytesMax": SENT_BYTES_MAX if run.sends_rows else 0,
            "usesWhole": run.uses_whole,
            "strategy": "push" if self._here else "cheapest",
        }
        versions = tuple((t.name, t.snapshot.dataset, t.snapshot.id) for t in query.tables)
        arrived = tuple((each.name, each.schema.fields, each.bytes) for each in query.arrived)
        readers = {table.name: self._readers(table, numbers) for table in query.tables}
        placed = tuple(nodes.items())
        key = (query.sql, versions, arrived, placed, *readers.items(), *options.items())
        found = self._plans.find(key)
        if found is not None:
            return found
        planned = [
            sharded_table(table.name, table.snapshot, nodes, readers[table.name], query.sql)
            for table in query.tables
        ]
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
            run.stop.attach(execution.cancel)
            plan = plan_from_data(execution.result()["plan"])
        self._plans.put(key, plan, len(names))
        return plan

    def _readers(self, table: DistributedTable, numbers: Mapping[str, int]) -> tuple[int, ...]:
        """Return the numbers of the nodes that rows of a table may be sent to now."""
        snapshot = table.snapshot
        return tuple(
            number
            for node, number in numbers.items()
            if number and self._placed.may_receive(node, snapshot.dataset, snapshot.id)
        )


def _without(snapshot: SnapshotInfo, absent: Mapping[str, object]) -> SnapshotInfo:
    return replace(snapshot, shards=tuple(s for s in snapshot.shards if s.object not in absent))
