"""Queries whose shards other nodes hold: started as parts there, and a merge in an executor here.

What the user sees of a restricted dataset is read from its writer first, and only the merge reads it: no part of a query
has a row of it, or a value that was computed from one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.distributed.merged_queries import MergedQuery, may_have_parts, start_merge
from lake.distributed.partial import without_shards
from lake.distributed.read_repair import ReadRepair, Repair
from lake.distributed.remote_shards import RemoteShards
from lake.peers.transport.stop import SECONDS_MAX, Stop
from lake.sql.query_parts import part_of_query
from lake.statements.deadline import Deadline
from lake.statements.mentions import split_explain
from lake.statements.queries import QueryExecution
from lake.statements.request import StatementRequest
from lake.statements.running import RunningStatement
from sennit_core.errors import (
    Cancelled,
    Corrupt,
    DeadlineExceeded,
    Denied,
    SennitError,
    SqlError,
    TooLarge,
    Unavailable,
    UnknownColumn,
)
from sennit_core.logs import get_logger
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake.catalog.catalog import Catalog
    from lake.peers.queries.distributed_query import Distributed, DistributedQuery
    from lake.peers.sql import DistributedPlan

__all__ = ["DistributedQueries"]

_log = get_logger(__name__)
_ANALYZE = re.compile(r"\banaly[sz]e\b", re.IGNORECASE)
_OF_SHARDS = ("paths", "shardFiles", "shardRows", "statistics", "numbers", "shardsInAll")
_ERRORS = (Cancelled, Denied, DeadlineExceeded, SqlError, Unavailable, UnknownColumn)
"""What a query fails with before parts of it run; after any other error its shards are fetched."""
_WHOLE = ("view", "link", "policy", "damage", "encrypted", "explained")
"""Members of tables that only this node, or only whole tables, can have."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query.

    Args:
        request: Its request, without EXPLAIN.
        tables: The tables that it reads, leased.
        explain: Its EXPLAIN; "" if it has none.
        deadline: When it is to be over.
    """

    request: StatementRequest
    tables: Sequence[dict[str, Any]]
    explain: str
    deadline: Deadline


class DistributedQueries:
    """Starts queries over shards of several nodes.

    Args:
        pool: The executors.
        catalog: The datasets.
        remote: The network.
        repair: Replaces damaged shards that are read in place.
    """

    def __init__(
        self, pool: ExecutorPool, catalog: Catalog, remote: RemoteShards, repair: ReadRepair
    ) -> None:
        self._repair = repair
        self._pool = pool
        self._catalog = catalog
        self._remote = remote

    def start(
        self,
        request: StatementRequest,
        tables: Sequence[dict[str, Any]],
        release: Callable[[], None],
        deadline: Deadline,
        statement: RunningStatement,
    ) -> QueryExecution | None:
        """Start a query; None if the shards are to be fetched instead.

        Args:
            request: The query.
            tables: The tables that it reads, leased.
            release: Ends the lease.
            deadline: When it is to be over.
            statement: Is stopped by users.
        """
        if not self._may_distribute(request, tables):
            return None
        explain, sql = split_explain(request.sql)
        asked = _Asked(replace(request, sql=sql), tables, explain, deadline)
        parts = self._parts(asked, statement.starting)
        if parts is None:
            return None
        merge = self._merge(asked, parts)
        shards = self._repair.of(lambda: merge["tables"], deadline)
        query = MergedQuery(
            merge,
            [parts.folder],
            parts.missing,
            lambda error, stop: repair(error, stop) or shards(error, stop),
        )
        repair = self._part_repair(asked, parts, query)
        return start_merge(self._pool, query, request, deadline, statement, release)

    def _merge(self, asked: _Asked, parts: Distributed) -> dict[str, Any]:
        """Return the request `merge` of an executor."""
        explain, sql = asked.explain, parts.plan.final_sql
        return {
            "engine": "merge",
            "finalSql": f"{explain} {sql}" if explain else sql,
            "tables": self._here(asked.tables, parts.plan, parts.absent),
            "steps": parts.steps,
            "format": asked.request.format,
            "maxRows": asked.request.max_rows,
            "explained": _explained(parts, explain) if explain else None,
        }

    def _part_repair(self, asked: _Asked, parts: Distributed, query: MergedQuery) -> Repair:
        """Return what asks other nodes for a part that the merge could not read.

        The node that has sent it computes no part of the query any more. What no other node can compute is computed
        here, from shards, which are verified whoever sends them.
        """
        senders = dict(parts.senders)
        distrusted: set[str] = set()

        def repair(error: SennitError, stop: Stop) -> bool:
            sender = _sender_of(error, senders)
            if sender is None:
                return False
            _log.warning("node %s has sent a part that cannot be read: %s", sender[:16], error)
            distrusted.add(sender)
            found = self._parts(asked, stop, frozenset(distrusted))
            senders.clear()
            if found is None:
                changed = self._whole(asked, parts.absent, stop)
            else:
                query.folders.append(found.folder)
                if found.missing != parts.missing:
                    return False  # the result would not be what its report says
                senders.update(found.senders)
                changed = self._merge(asked, found)
            query.merge.clear()
            query.merge.update(changed)
            return True

        return repair

    def _whole(self, asked: _Asked, absent: Collection[str], stop: Stop) -> dict[str, Any]:
        """Fetch the shards of a query; return the request of the executor that computes all of it."""
        tables = [without_shards(table, absent) for table in asked.tables]
        names = (Path(path).name for table in tables for path in table.get("paths") or ())
        self._remote.ensure(names, seconds=asked.deadline.left, stop=stop)
        request = asked.request
        return {
            "engine": "duckdb",
            "sql": f"{asked.explain} {request.sql}" if asked.explain else request.sql,
            "tables": tables,
            "format": request.format,
            "maxRows": request.max_rows,
        }

    def _here(
        self, tables: Sequence[dict[str, Any]], plan: DistributedPlan, absent: Collection[str]
    ) -> list[dict[str, Any]]:
        """Return the tables of a merge: with their shards if they are read in place, else without."""
        return [self._table_here(table, plan, absent) for table in tables]

    def _table_here(
        self, table: dict[str, Any], plan: DistributedPlan, absent: Collection[str]
    ) -> dict[str, Any]:
        is_read = table["name"] in plan.reads_in_place
        if is_read and table.get("arrived"):
            return table
        if not is_read:
            members = {name: value for name, value in table.items() if name not in _OF_SHARDS}
            return members | {"paths": []}
        shards = self._catalog.manifest(table["id"], table["snapshot"]).snapshot.shards
        # The planner knows of no shard without rows, which may be elsewhere.
        return without_shards(table, {*absent, *(s.object for s in shards if not s.rows)})

    def joins_restricted(self, request: StatementRequest, tables: Sequence[dict[str, Any]]) -> bool:
        """Return whether restricted datasets are to be read before a query with others is planned."""
        others = [table for table in tables if not table.get("restricted")]
        return len(others) < len(tables) and self._may_distribute(request, others)

    def _may_distribute(self, request: StatementRequest, tables: Sequence[dict[str, Any]]) -> bool:
        """Return whether a query is of a form that is distributed, and shards are missing here."""
        _, sql = split_explain(request.sql)
        if not may_have_parts(request, sql):
            return False
        if any(table.get(m) for table in tables for m in _WHOLE):
            return False
        return any(
            table.get("writer")
            and not table.get("arrived")
            and self._remote.lacks_any(Path(path).name for path in table["paths"] or ())
            for table in tables
        )

    def _parts(
        self, asked: _Asked, stop: Stop, distrusted: frozenset[str] = frozenset()
    ) -> Distributed | None:
        # Here, as it needs the network's libraries, which a lake alone does not.
        from lake.peers.queries.distributed_query import (
            ArrivedTable,
            DistributedQuery,
            DistributedTable,
        )

        snapshots = [
            DistributedTable(
                table["name"], self._catalog.manifest(table["id"], table["snapshot"]).snapshot
            )
            for table in asked.tables
            if not table.get("arrived")
        ]
        arrived = [
            ArrivedTable(
                table["name"],
                Schema.from_json(table["schema"]),
                sum(Path(path).stat().st_size for path in table["paths"]),
            )
            for table in asked.tables
            if table.get("arrived")
        ]
        request, explain = asked.request, asked.explain
        seconds = min(asked.deadline.left or SECONDS_MAX, SECONDS_MAX)
        try:
            query = DistributedQuery(
                request.sql,
                snapshots,
                request.user,
                seconds,
                runs=not explain or _ANALYZE.search(explain) is not None,
                allow_partial=request.allow_partial,
                arrived=arrived,
                here=lambda plan, absent: self._here(asked.tables, plan, absent),
                explained=bool(explain),
                distrusted=distrusted,
            )
            found = self._distribute(query, stop)
        except _ERRORS:
            raise
        except SennitError as error:
            _log.info("a query is not distributed: %s", error)
            return None
        return found

    def _distribute(self, query: DistributedQuery, stop: Stop) -> Distributed | None:
        found: Distributed | None = self._remote.distribute(query, stop)
        return found


def _sender_of(error: SennitError, senders: Mapping[str, str]) -> str | None:
    """Return the node that has sent the part which an error is about; None if it is about none."""
    if not isinstance(error, Corrupt | TooLarge):
        return None
    return next((node for name, node in senders.items() if part_of_query(name) in error.what), None)


def _explained(parts: Distributed, explain: str) -> dict[str, Any]:
    """Return what an executor shows of a distributed query."""
    from lake.peers.sql.wire import plan_to_data, runs_to_data

    return {
        "plan": plan_to_data(parts.plan),
        "runs": runs_to_data(parts.runs),
        "isJson": "json" in explain.casefold(),
    }
