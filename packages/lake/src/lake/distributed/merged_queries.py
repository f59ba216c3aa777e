"""Queries whose parts have run elsewhere: an executor of this node merges what has arrived."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.statements.deadline import Deadline
from lake.statements.queries import QueryExecution
from lake.statements.request import StatementRequest
from lake.statements.running import RunningStatement

if TYPE_CHECKING:
    from emsqrt.executor import Execution, ExecutorPool
    from lake.distributed.partial import MissingShards
    from lake.distributed.read_repair import Repair

__all__ = ["MergedQuery", "may_have_parts", "start_merge"]

_QUERY = re.compile(r"\s*(select|with|from)\b", re.IGNORECASE)


def may_have_parts(request: StatementRequest, sql: str) -> bool:
    """Return whether a statement is of a form that can be computed in parts.

    Args:
        request: The statement.
        sql: Its text without EXPLAIN.
    """
    if request.params or request.arrow_params or request.describe or request.engine == "emsqrt":
        return False
    return _QUERY.match(sql) is not None


@dataclass(frozen=True, slots=True)
class MergedQuery:
    """A query whose parts have arrived.

    Args:
        merge: The request `merge` of the executor; a repair may change it.
        folders: Those of the files of the parts, removed at the end; a repair may add one.
        missing: The shards that the user allowed to be missing.
        repair: Of the shards that the merge reads in place; as of `QueryExecution`.
    """

    merge: dict[str, Any]
    folders: list[Path]
    missing: tuple[MissingShards, ...] = ()
    repair: Repair = lambda _error, _stop: False


def start_merge(
    pool: ExecutorPool,
    query: MergedQuery,
    request: StatementRequest,
    deadline: Deadline,
    statement: RunningStatement,
    release: Callable[[], None],
) -> QueryExecution:
    """Start the last part of a query, in DuckDB alone: EM-√ would plan it anew.

    Args:
        pool: The executors.
        query: The parts; the folders are removed on errors too.
        request: The query.
        deadline: When it is to be over.
        statement: Is stopped by users.
        release: Ends the lease of its tables.
    """

    def start(_step: str, _own: dict[str, Any]) -> Execution:
        return pool.submit(
            "lake.sql",
            query.merge,
            deadline_seconds=deadline.left,
            user=request.user,
            priority=request.priority,
            mem_cap_bytes=statement.memory_bytes or None,
        )

    def remove() -> None:
        for folder in query.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def end() -> None:
        try:
            remove()
        finally:
            release()

    try:
        return QueryExecution(
            start,
            "duckdb",
            end,
            deadline_seconds=request.deadline_seconds,
            missing=query.missing,
            repair=query.repair,
        )
    except BaseException:
        remove()
        raise
