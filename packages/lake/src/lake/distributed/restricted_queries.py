"""Queries over datasets that their writers restrict: parts run at the writers, and a merge here.

The plan is that of a distributed query in which each dataset is one shard, which only its writer has, so that datasets of
one writer are joined there. A part is SQL
that the writer runs for the user under its policy, as it would any (`lake.peers.queries.restricted`); so aggregates and
filtered rows are sent, and not all that the user sees. What is not planned so (parameters, views, tables of this
node in the same query, encrypted datasets) is left to `lake.distributed.restricted_tables`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.distributed.merged_queries import MergedQuery, may_have_parts, start_merge
from lake.distributed.remote_shards import RemoteShards, RestrictedColumns
from lake.peers.transport.stop import SECONDS_MAX, Stop
from lake.sql.types import shard_types
from lake.statements.deadline import Deadline
from lake.statements.queries import QueryExecution
from lake.statements.request import StatementRequest
from lake.statements.running import RunningStatement
from sennit_core.errors import (
    Cancelled,
    DeadlineExceeded,
    Denied,
    SennitError,
    SqlError,
    Unavailable,
    UnknownColumn,
    Unsupported,
)
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake.peers.sql import DistributedPlan

__all__ = ["RestrictedQueries"]

_log = get_logger(__name__)
_ENDS = (Cancelled, Denied, DeadlineExceeded, SqlError, Unavailable, UnknownColumn)
"""What a query fails with when it is planned; after any other error its tables are read whole."""
_ROWS, _BYTES = 1_000_000, 100_000_000
"""Assumed of each dataset, as nothing may be known of it: parts are worth it, as for a large one."""


class RestrictedQueries:
    """Starts queries whose tables are all restricted.

    Args:
        pool: The executors.
        remote: The network.
        staging: Folder for results of parts.
    """

    def __init__(self, pool: ExecutorPool, remote: RemoteShards, staging: Path) -> None:
        self._pool = pool
        self._remote = remote
        self._staging = staging

    def start(
        self,
        request: StatementRequest,
        tables: Sequence[dict[str, Any]],
        release: Callable[[], None],
        deadline: Deadline,
        statement: RunningStatement,
    ) -> QueryExecution | None:
        """Start a query; None if its tables are to be read whole.

        Args:
            request: The query.
            tables: The tables that it may read.
            release: Ends their lease.
            deadline: When it is to be over.
            statement: Is stopped by users.
        """
        if not may_have_parts(request, request.sql) or not tables:
            return None
        if not all(table.get("restricted") for table in tables):
            return None
        folder = Path(tempfile.mkdtemp(prefix="arrived-", dir=self._staging))
        try:
            stop = Stop()
            statement.starting.attach(stop.stop)
            merge = self._merge(request, tables, deadline, folder, stop)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if merge is None:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        query = MergedQuery(merge, [folder])
        return start_merge(self._pool, query, request, deadline, statement, release)

    def _merge(
        self,
        request: StatementRequest,
        tables: Sequence[dict[str, Any]],
        deadline: Deadline,
        folder: Path,
        stop: Stop,
    ) -> dict[str, Any] | None:
        """Run the parts of a query; return the request of its merge, None if it has none."""
        try:
            seen = {
                table["name"]: self._remote.restricted.describe(
                    table["id"], table["writer"], request.requester
                )
                for table in tables
            }
            if any(each.secret for each in seen.values()):
                return None  # what arrives stays in memory
            plan = self._plan(request, seen, deadline)
        except _ENDS:
            raise
        except SennitError as error:
            _log.info("a query is not sent to the writer: %s", error)
            return None
        steps = self._steps(plan, seen, deadline, folder, stop)
        if steps is None:
            return None
        here = [
            {"name": table["name"], "id": table["id"], "paths": [],
             "schema": seen[table["name"]].columns.to_json(),
             "snapshot": seen[table["name"]].snapshot}
            for table in tables
        ]  # fmt: skip
        return {
            "engine": "merge", "finalSql": plan.final_sql, "tables": here, "steps": steps,
            "format": request.format, "maxRows": request.max_rows,
        }  # fmt: skip

    def _plan(
        self,
        request: StatementRequest,
        seen: dict[str, RestrictedColumns],
        deadline: Deadline,
    ) -> DistributedPlan:
        # Here, as it needs sqlglot, which a lake alone does not.
        from lake.peers.sql.tables import Column, Shard, Table
        from lake.peers.sql.wire import plan_from_data, tables_to_data

        writers = list(dict.fromkeys(each.writer for each in seen.values()))
        tables = [
            Table(
                name,
                tuple(Column(column, kind) for column, kind in shard_types(each.columns).items()),
                (Shard(each.dataset, _ROWS, _BYTES, nodes=(1 + writers.index(each.writer),)),),
            )
            for name, each in seen.items()
        ]
        options = {"nodes": 2, "usesStates": False, "sendsBytesMax": 0, "usesWhole": True}
        planned = {
            "engine": "distribute", "sql": request.sql, "tables": tables_to_data(tables),
            "options": options,
        }  # fmt: skip
        with self._pool.submit(
            "lake.sql",
            planned,
            user=request.user,
            deadline_seconds=deadline.left,
            restartable=True,
        ) as execution:
            return plan_from_data(execution.result()["plan"])

    def _steps(
        self,
        plan: DistributedPlan,
        seen: dict[str, RestrictedColumns],
        deadline: Deadline,
        folder: Path,
        stop: Stop,
    ) -> list[dict[str, Any]] | None:
        """Run the parts; return the steps of the merge, None if a part has an error."""
        from lake.peers.sql.plan import Fragment, Gather

        by_name = {name.casefold(): each for name, each in seen.items()}
        steps = []
        for number, step in enumerate(plan.steps):
            files = None
            if isinstance(step, Fragment | Gather):
                if isinstance(step, Gather):
                    names: tuple[str, ...] = (step.table,)
                else:
                    names = (*step.sharded, *step.replicated)
                read = {name: by_name[name.casefold()] for name in names}
                if len({each.writer for each in read.values()}) != 1:
                    return None
                place = folder / f"{number}.arrow"
                seconds = min(deadline.left or SECONDS_MAX, SECONDS_MAX)
                try:
                    self._remote.restricted.query(step.sql, read, place, seconds, stop)
                except (SqlError, Unsupported) as error:
                    # The whole query may have another error, or none; or the part is too long.
                    _log.info("a part of a query has an error: %s", error)
                    return None
                files = [str(place)]
            steps.append({"result": step.result, "sql": step.sql, "files": files})
        return steps
